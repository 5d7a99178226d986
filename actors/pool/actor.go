// Package pool is the actor of one mirrored pool and namespace with one peer. It
// connects to the peer's cluster, finds the images that either side mirrors, keeps an
// actor running for each, and tells both sites their status.
//
//	Started ─▶ connecting ─(peer answers)─▶ listing ─▶ images ─▶ listing again: on a
//	              ▲    │                       notification, and every refresh interval
//	              └────┘ peer away: again, with back-off, the reason in the report
//
// One image's crash, slowness or error touches no other: they share only the two
// connections and the bounds in Options.
package pool

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/actors/replayer"
	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	"github.com/rbdwarden/rbdwarden/config"
	"github.com/rbdwarden/rbdwarden/messages"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/rhythm"
	"github.com/rbdwarden/rbdwarden/supervision"
)

// Remote is the peer's side, once connected.
type Remote struct {
	replayer.Site
	Status StatusSink // on the remote site
	Socket string     // admin socket of the connection, "" if it has none
	// Changed is closed when the peer is another than before: its pool has another mirror
	// uuid. The pool's actor ends then, and its successor connects anew.
	Changed <-chan struct{}
	// Away says why the peer does not answer at the moment; nil if it does. It may be nil.
	Away func() error
	// Close ends the connection.
	Close func()
}

// StatusSink takes images' statuses to rbd_mirroring. Calls do not block.
type StatusSink interface {
	Set(globalID string, image report.Image)
	// Remove deletes the status of an image that is not mirrored any more.
	Remove(globalID string)
	// Forget leaves the last status as it is and writes it no more.
	Forget(globalID string)
	// Close writes what is pending, and gives up the watch that makes it be believed.
	Close(ctx context.Context)
}

// Options are what a pool's actor is made of.
type Options struct {
	Key    messages.PoolKey
	Peer   report.Peer
	Local  replayer.Site
	Status StatusSink // on the local site
	// Connect connects to the peer and asks who it is.
	Connect func(ctx context.Context) (*Remote, error)
	// List lists the global ids of the mirrored images of one side.
	List func(ctx context.Context, io rados.IOContext) ([]string, error)
	// Alone reports the local images while the peer cannot be reached, err says why, the
	// next attempt is at next; nil: nobody does.
	Alone func(ctx context.Context, err error, since time.Time, attempts int, next time.Time) ([]report.Image, error)
	// Watch calls changed when mirrored images of one side change, until stop.
	Watch func(ctx context.Context, io rados.IOContext, changed func(globalID string)) (stop func(), err error)
	// Trash deletes what was moved to the local trash, while this member leads the pool;
	// nil: nothing is deleted.
	Trash *Deleter
	// Listed is told which images are mirrored; complete if both sides were asked. It does
	// not block; may be nil.
	Listed func(globalIDs []string, complete bool)
	// Reached is told whether the peer answers, again and again. It does not block; may be nil.
	Reached func(answers bool)
	// Applied is told that every image that the share of that epoch does not name was let
	// go. It does not block; may be nil.
	Applied func(epoch uint64)
	// NewImage makes the actor of an image. With a halt it starts, or replays, only
	// when it is told to; past is what became of its earlier ones.
	NewImage func(key messages.ImageKey, remote *Remote, halt config.Halt, past messages.Past) actor.Actor
	// Halts are what was stopped by command before.
	Halts config.Halts
	// Refresh is the time between two lists when nothing is notified.
	Refresh time.Duration
	// Timeout bounds each look at a cluster.
	Timeout time.Duration
	// Strategy is how crashed images are restarted.
	Strategy supervision.Strategy
	// Past is what became of earlier actors of this pool, and of the processes that they
	// were in: they took the images with them.
	Past messages.Past
	// Ledger remembers what became of images and pools, beyond this actor's life; nil: this
	// actor remembers its images itself.
	Ledger *supervision.Ledger
	// Release lets go of what these options hold, when the actor has ended or is not
	// made after all; may be nil.
	Release func()
	Log     zerolog.Logger
}

