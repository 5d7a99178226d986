package sim

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/actors/replayer"
	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	"github.com/rbdwarden/rbdwarden/config"
	"github.com/rbdwarden/rbdwarden/image"
	imagesync "github.com/rbdwarden/rbdwarden/image/sync"
	"github.com/rbdwarden/rbdwarden/journal"
	"github.com/rbdwarden/rbdwarden/messages"
	"github.com/rbdwarden/rbdwarden/rados/mem"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/supervision"
	"github.com/rbdwarden/rbdwarden/supervision/memory"
	"github.com/rbdwarden/rbdwarden/supervision/pace"
)

const (
	localUUID, remoteUUID = "local-uuid", "remote-uuid"
	poolName              = "rbd"
	closeTimeout          = 30 * time.Second
)

// actors is the one actor system of the test binary: it only carries messages between
// mailboxes, which keep what belongs to a run.
var actors = actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(slog.DiscardHandler) }))

var processes atomic.Uint64

// worker is one life of a worker process.
type worker struct {
	world         *world
	seat          int    // which of the workers it is
	life          uint64 // counts all workers of the run
	local, remote *mem.Client
	here, there   replayer.Site
	pool          *actor.PID
	read, apply   *memory.Budget // of all its images
	replay, sync  *pace.Bucket   // likewise

	mu     sync.Mutex
	frozen chan struct{} // closed when it goes on; nil: it runs
	dead   bool
	fenced bool
	images map[string]*supervised
	panics bool // the next effect panics
}

// supervised is an image in a worker.
type supervised struct {
	box       *mailbox
	restarter *supervision.Restarter
	past      messages.Past
	status    report.Image
	asked     bool // to run
}

// startWorker starts a worker under new identities.
func (w *world) startWorker(seat int) *worker {
	w.lives++
	k := &worker{
		world: w, seat: seat, life: w.lives, local: w.local.Connect(), remote: w.remote.Connect(), images: map[string]*supervised{},
	}
	for f, c := range map[*faults]*mem.Client{w.faultsHere: k.local, w.faultsThere: k.remote} {
		f.mu.Lock()
		f.whose[c] = k
		f.mu.Unlock()
	}
	k.here = replayer.Site{IO: w.must(k.local.Open(w.ctx, poolName, "")), MirrorUUID: localUUID}
	k.there = replayer.Site{IO: w.must(k.remote.Open(w.ctx, poolName, "")), MirrorUUID: remoteUUID}
	k.pool = w.register(&pool{k})
	k.replay, k.sync = pace.NewBucket(w.set.replayRate), pace.NewBucket(w.set.syncRate)
	k.read, k.apply = memory.NewBudget(w.set.budget), memory.NewBudget(w.set.budget/2)
	k.read.SetReserve(w.set.reserve)
	k.apply.SetReserve(w.set.reserve)
	w.workers[seat] = k
	w.trace.Add("worker %d starts, life %d", seat, k.life)
	return k
}

// runs waits while the worker is frozen, and is false when it is dead.
func (k *worker) runs() bool {
	for {
		k.mu.Lock()
		frozen, dead := k.frozen, k.dead
		k.mu.Unlock()
		if dead || frozen == nil {
			return !dead
		}
		<-frozen
	}
}

func (k *worker) isFrozen() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.frozen != nil
}

// freeze is SIGSTOP.
func (k *worker) freeze() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.frozen == nil && !k.dead {
		k.frozen = make(chan struct{})
	}
}

// thaw is SIGCONT.
func (k *worker) thaw() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.frozen != nil {
		close(k.frozen)
		k.frozen = nil
	}
}

// kill is SIGKILL: nothing more is sent. What was sent may land for a while.
func (k *worker) kill(linger time.Duration) {
	k.mu.Lock()
	dead := k.dead
	k.dead = true
	var boxes []*mailbox
	for _, id := range slices.Sorted(maps.Keys(k.images)) {
		boxes = append(boxes, k.images[id].box)
	}
	k.mu.Unlock()
	k.thaw()
	if dead {
		return
	}
	k.world.trace.Add("worker %d dies, life %d", k.seat, k.life)
	k.world.goes.Go(func() {
		time.Sleep(linger)
		k.local.Crash()
		k.remote.Crash()
		for _, b := range boxes {
			b.Stop(nil)
		}
		for _, b := range boxes {
			<-b.end
		}
	})
}

