// Package replayer is the actor of one mirrored image. Its behaviour is the pure
// machine of package core; this package performs the machine's effects on real
// clusters, outside the mailbox, and sends their results back as messages.
//
//	mailbox ─▶ Actor.Receive ─▶ core.Step ─▶ effects ─▶ goroutines ─▶ results ─┐
//	   ▲                                                                       │
//	   └───────────────────────────────────────────────────────────────────────┘
//
// A panic, in the machine or in an effect, ends the actor; its pool starts a new one,
// which goes on from the commit position in the remote journal. Before that the
// dying actor cancels its effects, waits for them and gives up the image's lock.
package replayer

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	"github.com/rbdwarden/rbdwarden/config"
	"github.com/rbdwarden/rbdwarden/messages"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/rhythm"
	"github.com/rbdwarden/rbdwarden/supervision"
)

// Performer does what the machine asks for. One performer belongs to one actor.
type Performer interface {
	// Perform performs one effect and returns its result, or core.Failed. It may
	// block, and returns soon after ctx ends. notify may be called at any time
	// until the performer is closed.
	Perform(ctx context.Context, e core.Effect) core.Msg
	// Look makes the performer look for itself whether the remote image is still mirrored, and notify what it finds.
	// Called only while the image replays.
	Look()
	// Released hears, while the image replays, how many bytes of all that it has read it does not hold any more.
	// It may be called at any time.
	Released(bytes int64)
	// Held is what the image holds of the worker's budget, in bytes. It may be called at any time.
	Held() int64
	// Close lets go of everything that is still held; the local image's lock first.
	Close(ctx context.Context) error
}

// Options are what an image's actor is made of.
type Options struct {
	Key  messages.ImageKey
	Core core.Config
	// NewPerformer makes the performer; notify sends a message to the actor.
	NewPerformer func(notify func(core.Msg)) Performer
	// Retry says how long a stopped image waits before it starts again, and whether
	// it does at all.
	Retry func(cause core.StopCause, failures int) (time.Duration, bool)
	Log   zerolog.Logger
	// CloseTimeout bounds how long a dying actor waits for its effects and locks.
	CloseTimeout time.Duration
	// Halt, if its Reason is not empty, says why the image starts, or with Pause replays,
	// only when it is told to.
	Halt config.Halt
	// Meter counts what all images of the worker replay; nil: nobody counts.
	Meter *Meter
	// Here and There are the names of this site and of the peer's, for descriptions.
	Here, There string
	// Past is what became of the image's earlier lives.
	Past messages.Past
	// Trace takes the image's steps: with 0 a new one, which it gives a number, or one that
	// was told before under its number. It does not block; nil: nobody does.
	Trace func(id uint64, s report.Step) uint64
	// Patience is how long the image may go without progress; zero: for ever.
	Patience supervision.Patience
	// Record takes every end that is followed by another start; again: it had not replayed
	// since the one before. May be nil.
	Record func(end report.Cause, again bool)
	// Left keeps this process from running an image while something of an earlier life of
	// it may still write; nil: nothing does.
	Left *Leftovers
	// LocalCluster is the name of the local cluster's connection, as errors have it.
	LocalCluster string
	// Tell takes evidence for the decision whether the worker is at fault; may be nil.
	Tell func(supervision.Evidence)
	// Panics, in tests of supervision, makes the actor panic when it has applied something,
	// before it takes note of that; spec is the image's name. nil: it does not.
	Panics func(spec string) bool
}