// Pool is the actor.
type Pool struct {
	opt      Options
	remote   *Remote          // nil until connected
	failures int              // to connect, in a row
	trouble  string           // why there is no connection, or no list
	callouts []report.Callout // the same for the service map
	children map[string]*child
	byPID    map[string]string // actor id → global id
	listing  bool
	ids      map[string]struct{}     // images that are mirrored, of both sides; nil: no list yet
	share    *Share                  // which of them are ours; nil: not known yet, none
	applied  uint64                  // newest epoch of which Applied was told
	known    bool                    // images were begun with
	locals   []report.Image          // found while there is no peer
	alone    map[string]report.Image // those of them that are ours, by global id
	absent   time.Time               // since when the peer could not be reached
	again    bool                    // list once more after this one
	stops    []func()
	leads    bool
	trash    *reign // of the deleter, the newest; nil before the first
	halts    config.Halts
	ending   bool
	asked    *actor.PID // who waits for the end
	since    time.Time
}

// Messages of the actor to itself.
type (
	connected     struct{ remote *Remote }
	connectFailed struct{ err error }
	connectDue    struct{}
	silenceDue    struct{}
	reachDue      struct{}
	alone         struct {
		images []report.Image
		err    error
	}
	listDue struct{ timer bool }
	listed  struct {
		ids    map[string]struct{} // of both sides
		remote map[string]struct{} // of the peer's
		err    error
	}
	watching struct {
		stop func()
		err  error
	}
	changed    struct{ globalID string }
	imageEnded struct{ who *actor.PID }
)

// Share says which of the pool's images this member runs. A newer one replaces it: what
// it does not name is let go.
type Share struct {
	Epoch uint64 // of the image map that it was read from
	Run   map[string]struct{}
}

// Lead says whether this member leads the pool: who does deletes what is in the trash.
type Lead struct{ Leads bool }

// KickTrash makes the deleter look into the trash now.
type KickTrash struct{}

// Stop asks the pool to let go of all its images, then of itself. Answered by Stopped.
type Stop struct{}

// Panicked tells the site why the pool's actor is about to end.
type Panicked struct {
	Key          messages.PoolKey
	PeerUUID     string
	Value, Stack string
}

// Stopped says that the pool has let go of everything.
type Stopped struct{ Key messages.PoolKey }

// Snapshot asks for the pool's report.Pool.
type Snapshot struct{}

// Props are the properties of a pool's actor. An image's actor that panics is stopped,
// never restarted in place: the library's restarts know no back-off, and would leave
// effects of the old instance running beside the new one.
func Props(opt Options) *actor.Props {
	return actor.PropsFromProducer(func() actor.Actor {
		if opt.Ledger == nil {
			opt.Ledger = new(supervision.Ledger)
		}
		return &Pool{opt: opt, halts: opt.Halts, children: map[string]*child{}, byPID: map[string]string{}}
	}, actor.WithSupervisor(stopAlways))
}

var stopAlways = actor.NewOneForOneStrategy(0, 0, func(any) actor.Directive { return actor.StopDirective })

// Receive handles one message. A panic is told to the site, and goes on to end the actor.
func (p *Pool) Receive(c actor.Context) {
	defer func() {
		if v := recover(); v != nil {
			if c.Parent() != nil {
				c.Send(c.Parent(), Panicked{p.opt.Key, p.opt.Peer.UUID, fmt.Sprint(v), string(debug.Stack())})
			}
			panic(v)
		}
	}()
	switch m := c.Message().(type) {
	case *actor.Started:
		p.since = time.Now()
		p.connect(c)
		p.later(c, firstSilence, silenceDue{})
	case *actor.Stopping:
		p.release()
	case *actor.Stopped: // the images' actors have ended, too
		if p.opt.Release != nil {
			p.opt.Release()
		}
	case *actor.Terminated:
		// What the image said before it died is still in the mailbox: its panic, for one.
		c.Send(c.Self(), imageEnded{m.Who})
	case imageEnded:
		p.childEnded(c, m.who)
	case connected:
		p.connected(c, m.remote)
	case connectFailed:
		p.connectFailed(c, m.err)
	case alone:
		p.tellAlone(m)
	case silenceDue:
		if p.remote == nil && p.failures == 0 {
			p.lookAlone(c, errNoAnswerYet, time.Time{})
		}
	case connectDue:
		p.connect(c)
	case reachDue:
		p.lookReach(c)
	case watching:
		p.watching(c, m)
	case changed:
		p.nudge(c, m.globalID, messages.NudgeImage{})
		p.list(c)
	case listDue:
		p.list(c)
	case listed:
		p.listed(c, m)
	case Share:
		p.assigned(c, m)
	case Lead:
		p.lead(c, m.Leads)
	case KickTrash:
		if p.opt.Trash != nil {
			p.opt.Trash.Kick()
		}
	case respawn:
		p.respawned(c, m)
	case Stop:
		p.stop(c)
	case Snapshot:
		c.Respond(p.snapshot())
	case messages.ToPool:
		p.fromImage(c, m)
	case messages.ToImageNamed:
		p.forward(c, m)
	}
}