// run has the worker run an image.
func (k *worker) run(m *model) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dead {
		return
	}
	i := k.images[m.globalID]
	if i == nil {
		i = &supervised{restarter: supervision.NewRestarter(supervision.DefaultStrategy)}
		k.images[m.globalID] = i
	}
	if i.asked {
		return
	}
	i.asked = true
	k.spawn(m, i)
}

// spawn starts an image's actor. It is called with k.mu held.
func (k *worker) spawn(m *model, i *supervised) {
	w := k.world
	i.restarter.Step(supervision.Started{When: time.Now()})
	w.spawned++
	rng := rand.New(rand.NewPCG(w.seed, 1000+w.spawned))
	box := &mailbox{
		system: actors, parent: k.pool, rng: rng, may: k.runs, wake: make(chan struct{}, 1), end: make(chan struct{}),
	}
	box.actor = k.newImage(m, i.past, rng)
	box.died = func(v any) { k.imageDied(m, i, box, v) }
	box.pid = w.register(box)
	before := i.box
	i.box = box
	w.goes.Go(func() {
		if before != nil {
			<-before.end // never two of an image in one process
		}
		box.run()
	})
}

// imageDied starts the actor again when the strategy says so, as its pool would.
func (k *worker) imageDied(m *model, i *supervised, box *mailbox, v any) {
	k.world.trace.Add("worker %d: %s panicked", k.seat, m.globalID)
	cause := supervision.Cause{What: "image", Why: report.WhyPanic, When: time.Now(), Text: fmt.Sprint(v)}
	k.mu.Lock()
	d := i.restarter.Step(supervision.Died{Cause: cause, Random: 0.5})
	i.past.Restarts++
	i.past.LastCause = &cause
	k.mu.Unlock()
	if !d.Start {
		return
	}
	k.world.goes.Go(func() {
		time.Sleep(time.Until(d.At))
		k.mu.Lock()
		defer k.mu.Unlock()
		if !k.dead && i.asked && i.box == box {
			k.spawn(m, i)
		}
	})
}

// leave has the worker let an image go. It returns at once.
func (k *worker) leave(m *model) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if i := k.images[m.globalID]; i != nil && i.asked {
		i.asked = false
		i.box.Stop(nil)
	}
}

// tell sends a message to an image's actor.
func (k *worker) tell(m *model, message any) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if i := k.images[m.globalID]; i != nil && i.asked {
		i.box.SendUserMessage(nil, message)
	}
}

func (k *worker) said(m *model) report.Image {
	k.mu.Lock()
	defer k.mu.Unlock()
	if i := k.images[m.globalID]; i != nil {
		return i.status
	}
	return report.Image{}
}

// newImage makes the actor of an image as cmd/rbd-warden does.
func (k *worker) newImage(m *model, past messages.Past, rng *rand.Rand) actor.Actor {
	w := k.world
	log := zerolog.Nop()
	if w.trace.Verbose() {
		log = zerolog.New(w.trace.Log(fmt.Sprintf("%s in worker %d", m.globalID, k.seat))).Level(zerolog.DebugLevel)
	}
	resources := replayer.Resources{
		Local: k.here, Remote: k.there, GlobalID: m.globalID,
		SyncSlot:           func(context.Context, func()) (func(), error) { return func() {}, nil },
		Timeout:            60 * time.Second,
		Limits:             image.Limits{},
		RemoteSnapshots:    func(string) imagesync.Snapshots { return w.primaries[m.number] },
		Tail:               journal.TailConfig{Budget: w.set.tailBudget},
		Trashed:            func() {},
		CheckpointInterval: 100 * time.Millisecond, Log: log,
		Pace:            k.pace,
		NewCredit:       func() replayer.Credit { return k.read.Client() },
		NewUrgentCredit: func() replayer.Credit { return k.read.UrgentClient() },
		NewApplyCredit:  func() replayer.Credit { return k.apply.Client() },
	}
	return replayer.New(replayer.Options{
		Key: messages.ImageKey{PoolKey: messages.PoolKey{Pool: poolName}, GlobalID: m.globalID},
		Core: core.Config{
			LocalMirrorUUID: localUUID, RemoteMirrorUUID: remoteUUID, CommitInterval: w.set.commit,
			ReadBytes: w.set.readBytes, BufferBytes: w.set.bufferBytes, MaxStepBytes: w.set.stepBytes, MaxStepOps: w.set.stepOps,
		},
		NewPerformer: func(notify func(core.Msg)) replayer.Performer {
			return &probe{Performer: replayer.NewPerformer(resources, notify), worker: k, model: m}
		},
		Retry: func(cause core.StopCause, failures int) (time.Duration, bool) {
			return replayer.Retry(cause, failures, rng.Float64())
		},
		Log: log, CloseTimeout: closeTimeout, Past: past,
	})
}