// Actor is the actor of one image.
type Actor struct {
	opt      Options
	core     *core.Core
	perform  Performer
	ctx      context.Context // of the effects; ends when they are to be cancelled
	cancel   context.CancelFunc
	running  sync.WaitGroup // effects under way
	underway map[uint64]*effectRun
	moved    map[uint64]moved // when the watchdog last saw them get on
	effects  uint64           // begun, for their numbers
	results  uint64           // messages that answered one
	dog      *supervision.Watchdog
	watcher  *time.Timer
	stallsIn string // where it makes no progress
	// gone: effects did not end and were let go of; goneWrites: some of them may write;
	// goneReads: some only read.
	gone, goneWrites, goneReads bool
	writers                     atomic.Int32 // of those that were let go of
	trace                       trace
	rates                       rates
	since                       time.Time     // when the state was entered
	replaying                   time.Time     // when the last replay began
	stage                       string        // status state as last reported
	failed                      int           // failures in a row
	bad                         time.Time     // when the image first stopped for the reason that it has
	attempts                    int           // that ended so since then
	broke                       bool          // it ended by an error and does not replay again yet
	synced                      bool          // the local copy was replayed to: it is whole
	own                         report.Record // ends of this actor's image by errors
	workedAt                    time.Time     // when it last told that the local cluster works
	workedDone                  bool          // and that it had changed something
	blocked                     bool          // what is left of an earlier life keeps it from starting
	halted                      bool          // stopped by command
	asked                       string        // with which words it was stopped
	paused                      string        // with which words it was paused; "" if it was not
	settled                     time.Time     // when it last came to rest
	replayed                    Meter
	flushers                    []flusher
	restart                     bool      // start again as soon as STOPPED is reached
	nextAt                      time.Time // when a stopped image starts again; zero: not by itself
	timer                       *time.Timer
	lastErr                     *report.Cause  // why it stopped last, if that was an error
	told                        core.StopCause // the cause that was logged last
	askers                      []*actor.PID   // who wants to know when the image has stopped
	pending                     bool           // a report is due
}

// New returns the actor of an image.
func New(opt Options) *Actor {
	a := &Actor{
		opt: opt, core: core.New(opt.Core),
		underway: map[uint64]*effectRun{}, moved: map[uint64]moved{}, dog: supervision.NewWatchdog(opt.Patience),
		trace: trace{tell: opt.Trace},
	}
	switch {
	case opt.Halt.Pause:
		a.paused = opt.Halt.Reason
	case opt.Halt.Reason != "":
		a.halted, a.asked = true, opt.Halt.Reason
	}
	return a
}

// Messages of the actor to itself.
type (
	result struct {
		msg     core.Msg
		started time.Time
		run     uint64
	}
	effectPanic struct {
		effect core.Effect
		value  any
		stack  string
	}
	notified  struct{ msg core.Msg }
	timerMsg  struct{ msg core.Msg }
	startDue  struct{ at time.Time }
	reportDue struct{}
	tickDue   struct{ life time.Time }
)

// Receive handles one message. A panic is told to the pool, with its stack, and goes
// on to end the actor.
func (a *Actor) Receive(c actor.Context) {
	defer func() {
		if v := recover(); v != nil {
			a.trace.note("panic", fmt.Sprint(v))
			a.broke = true // the pool records it; what is let go of after it is no further restart
			if c.Parent() != nil {
				c.Send(c.Parent(), messages.ImagePanicked{Key: a.opt.Key, Value: fmt.Sprint(v), Stack: string(debug.Stack())})
			}
			panic(v)
		}
	}()
	switch m := c.Message().(type) {
	case *actor.Started:
		a.started(c)
	case *actor.Stopping:
		a.shutDown(c)
	case result:
		delete(a.underway, m.run)
		a.results++
		a.worked(m.msg)
		a.injected(m.msg)
		a.step(c, m.msg, time.Since(m.started))
	case notified:
		a.progressed(m.msg)
		a.step(c, m.msg, 0)
	case timerMsg:
		a.step(c, m.msg, 0)
	case startDue:
		if !a.halted && a.nextAt.Equal(m.at) {
			a.start(c)
		}
	case reportDue:
		a.pending = false
		a.report(c)
	case tickDue:
		if a.core.Progressing() && m.life.Equal(a.replaying) {
			a.report(c)
			a.tick(c)
		}
	case watchDue:
		a.watchdog(c)
	case effectPanic:
		// Die here, in the mailbox, where the supervisor sees it.
		panic(fmt.Sprintf("%T: %v\n%s", m.effect, m.value, m.stack))
	case messages.ToImage:
		a.command(c, m)
	}
}

func (a *Actor) started(c actor.Context) {
	self, system := c.Self(), c.ActorSystem()
	a.perform = a.opt.NewPerformer(func(m core.Msg) { system.Root.Send(self, notified{m}) })
	a.since = time.Now()
	a.renewContext()
	a.watch(c)
	if a.halted {
		a.settle(c)
		return
	}
	if a.paused != "" {
		a.step(c, core.Pause{}, 0)
	}
	a.start(c)
}

func (a *Actor) start(c actor.Context) {
	a.nextAt = time.Time{}
	if a.timer != nil {
		a.timer.Stop()
	}
	if a.mustNotStart(c) {
		return
	}
	a.step(c, core.Start{}, 0)
}