// async does fn outside the mailbox and sends what it returns back.
func (p *Pool) async(c actor.Context, fn func(ctx context.Context) any) {
	self, system := c.Self(), c.ActorSystem()
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), p.opt.Timeout)
		defer cancel()
		if m := fn(ctx); m != nil {
			system.Root.Send(self, m)
		}
	}()
}

func (p *Pool) later(c actor.Context, d time.Duration, m any) {
	self, system := c.Self(), c.ActorSystem()
	time.AfterFunc(d, func() { system.Root.Send(self, m) })
}

func (p *Pool) connect(c actor.Context) {
	if p.ending {
		return
	}
	p.async(c, func(ctx context.Context) any {
		r, err := p.opt.Connect(ctx)
		if err != nil {
			return connectFailed{err}
		}
		return connected{r}
	})
}

func (p *Pool) connectFailed(c actor.Context, err error) {
	p.failures++
	p.tellReached(false)
	p.trouble = fmt.Sprintf("cannot reach the peer %s: %v", p.opt.Peer.Site, err)
	p.callouts = callouts(err, NoRemoteCluster, report.LevelError)
	d := min(time.Second<<min(p.failures-1, 5), 30*time.Second)
	d += time.Duration(rand.Float64() * float64(d) / 4)
	p.opt.Log.Error().Err(err).Str("peer", p.opt.Peer.Site).Dur("retry_in", d).Msg("cannot reach the peer")
	p.later(c, d, connectDue{})
	p.lookAlone(c, err, time.Now().Add(d))
}

func (p *Pool) connected(c actor.Context, r *Remote) {
	if p.ending {
		r.Close()
		p.maybeEnd(c)
		return
	}
	p.remote, p.failures, p.trouble, p.callouts = r, 0, "", nil
	p.opt.Log.Info().Str("peer", p.opt.Peer.Site).Msg("connected to the peer")
	if r.Changed != nil {
		self, system, done := c.Self(), c.ActorSystem(), make(chan struct{})
		p.stops = append(p.stops, func() { close(done) })
		go func() {
			select {
			case <-r.Changed:
				system.Root.Send(self, Stop{})
			case <-done:
			}
		}()
	}
	p.tellReached(true)
	p.lookReach(c)
	p.watch(c, p.opt.Local.IO)
	p.watch(c, r.IO)
	p.list(c)
	p.later(c, p.opt.Refresh, listDue{timer: true})
}

// reachInterval is the time between looks whether the peer answers.
const reachInterval = 10 * time.Second

// lookReach tells whether the peer that we are connected to answers, now and from time to time.
func (p *Pool) lookReach(c actor.Context) {
	if p.ending || p.remote == nil || p.remote.Away == nil {
		return
	}
	p.tellReached(p.remote.Away() == nil)
	p.later(c, rhythm.Within(reachInterval), reachDue{})
}

func (p *Pool) tellReached(answers bool) {
	if p.opt.Reached != nil {
		p.opt.Reached(answers)
	}
}

func (p *Pool) watch(c actor.Context, io rados.IOContext) {
	self, system := c.Self(), c.ActorSystem()
	p.async(c, func(ctx context.Context) any {
		stop, err := p.opt.Watch(ctx, io, func(id string) { system.Root.Send(self, changed{id}) })
		return watching{stop, err}
	})
}

func (p *Pool) watching(_ actor.Context, m watching) {
	switch {
	case m.err != nil:
		// Lists by the timer find everything, later.
		p.opt.Log.Warn().Err(m.err).Msg("cannot watch for mirrored images: changes are seen at the next refresh")
	case p.ending:
		go m.stop()
	default:
		p.stops = append(p.stops, m.stop)
	}
}

// list looks which images are mirrored, on both sides.
func (p *Pool) list(c actor.Context) {
	if t, ok := c.Message().(listDue); ok && t.timer && !p.ending {
		p.later(c, p.opt.Refresh, listDue{timer: true})
	}
	if p.remote == nil || p.ending {
		return
	}
	if p.listing {
		p.again = true
		return
	}
	p.listing = true
	local, remote := p.opt.Local.IO, p.remote.IO
	p.async(c, func(ctx context.Context) any {
		here, err := p.opt.List(ctx, local)
		there, err2 := p.opt.List(ctx, remote)
		if err := errors.Join(err, err2); err != nil {
			return listed{err: err}
		}
		m := listed{ids: make(map[string]struct{}, len(there)), remote: make(map[string]struct{}, len(there))}
		for _, id := range there {
			m.ids[id], m.remote[id] = struct{}{}, struct{}{}
		}
		for _, id := range here {
			m.ids[id] = struct{}{}
		}
		return m
	})
}

