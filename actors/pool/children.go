package pool

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/rbdwarden/rbdwarden/actors/replayer"
	"github.com/rbdwarden/rbdwarden/messages"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/supervision"
)

// child is one image: its actor while there is one, and the memory of its restarts.
//
//	order     none: images know nothing of each other
//	strategy  one-for-one; the decider always stops, and the pool starts a new actor
//	          after a back-off that grows; too many deaths park the image
//	intensity supervision.DefaultStrategy
//	shutdown  closeTimeout, then the image stays locked until the process ends
//	reason    a panic; operating errors are answered inside the actor
type child struct {
	pid     *actor.PID // nil while there is no actor
	restart *supervision.Restarter
	panic   *report.Cause        // why the actor is about to end
	ends    ending               // why it is to end, if it is
	stop    bool                 // it was told to end
	stuck   *messages.ImageStuck // the same: it let go of what does not end
	past    messages.Past        // of what the image is part of
	last    report.Image
}

// respawn is the message that starts a child again; at tells a stale one from the
// current one.
type respawn struct {
	globalID string
	at       time.Time
}

// spawnChild starts an image's actor under a name that was never used before.
func (p *Pool) spawnChild(c actor.Context, globalID string, ch *child) {
	halt := p.halts.Of(p.opt.Key.Pool, p.opt.Key.Namespace, globalID)
	past := p.pastOf(globalID, ch)
	props := actor.PropsFromProducer(func() actor.Actor { return p.opt.NewImage(p.imageKey(globalID), p.remote, halt, past) })
	ch.pid = c.SpawnPrefix(props, "image-"+globalID)
	ch.panic, ch.stuck, ch.stop = nil, nil, false
	ch.restart.Step(supervision.Started{When: time.Now()})
	c.Watch(ch.pid)
	p.byPID[ch.pid.Id] = globalID
}

func (p *Pool) imageKey(globalID string) messages.ImageKey {
	return messages.ImageKey{PoolKey: p.opt.Key, GlobalID: globalID}
}

// childEnded decides what follows an actor's end.
func (p *Pool) childEnded(c actor.Context, who *actor.PID) {
	globalID, ok := p.byPID[who.Id]
	if !ok {
		return
	}
	delete(p.byPID, who.Id)
	ch := p.children[globalID]
	ch.pid = nil
	if ch.ends != stays || p.ending {
		p.drop(globalID, ch.ends.tell())
		p.dropped(c, globalID)
		return
	}
	cause := report.Cause{What: "image " + p.imageKey(globalID).String(), Why: report.WhyFinished, When: time.Now()}
	switch {
	case ch.panic != nil:
		cause = *ch.panic
		cause.When = time.Now() // it has let go of everything only now
	case ch.stuck != nil:
		cause.Why, cause.Text = report.WhyStuck, "does not end although it was cancelled: "+ch.stuck.What
		if ch.stuck.Writes {
			cause.Why = report.WhyAbandoned
		}
	default:
		p.opt.Ledger.Add(supervision.End{Level: report.LevelImage, Name: p.imageKey(globalID).String(), Cause: cause})
	}
	d := ch.restart.Step(supervision.Died{Cause: cause, Random: rand.Float64()})
	past := p.pastOf(globalID, ch)
	ch.last.GlobalID, ch.last.Pool, ch.last.Namespace = globalID, p.opt.Key.Pool, p.opt.Key.Namespace
	ch.last.Restarts, ch.last.LastCause, ch.last.History = past.Restarts, &cause, past.Ends
	ch.last.Parked, ch.last.NextStart, ch.last.StalledSeconds = d.Parked, d.At, 0
	ch.last.State, ch.last.Description = "error", p.crashed(ch, cause, d)
	p.tellStatus(globalID, ch.last)
	self, system := c.Self(), c.ActorSystem()
	time.AfterFunc(time.Until(d.At), func() { system.Root.Send(self, respawn{globalID, d.At}) })
}

// panicked records why an image's actor is about to end: at once, for if what it has under way
// does not end either, this process may.
func (p *Pool) panicked(m messages.ImagePanicked) {
	ch := p.children[m.Key.GlobalID]
	if ch == nil {
		return
	}
	ch.panic = &report.Cause{What: "image " + m.Key.String(), Why: report.WhyPanic, When: time.Now(), Text: m.Value}
	if ch.last.Name != "" {
		ch.panic.What = "image " + p.opt.Key.String() + "/" + ch.last.Name
	}
	p.opt.Ledger.Add(supervision.End{Level: report.LevelImage, Name: m.Key.String(), Cause: *ch.panic})
	p.opt.Log.Error().Str("image", ch.last.Name).Str("global_id", m.Key.GlobalID).
		Str("panic", m.Value).Str("stack", m.Stack).Msg("an image's actor panicked")
}

// crashed describes an image whose actor is dead.
func (p *Pool) crashed(ch *child, cause report.Cause, d supervision.Decision) string {
	what := "restarting after a crash"
	if d.Parked {
		what = "parked after too many crashes; `rbd-warden image restart " + p.opt.Key.String() + "/" + ch.last.Name + "` tries at once"
	}
	return report.Bounded(fmt.Sprintf("%s; %s; the next start follows by itself at %s",
		what, cause.Short(maxCause), report.Stamp(d.At)), replayer.MaxDescription)
}

// maxCause bounds the cause in the description of a crashed image, in bytes.
const maxCause = 640

func (p *Pool) respawned(c actor.Context, m respawn) {
	ch := p.children[m.globalID]
	if ch == nil || ch.pid != nil || p.ending || !ch.restart.Next().Equal(m.at) {
		return
	}
	p.spawnChild(c, m.globalID, ch)
}

// drop ends the memory of an image; tell says what becomes of its status.
func (p *Pool) drop(globalID string, tell func(s StatusSink, globalID string)) {
	delete(p.children, globalID)
	tell(p.opt.Status, globalID)
	if p.remote != nil && p.remote.Status != nil {
		tell(p.remote.Status, globalID)
	}
}