// pool is what the image's actors of a worker take for their pool.
type pool struct{ worker *worker }

func (p *pool) SendUserMessage(_ *actor.PID, message any) {
	k := p.worker
	_, payload, _ := actor.UnwrapEnvelope(message)
	switch m := payload.(type) {
	case messages.ImageReport:
		k.mu.Lock()
		if i := k.images[m.Key.GlobalID]; i != nil {
			i.status = m.Report
		}
		k.mu.Unlock()
		k.world.reported(k, m.Report)
	case messages.ClientFenced:
		k.mu.Lock()
		k.fenced = true
		k.mu.Unlock()
	}
}
func (p *pool) SendSystemMessage(*actor.PID, any) {}
func (p *pool) Stop(*actor.PID)                   {}

// probe is a performer that the oracle hears of.
type probe struct {
	replayer.Performer
	worker    *worker
	model     *model
	committed core.JournalerReady
}

// Heard passes on what the status asks for.
func (p *probe) Heard() (time.Time, time.Duration, bool) {
	if e, ok := p.Performer.(interface {
		Heard() (time.Time, time.Duration, bool)
	}); ok {
		return e.Heard()
	}
	return time.Time{}, 0, false
}

// Perform performs an effect.
func (p *probe) Perform(ctx context.Context, e core.Effect) core.Msg {
	w := p.worker.world
	// No two effects begin, or end, at the same moment.
	dice := w.faultsHere.dice(p.worker.life, p.model.globalID+name(e))
	time.Sleep(time.Duration(dice.Int64N(int64(10 * time.Microsecond))))
	p.worker.mu.Lock()
	panics := p.worker.panics
	p.worker.panics = false
	p.worker.mu.Unlock()
	if panics {
		panic("the simulation wants it")
	}
	if open, ok := e.(core.OpenLocal); ok {
		w.oracle.opened(p.model, open.ImageID)
	}
	m := p.Performer.Perform(ctx, e)
	time.Sleep(time.Duration(dice.Int64N(int64(10 * time.Microsecond))))
	switch m := m.(type) {
	case core.JournalerReady:
		p.committed = m
	case core.ReplayStarted:
		w.oracle.replays(p.model, p.worker.local, p.committed.Committed, p.committed.Covered)
	}
	w.trace.Add("worker %d: %s: %T is answered %T", p.worker.seat, p.model.globalID, e, m)
	return m
}

// name tells an effect from others that may be under way.
func name(e core.Effect) string {
	if a, ok := e.(core.Apply); ok {
		return fmt.Sprintf("%T %d", e, a.Step.ID())
	}
	return fmt.Sprintf("%T", e)
}

// pace gives an image the limits of its worker.
func (k *worker) pace() replayer.Paced {
	return replayer.Paced{
		Replay: pace.NewChain(pace.Link{Scope: pace.Daemon, Bucket: k.replay}), Sync: pace.NewChain(pace.Link{Scope: pace.Daemon, Bucket: k.sync}),
		Own: func(config.ImageLimits) {}, Leave: func() {},
	}
}