// startAfter starts the image; one that is still stopping when it has stopped.
//
// Invariant: a start by command that follows a stop is never lost.
func (a *Actor) startAfter(c actor.Context) {
	switch a.core.State() {
	case core.Stopping, core.CloseLocalImage:
		a.restart = true
	default:
		a.start(c)
	}
}

func (a *Actor) command(c actor.Context, m messages.ToImage) {
	switch m := m.(type) {
	case messages.StartImage:
		a.halted = false
		a.unpause(c)
		a.startAfter(c)
	case messages.PauseImage:
		halted := a.halted
		a.halted, a.paused = false, m.Reason
		a.step(c, core.Pause{}, 0)
		a.report(c)
		if halted {
			a.startAfter(c)
		}
	case messages.RestartImage:
		a.halted, a.restart = false, true
		defer a.unpause(c)
		if a.core.State() == core.Stopped {
			a.restart = false
			a.start(c)
			return
		}
		a.step(c, core.Stop{Reason: "restarting"}, 0)
	case messages.StopImage:
		a.halted, a.restart = true, false
		if c.Sender() != nil {
			a.askers = append(a.askers, c.Sender())
		}
		a.asked = m.Reason
		stopped := a.core.State() == core.Stopped
		a.step(c, core.Stop{Reason: m.Reason}, 0)
		a.answerAskers(c)
		a.unpause(c)
		if stopped {
			a.halt(c)
		}
	case messages.FlushImage:
		a.flush(c)
	case messages.NudgeImage:
		if a.core.State() == core.Stopped && !a.halted && !m.Unlisted {
			a.start(c)
		} else if a.core.Progressing() {
			a.perform.Look()
		}
	}
}

// step gives one message to the machine and performs what it asks for.
func (a *Actor) step(c actor.Context, m core.Msg, took time.Duration) {
	from := a.core.State()
	effects := a.core.Step(m)
	to := a.core.State()
	if released, ok := a.core.Released(); ok {
		a.perform.Released(released)
	}
	a.trace.add(from, to, m, took)
	if from != to {
		a.since = time.Now()
		a.opt.Log.Debug().Stringer("from", from).Stringer("to", to).Str("message", messageName(m)).Msg("state")
	}
	if applied, ok := m.(core.Applied); ok {
		a.rates.add(time.Now(), applied.Entries, applied.Bytes)
		a.replayed.add(applied.Entries, applied.Bytes, took)
		a.opt.Meter.add(applied.Entries, applied.Bytes, took)
	}
	for _, e := range effects {
		a.do(c, e)
	}
	if from != to && to == core.Stopped {
		a.stopped(c)
	}
	if _, ok := m.(core.Committed); ok && to == core.Replaying {
		a.failed = 0 // it gets on: a later failure is a new one
	}
	switch to {
	case core.Replaying:
		a.synced = true
	case core.CreateLocalImage, core.ImageSync, core.RemoveLocalImage:
		a.synced = false
	}
	if from == core.StartReplay && (to == core.Replaying || to == core.Paused) {
		a.replaying = time.Now()
		a.broke = false
		a.settle(c)
		a.tick(c)
	} else if from != to && (from == core.Paused && to == core.Replaying || to == core.Paused) {
		a.settle(c)
	}
	a.flushed(c, m)
}

// do performs one effect: those of the actor itself at once, the others outside.
func (a *Actor) do(c actor.Context, e core.Effect) {
	switch e := e.(type) {
	case core.Cancel:
		a.cancel()
		a.renewContext()
	case core.After:
		self, system := c.Self(), c.ActorSystem()
		time.AfterFunc(e.Delay, func() { system.Root.Send(self, timerMsg{e.Msg}) })
	case core.Publish:
		a.publish(c)
	default:
		a.spawn(c, e)
	}
}

func (a *Actor) spawn(c actor.Context, e core.Effect) {
	self, system, ctx, perform := c.Self(), c.ActorSystem(), a.ctx, a.perform
	started := time.Now()
	a.effects++
	run := &effectRun{id: a.effects, effect: e, started: started}
	a.underway[run.id] = run
	ctx = withPulse(ctx, &run.pulse)
	a.running.Add(1)
	go func() {
		defer a.running.Done()
		defer a.ended(run)
		defer func() {
			if v := recover(); v != nil {
				system.Root.Send(self, effectPanic{e, v, string(debug.Stack())})
			}
		}()
		m := perform.Perform(ctx, e)
		system.Root.Send(self, result{m, started, run.id})
	}()
}

// calm is how long a replay must have run for its failure to be a new one.
const calm = 30 * time.Second

