package replayer

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	"github.com/rbdwarden/rbdwarden/messages"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/rhythm"
	"github.com/rbdwarden/rbdwarden/supervision"
)

// effectRun is one effect under way.
type effectRun struct {
	id      uint64
	effect  core.Effect
	started time.Time
	pulse   pulse
	told    uint64      // progress that it told of by messages
	over    atomic.Bool // its goroutine has ended, or is about to
	orphan  atomic.Bool // the actor has let go of it
}

func (r *effectRun) name() string { return messageNameOf(r.effect) }

// beats is how far it is, in no unit.
func (r *effectRun) beats() uint64 { return r.pulse.beats.Load() + r.told }

// watched tells whether an effect has to end by itself, or get on. Those that wait for the
// primary to write something, or for an operation there to end, need not.
func watched(e core.Effect) bool {
	switch e.(type) {
	case core.ReadEntries, core.FindOutcome:
		return false
	}
	return true
}

// mayWrite tells whether an effect may change anything on either cluster. Nothing may run
// the image again in this process while one of those is under way, whether it was cancelled
// or not: two writers of one client are kept apart by no lock (invariant 2). What is not
// known to read only counts as a writer.
func mayWrite(e core.Effect) bool {
	switch e.(type) {
	case core.PrepareLocal, core.PrepareRemote, core.ReadRemoteClients, core.OpenRemote, core.ReadRemoteTags, core.CloseRemote,
		core.InitJournaler, core.ReadEntries, core.FindOutcome, core.ReadRemoteTag:
		return false
	}
	return true
}

// watchDue makes the actor look whether the image gets on.
type watchDue struct{}

func (a *Actor) watch(c actor.Context) {
	if a.opt.Patience.Report <= 0 {
		return
	}
	self, system := c.Self(), c.ActorSystem()
	a.watcher = time.AfterFunc(rhythm.Within(a.opt.Patience.Interval()), func() { system.Root.Send(self, watchDue{}) })
}

// excuser is a Performer that knows when its reads wait for something here: for memory.
type excuser interface {
	// Excuse says what for; "" if they do not wait.
	Excuse() string
}

// look is what the watchdog sees of the image: of all effects that have to get on, the one
// that has not for the longest time.
func (a *Actor) look(now time.Time) (l supervision.Look, what string) {
	l = supervision.Look{When: now}
	// Whatever was cancelled has to end.
	stopping := a.core.State() == core.Stopping
	var slowest *effectRun
	for _, r := range a.underway {
		if !watched(r.effect) && !stopping || a.waitsForSlot(r) && !stopping || r.over.Load() {
			continue
		}
		if m := a.moved[r.id]; m.beats != r.beats() || m.at.IsZero() {
			a.moved[r.id] = moved{r.beats(), now}
		}
		if slowest == nil || a.moved[r.id].at.Before(a.moved[slowest.id].at) ||
			a.moved[r.id].at.Equal(a.moved[slowest.id].at) && r.id < slowest.id {
			slowest = r
		}
	}
	for id := range a.moved {
		if a.underway[id] == nil {
			delete(a.moved, id)
		}
	}
	switch {
	case slowest != nil:
		// The number of the effect and how far it is, in one.
		l.Due, l.Pulse = true, slowest.id<<40|slowest.beats()&(1<<40-1)
		return l, slowest.name() + " in " + a.core.State().String()
	case !a.core.Progressing():
		return l, ""
	}
	if e, ok := a.perform.(excuser); ok && e.Excuse() != "" {
		return l, ""
	}
	p, _ := a.core.Progress()
	l.Due, l.Pulse = a.core.EntriesDue(now) || a.core.State() == core.Replaying && a.silence(p, now) > 0, a.results
	return l, "entries wait, and nothing is under way"
}

// moved says how far an effect was, and since when.
type moved struct {
	beats uint64
	at    time.Time
}

func (a *Actor) waitsForSlot(r *effectRun) bool {
	_, sync := r.effect.(core.Sync)
	return sync && a.core.Sync().Waiting
}

// watchdog looks once and does what follows.
func (a *Actor) watchdog(c actor.Context) {
	now := time.Now()
	look, what := a.look(now)
	alarm := a.dog.Look(look)
	since := a.dog.Since()
	log := a.opt.Log.With().Str("in", what).Stringer("state", a.core.State()).Logger()
	switch alarm {
	case supervision.Stalls:
		a.stallsIn = what
		log.Warn().Time("since", since).Msg("the image makes no progress")
		a.report(c)
	case supervision.Recovers:
		a.stallsIn = ""
		log.Info().Msg("the image makes progress again")
		a.report(c)
	case supervision.MustRestart:
		text := fmt.Sprintf("no progress for %v: %s", now.Sub(since).Round(time.Second), what)
		log.Error().Time("since", since).Msg("the image makes no progress: it is started again")
		a.tell(supervision.Stalled{When: now, Who: a.opt.Key.String(), Text: text})
		switch a.core.State() {
		case core.Stopping, core.CloseLocalImage, core.RemoveLocalImage:
			a.cancel() // it was being stopped already
			a.renewContext()
		default:
			a.step(c, core.Stalled{Text: text}, 0)
		}
		a.report(c)
	case supervision.LetGo:
		a.letGo(c)
		return // the pool ends this actor
	}
	a.watch(c)
}