func (p *Pool) listed(c actor.Context, m listed) {
	p.listing = false
	if p.ending {
		p.maybeEnd(c)
		return
	}
	if p.again {
		p.again = false
		p.list(c)
	}
	if m.err != nil {
		// The images that run go on: an unreadable list says nothing about them, nor about those that it may lack.
		if p.ids != nil {
			p.tellListed(p.ids, false)
		}
		p.trouble = fmt.Sprintf("cannot list mirrored images: %v", m.err)
		p.callouts = callouts(m.err, noImageList, report.LevelError)
		p.opt.Log.Error().Err(m.err).Msg("cannot list mirrored images")
		return
	}
	p.trouble, p.callouts = "", nil
	p.ids = m.ids
	p.tellListed(m.ids, true)
	for id := range p.children {
		if _, there := m.remote[id]; !there {
			p.nudge(c, id, messages.NudgeImage{Unlisted: true}) // it may replay, and not know that its mirroring has ended
		}
	}
	p.reconcile(c)
	p.notAlone()
}

func (p *Pool) tellListed(ids map[string]struct{}, complete bool) {
	if p.opt.Listed != nil {
		p.opt.Listed(slices.Sorted(maps.Keys(ids)), complete)
	}
}

// stopChild asks an image to let go; when it has, its actor is ended.
func (p *Pool) stopChild(c actor.Context, ch *child, reason string) {
	if !ch.stop && ch.pid != nil {
		ch.stop = true
		c.Request(ch.pid, messages.StopImage{Reason: reason})
	}
}

// fromImage handles what the images say.
func (p *Pool) fromImage(c actor.Context, m messages.ToPool) {
	switch m := m.(type) {
	case messages.ImageReport:
		if ch := p.children[m.Key.GlobalID]; ch != nil && ch.pid != nil {
			if m.Report.Name == "" {
				m.Report.Name = ch.last.Name // a new actor does not know it yet
			}
			p.tellStatus(m.Key.GlobalID, m.Report)
		}
	case messages.ImageStopped:
		if ch := p.children[m.Key.GlobalID]; ch != nil && ch.stop && ch.pid != nil {
			c.Stop(ch.pid)
		}
	case messages.ImageFinished:
		if ch := p.children[m.Key.GlobalID]; ch != nil {
			delete(p.ids, m.Key.GlobalID) // until it is listed again
			p.letGo(c, m.Key.GlobalID, ch, gone)
		}
	case messages.ImagePanicked:
		p.panicked(m)
	case messages.ImageStuck:
		p.stuck(c, m)
	case messages.ClientFenced:
		if c.Parent() != nil {
			c.Send(c.Parent(), m)
		}
	}
}

func (p *Pool) tellStatus(globalID string, r report.Image) {
	if ch := p.children[globalID]; ch != nil {
		ch.last = r
	}
	p.opt.Status.Set(globalID, r)
	if p.remote != nil && p.remote.Status != nil {
		p.remote.Status.Set(globalID, r)
	}
}

// nudge makes an image look again at once, if one is meant.
func (p *Pool) nudge(c actor.Context, globalID string, m messages.NudgeImage) {
	if ch := p.children[globalID]; ch != nil && ch.pid != nil {
		c.Send(ch.pid, m)
	}
}