// tick tells the status of a replaying image again and again, although nothing happens:
// the lag grows by itself.
func (a *Actor) tick(c actor.Context) {
	self, system, life := c.Self(), c.ActorSystem(), a.replaying
	time.AfterFunc(rhythm.Within(tickInterval), func() { system.Root.Send(self, tickDue{life}) })
}

const tickInterval = 5 * time.Second

func (a *Actor) renewContext() {
	a.ctx, a.cancel = context.WithCancel(context.Background())
}

// stopped decides what follows STOPPED.
func (a *Actor) stopped(c actor.Context) {
	cause := a.core.Cause()
	if cause.In == core.Replaying && time.Since(a.replaying) > calm {
		a.failed = 0
	}
	// An image that looks again every few seconds says only once what it finds.
	news := cause.Reason != a.told.Reason || cause.Text != a.told.Text
	if cause.Reason != a.told.Reason || a.failed == 0 {
		a.bad, a.attempts = time.Now(), 0
	}
	a.attempts++
	a.told = cause
	log := a.opt.Log.Info()
	if !news {
		log = a.opt.Log.Debug()
	}
	if cause.IsError() {
		if news {
			log = a.opt.Log.Error()
		}
		log = log.Err(cause.Err)
		a.failedBy(cause)
	}
	log.Stringer("reason", cause.Reason).Stringer("in", cause.In).Msg(cause.Text)
	a.answerAskers(c)
	if cause.Reason == core.EffectFailed && cause.Class == rados.Fenced {
		c.Send(c.Parent(), messages.ClientFenced{Err: cause.Err})
	}
	if cause.Reason == core.NothingToDo {
		c.Send(c.Parent(), messages.ImageFinished{Key: a.opt.Key})
		return
	}
	switch {
	case a.restart:
		a.restart = false
		a.start(c)
	case a.halted:
		a.settle(c)
	default:
		a.failed++
		if delay, ok := a.opt.Retry(cause, a.failed); ok {
			a.startLater(c, delay)
		}
		a.settle(c) // now that the next attempt is known
	}
}

// settle notes, and tells, that the image has come to rest: a command that it was given
// before has had its effect.
func (a *Actor) settle(c actor.Context) {
	a.settled = time.Now()
	a.report(c)
}

// unpause ends a pause by command. Of an image that is to stop it comes after the stop, so
// that nothing is replayed meanwhile.
func (a *Actor) unpause(c actor.Context) {
	if a.paused != "" {
		a.paused = ""
		a.step(c, core.Resume{}, 0)
	}
}

func (a *Actor) startLater(c actor.Context, delay time.Duration) {
	self, system := c.Self(), c.ActorSystem()
	at := time.Now().Add(delay)
	a.nextAt = at
	a.timer = time.AfterFunc(delay, func() { system.Root.Send(self, startDue{at}) })
}

// answerAskers tells those who asked for a stop when it is done.
func (a *Actor) answerAskers(c actor.Context) {
	if a.core.State() != core.Stopped {
		return
	}
	for _, pid := range a.askers {
		c.Send(pid, messages.ImageStopped{Key: a.opt.Key})
	}
	a.askers = nil
}

// shutDown lets go of everything before the actor is gone, also after a panic. It
// blocks the actor, not the others: each has a goroutine of its own.
//
// Invariant: while an effect that may write is under way, the image's lock is not given up,
// and the pool hears that nobody in this process may run the image again.
func (a *Actor) shutDown(c actor.Context) {
	for _, t := range []*time.Timer{a.timer, a.watcher} {
		if t != nil {
			t.Stop()
		}
	}
	if a.cancel != nil {
		a.cancel()
	}
	ctx, cancel := context.WithTimeout(context.Background(), a.opt.CloseTimeout)
	defer cancel()
	ended := make(chan struct{})
	go func() { a.running.Wait(); close(ended) }()
	if !a.gone {
		select {
		case <-ended:
		case <-ctx.Done():
			a.letGo(c)
			var more context.CancelFunc
			ctx, more = context.WithTimeout(context.Background(), a.opt.CloseTimeout)
			defer more()
		}
	}
	closed := make(chan error, 1)
	go func() { closed <- a.closeDown(ctx) }()
	select {
	case err := <-closed:
		if err != nil {
			a.opt.Log.Error().Err(err).Msg("closing the image")
		}
	case <-time.After(2 * a.opt.CloseTimeout): // it heeds no context
		a.leaveClose(c, closed)
	}
}