// tell gives evidence to whoever decides about the worker.
func (a *Actor) tell(e supervision.Evidence) {
	if a.opt.Tell != nil {
		a.opt.Tell(e)
	}
}

// left are the effects that are still under way.
func (a *Actor) left() (names []string, writes bool) {
	for _, r := range a.underway {
		if !r.over.Load() {
			names = append(names, r.name())
			writes = writes || mayWrite(r.effect)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), writes
}

// letGo gives up waiting for effects that do not end although they were cancelled. The pool
// ends this actor then. If one of them may write, nobody runs the image again in this
// process; what they hold stays held until the process ends.
func (a *Actor) letGo(c actor.Context) {
	names, writes := a.left()
	if len(names) == 0 || a.gone {
		return
	}
	a.gone, a.goneWrites = true, writes
	for _, r := range a.underway {
		a.goneReads = a.goneReads || !mayWrite(r.effect) && !r.over.Load()
	}
	what := strings.Join(names, ", ")
	a.trace.note("let go", what)
	a.abandoned(what, writes)
	a.opt.Log.Error().Str("effects", what).Bool("writes", writes).Msg("operations of the image do not end although they were cancelled")
	if c.Parent() != nil {
		c.Send(c.Parent(), messages.ImageStuck{Key: a.opt.Key, What: what, Writes: writes})
	}
	if writes {
		a.opt.Left.add(a.opt.Key)
	}
	a.writers.Add(1) // until all are counted
	for _, r := range a.underway {
		if r.over.Load() {
			continue
		}
		if mayWrite(r.effect) {
			a.writers.Add(1)
		}
		r.orphan.Store(true)
		a.tell(supervision.LeftBehind{
			When: time.Now(), Who: a.opt.Key.String(), What: r.name(), Writes: mayWrite(r.effect),
			Before: int(a.opt.Past.Reasons[string(report.WhyAbandoned)]),
		})
		if r.over.Load() {
			a.ended(r) // just now
		}
	}
	if writes {
		a.writerOver()
	}
}

// abandoned records that something does not end. It comes before the evidence, which may end
// this process: what an image costs its worker has to be known to the next one
// (supervision.EscalationRules.Lives).
func (a *Actor) abandoned(what string, writes bool) {
	end := report.Cause{What: "image " + a.spec(), Why: report.WhyStuck, When: time.Now(), Text: "does not end although it was cancelled: " + what}
	if writes {
		end.Why = report.WhyAbandoned
	}
	a.record(end)
}

// writerOver closes the image when the last writer that was left behind has ended after
// all, so that it may be run again in this process.
func (a *Actor) writerOver() {
	if a.writers.Add(-1) > 0 {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), a.opt.CloseTimeout)
		defer cancel()
		closing := a.perform.Close
		if r, ok := a.perform.(releaser); ok && a.goneReads {
			closing = r.Release // beside a read that is still under way
		}
		if err := closing(ctx); err != nil {
			a.opt.Log.Error().Err(err).Msg("closing the image")
		}
		a.opt.Left.remove(a.opt.Key)
	}()
}

// ended is called by an effect's goroutine at its end.
func (a *Actor) ended(r *effectRun) {
	r.over.Store(true)
	if r.orphan.CompareAndSwap(true, false) {
		if mayWrite(r.effect) {
			a.writerOver()
		}
		a.tell(supervision.CameBack{When: time.Now(), Who: a.opt.Key.String(), Writes: mayWrite(r.effect)})
	}
}

// releaser is a Performer that can give up the local image alone, while what only reads is
// still under way.
type releaser interface {
	Release(ctx context.Context) error
}

// closeDown lets go of what the image holds when its effects have ended, or of what can be
// let go of while some that only read have not.
func (a *Actor) closeDown(ctx context.Context) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v) // not worth the process
		}
	}()
	if a.perform == nil || a.gone && a.goneWrites {
		return nil
	}
	closing := a.perform.Close
	if a.gone {
		r, ok := a.perform.(releaser)
		if !ok {
			return nil
		}
		closing = r.Release
	}
	return closing(ctx)
}

// stallText is what the status says of an image that makes no progress.
func (a *Actor) stallText() string {
	since := a.dog.Since()
	if since.IsZero() {
		return ""
	}
	return fmt.Sprintf("no progress since %s: %s", report.Stamp(since), a.stallsIn)
}

// stalledFor is how long the image has made no progress, 0 if it does, or need not.
func (a *Actor) stalledFor(now time.Time) time.Duration {
	since := a.dog.Since()
	if since.IsZero() {
		return 0
	}
	return now.Sub(since)
}

// progressed notes what an effect tells of by itself.
func (a *Actor) progressed(m core.Msg) {
	for _, r := range a.underway {
		switch e := r.effect.(type) {
		case core.Sync:
			if _, ok := m.(core.SyncProgressed); ok {
				r.told++
			}
		case core.Apply:
			if o, ok := m.(core.OperationProgressed); ok && o.Step == e.Step.ID() {
				r.told++
			}
		}
	}
}