// forward hands a command to an image by its global id, or to all.
//
// Invariant: an image that was stopped or paused by command stays so, also if its actor
// dies, or if it is run here only later, until a command starts it.
func (p *Pool) forward(c actor.Context, m messages.ToImageNamed) {
	wish, isWish := Wish(m.Message)
	isStop, starts := isWish && wish.Reason != "" && !wish.Pause, isWish && wish.Reason == ""
	if isWish {
		wish.Pool, wish.Namespace, wish.GlobalID = p.opt.Key.Pool, p.opt.Key.Namespace, m.GlobalID
		p.halts = p.halts.With(wish)
	}
	for id, ch := range p.children {
		if m.GlobalID != "" && m.GlobalID != id {
			continue
		}
		_, isFlush := m.Message.(messages.FlushImage)
		switch {
		case ch.stop, ch.pid == nil && isFlush: // it is ending, or ended: nothing waits
			if isFlush && c.Sender() != nil {
				c.Respond(messages.ImageFlushed{Key: p.imageKey(id)})
			}
		case ch.pid != nil:
			c.RequestWithCustomSender(ch.pid, m.Message, c.Sender())
		case starts && ch.ends == stays && p.remote != nil && !p.ending:
			ch.restart.Step(supervision.Forgiven{When: time.Now()})
			p.spawnChild(c, id, ch) // it waited for its restart
		case isStop:
			ch.last.State, ch.last.Description, ch.last.Step = "stopped", wish.Reason, core.Stopped.String()
			ch.last.Stopped, ch.last.Paused, ch.last.Settled = true, false, time.Now()
			p.tellStatus(id, ch.last)
		}
	}
}

// Wish is what a command means for the time to come, without what it is about; false if
// it means nothing for that.
func Wish(m messages.ToImage) (config.Halt, bool) {
	switch m := m.(type) {
	case messages.StopImage:
		return config.Halt{Reason: m.Reason}, true
	case messages.PauseImage:
		return config.Halt{Reason: m.Reason, Pause: true}, true
	case messages.StartImage, messages.RestartImage:
		return config.Halt{}, true
	}
	return config.Halt{}, false
}

// stop ends everything in order: the images first.
func (p *Pool) stop(c actor.Context) {
	p.ending, p.asked = true, c.Sender()
	p.notAlone()
	for _, ch := range p.children {
		p.stopChild(c, ch, "stopped: the daemon let go of the image")
	}
	for id, ch := range p.children {
		if ch.pid == nil {
			p.drop(id, (StatusSink).Forget)
		}
	}
	p.maybeEnd(c)
}

// maybeEnd ends the actor when no image is left.
func (p *Pool) maybeEnd(c actor.Context) {
	if p.ending && len(p.children) == 0 && !p.listing {
		if p.asked != nil {
			c.Send(p.asked, Stopped{Key: p.opt.Key})
			p.asked = nil
		}
		c.Stop(c.Self())
	}
}

// release lets go of what the pool itself holds. The remote side may be dead: it
// gets the time that is left, and no more.
func (p *Pool) release() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.trash.end()
		for _, stop := range p.stops {
			stop()
		}
		p.opt.Status.Close(ctx)
		if p.remote != nil {
			if p.remote.Status != nil {
				p.remote.Status.Close(ctx)
			}
			p.remote.Close()
		}
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// snapshot is the pool's report.
func (p *Pool) snapshot() report.Pool {
	r := report.Pool{
		Name: p.opt.Key.Pool, ID: p.opt.Key.PoolID, Namespace: p.opt.Key.Namespace,
		Peer: p.opt.Peer, Health: healthOf(p.callouts), Callouts: p.callouts, Waits: p.trouble,
	}
	record := p.opt.Ledger.Of(report.LevelPool, p.opt.Key.String())
	r.Restarts, r.LastCause, r.History = record.Restarts, record.Last(), record.Ends
	if c := p.stallCallout(); c != nil {
		r.Callouts = append(slices.Clone(r.Callouts), *c)
		r.Health = healthOf(r.Callouts)
	}
	all := p.halts.Of(p.opt.Key.Pool, p.opt.Key.Namespace, "")
	r.Stopped = all.Reason != "" && !all.Pause
	if p.remote != nil {
		r.Peer.Reachable, r.Peer.MirrorUUID = true, p.remote.MirrorUUID
		r.RemoteSocket = p.remote.Socket
		if p.remote.Away != nil {
			if err := p.remote.Away(); err != nil && len(r.Callouts) == 0 {
				r.Peer.Reachable = false
				r.Callouts = callouts(err, NoRemoteCluster, report.LevelError)
				r.Health, r.Waits = healthOf(r.Callouts), fmt.Sprintf("the peer %s does not answer: %v", r.Peer.Site, err)
			}
		}
	}
	if p.opt.Trash != nil {
		r.Trash = p.opt.Trash.Queue()
	}
	for _, image := range p.alone {
		r.Images = append(r.Images, image)
	}
	for id, ch := range p.children {
		image := ch.last
		if image.GlobalID == "" {
			image = report.Image{Pool: p.opt.Key.Pool, Namespace: p.opt.Key.Namespace, GlobalID: id, State: "unknown"}
		}
		r.Images = append(r.Images, image)
	}
	return r
}
