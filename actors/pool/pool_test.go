package pool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/actors/replayer"
	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	"github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/config"
	"github.com/rbdwarden/rbdwarden/messages"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/supervision"
)

// world is a pool whose images lead to REPLAYING without any cluster, and die when
// they are told to.
type world struct {
	t      *testing.T
	system *actor.ActorSystem
	pid    *actor.PID

	mu        sync.Mutex
	ids       []string
	listErr   error
	away      error          // the peer cannot be reached
	lives     map[string]int // actors made for an image
	open      map[string]int // performers that hold a local image
	closed    map[string]int
	status    map[string]report.Image
	removed   []string
	forgotten []string
	reached   []bool              // told whether the peer answers
	epoch     uint64              // of the newest share
	elsewhere map[string]struct{} // images that another member runs
	applied   uint64
	crash     map[string]chan struct{} // closed: the image's read panics
	hangs     map[string]chan struct{} // by image and effect: it does not return, cancelled or not, until closed
	fails     map[string]core.Failed   // by image and effect: what it returns, while it is here
	hung      int                      // effects that began to hang
	told      []supervision.Evidence
	left      replayer.Leftovers
	ledger    supervision.Ledger
	recorded  []supervision.End         // by the images' actors
	notify    map[string]func(core.Msg) // of the newest life
}

func newWorld(t *testing.T, ids ...string) *world { return newWorldWith(t, messages.Past{}, ids...) }

func newWorldWith(t *testing.T, past messages.Past, ids ...string) *world {
	return makeWorld(t, past, nil, ids...)
}

func newWorldAway(t *testing.T, away error, ids ...string) *world {
	return makeWorld(t, messages.Past{}, away, ids...)
}

func makeWorld(t *testing.T, past messages.Past, away error, ids ...string) *world {
	w := &world{
		t: t, ids: ids, away: away,
		system: actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(slog.DiscardHandler) })),
		lives:  map[string]int{}, open: map[string]int{}, closed: map[string]int{},
		status: map[string]report.Image{}, crash: map[string]chan struct{}{}, notify: map[string]func(core.Msg){},
	}
	for _, id := range ids {
		w.crash[id] = make(chan struct{})
	}
	strategy := supervision.DefaultStrategy
	strategy.Min, strategy.Max = 10*time.Millisecond, 50*time.Millisecond
	strategy.Intensity, strategy.ParkedRetry = 3, time.Hour
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pid = w.system.Root.Spawn(Props(Options{
		Listed: func(ids []string, _ bool) { w.assign(ids...) }, // one member runs all
		Reached: func(answers bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.reached = append(w.reached, answers)
		},
		Key: messages.PoolKey{Pool: "rbd", PoolID: 1}, Status: w, Past: past,
		Connect: func(context.Context) (*Remote, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.away != nil {
				return nil, w.away
			}
			return &Remote{Close: func() {}}, nil
		},
		Alone: func(_ context.Context, err error, _ time.Time, attempts int, _ time.Time) ([]report.Image, error) {
			return []report.Image{
				{GlobalID: "a", State: "error", Description: fmt.Sprint(err, ", attempt ", attempts)}, {GlobalID: "gone", State: "error"},
			}, nil
		},
		List: func(context.Context, rados.IOContext) ([]string, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return slices.Clone(w.ids), w.listErr
		},
		Watch: func(context.Context, rados.IOContext, func(string)) (func(), error) { return func() {}, nil },
		Applied: func(epoch uint64) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.applied = epoch
			for id := range w.elsewhere {
				if w.open[id] > 0 {
					w.t.Errorf("epoch %d is said to be applied while %s is held", epoch, id)
				}
			}
		},
		NewImage: func(key messages.ImageKey, _ *Remote, halt config.Halt, past messages.Past) actor.Actor {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.lives[key.GlobalID]++
			return replayer.New(replayer.Options{
				Key: key, Core: core.Config{LocalMirrorUUID: "l", RemoteMirrorUUID: "r", CommitInterval: time.Hour, ReadBytes: 1, BufferBytes: 1},
				NewPerformer: func(notify func(core.Msg)) replayer.Performer {
					w.mu.Lock()
					defer w.mu.Unlock()
					w.notify[key.GlobalID] = notify
					return &performer{w: w, id: key.GlobalID}
				},
				Retry: func(core.StopCause, int) (time.Duration, bool) { return time.Hour, true },
				Log:   zerolog.Nop(), CloseTimeout: time.Second, Halt: halt, Past: past,
				Patience:     supervision.Patience{Report: 60 * time.Millisecond, Restart: 200 * time.Millisecond, Grace: 60 * time.Millisecond},
				LocalCluster: "here", There: "there",
				Left: &w.left, Tell: func(e supervision.Evidence) {
					w.mu.Lock()
					defer w.mu.Unlock()
					w.told = append(w.told, e)
					if l, ok := e.(supervision.LeftBehind); ok && len(w.recorded) == 0 {
						w.t.Errorf("%+v is told before it is recorded", l)
					}
				},
				Record: func(end report.Cause, again bool) {
					w.mu.Lock()
					defer w.mu.Unlock()
					e := supervision.End{Level: report.LevelImage, Name: key.String(), Cause: end, Again: again}
					w.ledger.Add(e)
					w.recorded = append(w.recorded, e)
				},
			})
		},
		Refresh: 20 * time.Millisecond, Timeout: 5 * time.Second, Strategy: strategy, Ledger: &w.ledger, Log: zerolog.Nop(),
	}))
	t.Cleanup(func() { w.system.Shutdown() })
	return w
}

// assign gives the pool a share of these images, without those that are elsewhere.
func (w *world) assign(ids ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.epoch++
	share := Share{Epoch: w.epoch, Run: map[string]struct{}{}}
	for _, id := range ids {
		if _, other := w.elsewhere[id]; !other {
			share.Run[id] = struct{}{}
		}
	}
	w.system.Root.Send(w.pid, share)
}

func (w *world) Set(id string, r report.Image) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status[id] = r
}

func (w *world) Remove(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.removed = append(w.removed, id)
}
func (w *world) Forget(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.forgotten = append(w.forgotten, id)
}
func (w *world) Close(context.Context) {}

// until waits for a condition on the world.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		w.mu.Lock()
		done := ok()
		w.mu.Unlock()
		if done {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("never: %s; status %+v", what, w.status)
		}
	}
}

func (w *world) state(id string) string { return w.status[id].State }

// performer answers every effect as a healthy cluster would.
type performer struct {
	w    *world
	id   string
	held bool
}

func (p *performer) Released(int64) {}
func (p *performer) Held() int64    { return 0 }

func (p *performer) Perform(ctx context.Context, e core.Effect) core.Msg {
	meta := journal.MirrorPeerClientMeta{ImageID: "i", State: journal.PeerReplaying}
	p.w.mu.Lock()
	hang := p.w.hangs[p.id+fmt.Sprintf(" %T", e)]
	failed, fails := p.w.fails[p.id+fmt.Sprintf(" %T", e)]
	p.w.mu.Unlock()
	if fails {
		return failed
	}
	if hang != nil {
		p.w.mu.Lock()
		p.w.hung++
		p.w.mu.Unlock()
		<-hang
		return core.Failed{State: core.Replaying, Class: rados.Transient, Err: ctx.Err()}
	}
	switch e.(type) {
	case core.PrepareLocal:
		return core.LocalPrepared{Local: core.Local{Exists: true, ImageID: "i", Name: p.id, Promotion: core.NonPrimary, PrimaryUUID: "r"}}
	case core.PrepareRemote:
		return core.RemotePrepared{Remote: core.Remote{Exists: true, ImageID: "i", Promotion: core.Primary}}
	case core.ReadRemoteClients:
		return core.RemoteClientsRead{Registered: true, Connected: true, Meta: meta}
	case core.OpenRemote:
		return core.RemoteOpened{}
	case core.OpenLocal:
		p.w.mu.Lock()
		p.held = true
		p.w.open[p.id]++
		p.w.mu.Unlock()
		return core.LocalOpened{Name: p.id, Promotion: core.NonPrimary, TagData: journal.TagData{MirrorUUID: "r"}}
	case core.ReadRemoteTags:
		return core.RemoteTagsRead{Tags: []core.Tag{{}}}
	case core.CloseRemote:
		return core.RemoteClosed{}
	case core.InitJournaler:
		return core.JournalerReady{SplayWidth: 4}
	case core.StartTailing:
		return core.ReplayStarted{Promotion: core.NonPrimary}
	case core.ReadEntries:
		p.w.mu.Lock()
		crash := p.w.crash[p.id]
		p.w.mu.Unlock()
		select {
		case <-crash:
			panic("injected")
		case <-ctx.Done():
			return core.Failed{State: core.Replaying, Class: rados.Transient, Err: ctx.Err()}
		}
	case core.Close:
		return core.Closed{Err: p.Close(ctx)}
	}
	return core.Failed{Class: rados.Permanent, Err: errors.New("not expected")}
}

func (p *performer) Look() {}

// Release closes the local image, as Close does: there is nothing else.
func (p *performer) Release(ctx context.Context) error { return p.Close(ctx) }

func (p *performer) Close(context.Context) error {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	if p.held {
		p.held = false
		p.w.open[p.id]--
		p.w.closed[p.id]++
	}
	return nil
}

// A peer that is away from the start: the local images' statuses say so, with each
// attempt, until their actors take over. A status of an image that is gone meanwhile is
// left to whoever has it.
func TestAPeerThatIsAwayFromTheStart(t *testing.T) {
	w := newWorldAway(t, errors.New("no route"), "a")
	w.until("two attempts are told", func() bool { return w.status["a"].Description == "no route, attempt 2" })
	w.mu.Lock()
	if len(w.lives) > 0 {
		t.Error("an image runs without a peer")
	}
	w.away = nil
	w.mu.Unlock()
	w.until("a replays", func() bool { return w.state("a") == "replaying" })
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(w.forgotten, []string{"gone"}) {
		t.Errorf("forgotten: %v", w.forgotten)
	}
	if last := len(w.reached) - 1; last < 2 || slices.Index(w.reached, true) != last {
		t.Errorf("told whether the peer answers: %v", w.reached)
	}
}

// One image's panic restarts that image alone; its lock is given up before, and the
// cause is told.
func TestPanicRestartsOneImage(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.until("both replay", func() bool { return w.state("a") == "replaying" && w.state("b") == "replaying" })

	w.mu.Lock()
	crash := w.crash["a"]
	w.crash["a"] = make(chan struct{})
	w.mu.Unlock()
	close(crash)

	w.until("a has a second life and replays again", func() bool {
		return w.lives["a"] == 2 && w.state("a") == "replaying" && w.status["a"].Restarts == 1
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lives["b"] != 1 || w.closed["b"] != 0 {
		t.Errorf("b was touched: %d lives, closed %d times", w.lives["b"], w.closed["b"])
	}
	if w.closed["a"] != 1 || w.open["a"] != 1 {
		t.Errorf("a: closed %d times, %d open; the first life must give the image up", w.closed["a"], w.open["a"])
	}
	if c := w.status["a"].LastCause; c == nil || c.Why != report.WhyPanic {
		t.Errorf("cause %+v, want the panic", c)
	}
	if d := w.status["a"].Description; !strings.Contains(d, `"restarts":1`) || !strings.Contains(d, "panic: ") {
		t.Errorf("the status of a restarted image hides it: %s", d)
	}
	if d := w.status["b"].Description; strings.Contains(d, "restarts") {
		t.Errorf("b was never restarted: %s", d)
	}
}

// An image that panics again and again is parked with its cause; others go on.
func TestCrashingImageIsParked(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.mu.Lock()
	close(w.crash["a"])
	w.mu.Unlock()
	w.until("a is parked", func() bool { return w.status["a"].Parked })
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state("a") != "error" || w.state("b") != "replaying" {
		t.Errorf("a %s, b %s", w.state("a"), w.state("b"))
	}
	if w.open["a"] != 0 {
		t.Errorf("a parked image is still locked")
	}
	if d := w.status["a"].Description; !strings.Contains(d, "parked") || !strings.Contains(d, "image restart rbd/a") || !strings.Contains(d, "injected") {
		t.Errorf("the status of a parked image: %s", d)
	}
}

// A parked image starts at once when an operator asks for it; one of its restarts is
// known to each of its lives.
func TestParkedImageStartsOnCommand(t *testing.T) {
	w := newWorld(t, "a")
	w.mu.Lock()
	crash := w.crash["a"]
	w.mu.Unlock()
	close(crash)
	w.until("a is parked", func() bool { return w.status["a"].Parked })
	w.mu.Lock()
	w.crash["a"] = make(chan struct{})
	lives := w.lives["a"]
	w.mu.Unlock()
	w.system.Root.Send(w.pid, messages.ToImageNamed{GlobalID: "a", Message: messages.StartImage{}})
	w.until("a replays again", func() bool {
		return w.state("a") == "replaying" && w.lives["a"] == lives+1 && w.status["a"].Restarts == lives
	})
}

// What ended the process that an image was in before counts as the image's restart; an
// image that was found later was not in it.
func TestThePastOfTheProcessIsTold(t *testing.T) {
	w := newWorldWith(t, messages.Past{Restarts: 3, LastCause: &report.Cause{What: "worker 0", Why: report.WhyOOM, When: time.Now()}}, "a")
	w.until("a replays", func() bool { return w.state("a") == "replaying" })
	w.mu.Lock()
	d := w.status["a"].Description
	w.ids, w.crash["b"] = append(w.ids, "b"), make(chan struct{})
	w.mu.Unlock()
	if !strings.Contains(d, `"restarts":3`) || !strings.Contains(d, "worker 0: OOM kill") {
		t.Errorf("the status hides why the worker ended: %s", d)
	}
	w.until("b replays", func() bool { return w.state("b") == "replaying" })
	w.mu.Lock()
	defer w.mu.Unlock()
	if d := w.status["b"].Description; strings.Contains(d, "restarts") {
		t.Errorf("b is new: %s", d)
	}
}

// A list that cannot be read says nothing about the images: they go on. One that can
// be read and lacks an image ends it.
func TestImagesFollowTheList(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.until("both replay", func() bool { return w.state("a") == "replaying" && w.state("b") == "replaying" })
	w.mu.Lock()
	w.ids, w.listErr = nil, errors.New("no answer")
	w.mu.Unlock()
	time.Sleep(100 * time.Millisecond) // several refreshes: nothing must happen, so there is nothing to wait for
	w.mu.Lock()
	if len(w.removed) > 0 || w.closed["a"]+w.closed["b"] > 0 {
		t.Error("an unreadable list ended images")
	}
	w.ids, w.listErr = []string{"b"}, nil
	w.mu.Unlock()
	w.until("a is gone", func() bool { return slices.Contains(w.removed, "a") && w.open["a"] == 0 })
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open["b"] != 1 || slices.Contains(w.removed, "b") {
		t.Error("b was touched")
	}
}

// Stop lets go of every image before it answers.
// An image that another member is to run is let go before the share is said to be applied; its status stays for the
// other to write; and it comes back.
func TestImagesFollowTheShare(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	w.until("all replay", func() bool { return w.open["a"]+w.open["b"]+w.open["c"] == 3 })
	w.mu.Lock()
	w.elsewhere = map[string]struct{}{"a": {}, "b": {}}
	epoch := w.epoch
	w.mu.Unlock()
	w.assign("a", "b", "c")
	w.until("it is applied", func() bool { return w.applied > epoch && w.open["a"]+w.open["b"] == 0 && len(w.forgotten) == 2 })
	w.mu.Lock()
	if w.open["c"] != 1 || w.lives["c"] != 1 || len(w.removed) > 0 {
		t.Errorf("c: %d open, %d lives; statuses removed: %v", w.open["c"], w.lives["c"], w.removed)
	}
	w.elsewhere = nil
	w.mu.Unlock()
	w.assign("a", "b", "c")
	w.until("all are back", func() bool { return w.open["a"]+w.open["b"]+w.open["c"] == 3 })
}

func TestStopClosesEverything(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	w.until("all replay", func() bool { return w.open["a"]+w.open["b"]+w.open["c"] == 3 })
	if _, err := w.system.Root.RequestFuture(w.pid, Stop{}, 10*time.Second).Result(); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range w.ids {
		if w.open[id] != 0 || w.closed[id] != 1 {
			t.Errorf("%s: %d open, closed %d times", id, w.open[id], w.closed[id])
		}
	}
}

// What was stopped by command stays so: over a panic, for images that come later, and
// until it is started; the others go on.
func TestStoppedStaysStopped(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.until("both replay", func() bool { return w.state("a") == "replaying" && w.state("b") == "replaying" })
	tell := func(name string, m messages.ToImage) {
		w.system.Root.Send(w.pid, messages.ToImageNamed{GlobalID: name, Message: m})
	}
	halted := func(id string) bool {
		s := w.status[id]
		return s.State == "stopped" && strings.HasPrefix(s.Description, "stopped") && s.Stopped && w.open[id] == 0
	}
	tell("a", messages.StopImage{Reason: "stopped"})
	w.until("a is stopped", func() bool { return halted("a") })
	time.Sleep(100 * time.Millisecond) // several refreshes: nothing must happen, so there is nothing to wait for
	w.until("only a is stopped", func() bool { return halted("a") && w.state("b") == "replaying" && w.lives["a"] == 1 })

	// All, also who comes later and who has died meanwhile.
	w.mu.Lock()
	crash := w.crash["b"]
	w.crash["b"] = make(chan struct{})
	w.crash["c"] = make(chan struct{})
	w.mu.Unlock()
	tell("", messages.StopImage{Reason: "stopped"})
	close(crash)
	w.until("b is stopped", func() bool { return halted("b") })
	w.mu.Lock()
	w.ids = []string{"a", "b", "c"}
	w.mu.Unlock()
	w.until("c is stopped from the start", func() bool { return halted("c") })
	if r, err := w.system.Root.RequestFuture(w.pid, Snapshot{}, 10*time.Second).Result(); err != nil || !r.(report.Pool).Stopped {
		t.Errorf("the pool's report: %+v, %v", r, err)
	}

	tell("c", messages.StartImage{})
	w.until("c replays", func() bool { return w.state("c") == "replaying" })
	w.until("a and b do not", func() bool { return halted("a") && halted("b") })
	for range 5 { // the start finds the image stopping
		began := time.Now()
		tell("c", messages.StopImage{Reason: "stopped"})
		tell("c", messages.StartImage{})
		w.until("c replays again", func() bool {
			return w.state("c") == "replaying" && w.status["c"].Settled.After(began) && !w.status["c"].Stopped
		})
	}
	tell("", messages.RestartImage{})
	w.until("all replay", func() bool {
		return w.state("a") == "replaying" && w.state("b") == "replaying" && w.state("c") == "replaying"
	})
}

// What was paused by command stays so: over a panic of its actor, and for an image that is
// run here only later. It is open, that is locked, meanwhile; a stop lets go of it.
func TestPausedStaysPaused(t *testing.T) {
	w := newWorld(t, "a")
	w.until("a replays", func() bool { return w.state("a") == "replaying" })
	tell := func(id string, m messages.ToImage) {
		w.system.Root.Send(w.pid, messages.ToImageNamed{GlobalID: id, Message: m})
	}
	paused := func(id string) bool {
		s := w.status[id]
		return s.Step == core.Paused.String() && s.State == "stopped" && strings.HasPrefix(s.Description, "paused by root") && s.Paused && !s.Stopped && w.open[id] == 1
	}
	pause := messages.PauseImage{Reason: "paused by root"}
	tell("b", pause)
	tell("a", pause)
	tell("a", pause)
	w.until("a is paused", func() bool { return paused("a") && w.lives["a"] == 1 })
	w.mu.Lock()
	settled := w.status["a"].Settled
	crash := w.crash["a"]
	w.crash["a"], w.crash["b"] = make(chan struct{}), make(chan struct{})
	w.ids = []string{"a", "b"}
	w.mu.Unlock()
	close(crash)
	w.until("another actor of a holds still", func() bool { return w.lives["a"] == 2 && paused("a") && w.status["a"].Settled.After(settled) })
	w.until("b is paused from the start", func() bool { return paused("b") })
	tell("a", messages.StartImage{})
	w.until("a replays", func() bool { return w.state("a") == "replaying" && !w.status["a"].Paused && w.lives["a"] == 2 })
	tell("b", messages.StopImage{Reason: "stopped"})
	w.until("b is stopped", func() bool { return w.status["b"].Stopped && !w.status["b"].Paused && w.open["b"] == 0 })
	tell("b", messages.StartImage{})
	w.until("b replays, the pause is forgotten", func() bool { return w.state("b") == "replaying" })
}

// Who waits for its restart, parked, is started at once by a command, and stopped by one.
func TestParkedImageObeys(t *testing.T) {
	w := newWorld(t, "a")
	w.mu.Lock()
	crash := w.crash["a"]
	close(crash)
	w.mu.Unlock()
	w.until("a is parked", func() bool { return w.status["a"].Parked })
	w.system.Root.Send(w.pid, messages.ToImageNamed{GlobalID: "a", Message: messages.StopImage{Reason: "stopped"}})
	w.until("a is stopped", func() bool { return w.status["a"].State == "stopped" })
	w.mu.Lock()
	w.crash["a"] = make(chan struct{})
	w.mu.Unlock()
	w.system.Root.Send(w.pid, messages.ToImageNamed{GlobalID: "a", Message: messages.StartImage{}})
	w.until("a replays", func() bool { return w.state("a") == "replaying" })
}

// A flush is always answered, whatever state the image is in.
func TestFlushIsAnswered(t *testing.T) {
	w := newWorld(t, "a", "parked")
	w.mu.Lock()
	close(w.crash["parked"])
	w.mu.Unlock()
	w.until("one replays, one is parked", func() bool { return w.state("a") == "replaying" && w.status["parked"].Parked })
	for _, id := range []string{"a", "parked"} {
		r, err := w.system.Root.RequestFuture(w.pid, messages.ToImageNamed{GlobalID: id, Message: messages.FlushImage{}}, 10*time.Second).Result()
		if m, ok := r.(messages.ImageFlushed); err != nil || !ok || m.Key.GlobalID != id {
			t.Errorf("%s: %v, %v", id, r, err)
		}
	}
}

// What keeps a pool from its peer is told in rbd-mirror's words, and in detail.
func TestCalloutsOfAPeerThatIsAway(t *testing.T) {
	var away error
	remote := &Remote{Close: func() {}, Away: func() error { return away }}
	p := &Pool{remote: remote, opt: Options{Peer: report.Peer{Site: "s"}}}
	if r := p.snapshot(); r.Health != report.HealthOK || !r.Peer.Reachable || len(r.Callouts) > 0 {
		t.Errorf("all is well: %+v", r)
	}
	away = errors.New("no answer")
	if r := p.snapshot(); r.Health != report.HealthError || r.Peer.Reachable ||
		!slices.Equal(r.Callouts, []report.Callout{{Level: "error", Text: "unable to connect to remote cluster"}, {Level: "info", Text: "no answer"}}) {
		t.Errorf("the peer is away: %+v", r)
	}
	got := callouts(&ConnectError{Words: NoRemotePool, Level: report.LevelWarning, Err: away}, NoRemoteCluster, report.LevelError)
	if !slices.Equal(got, []report.Callout{{Level: "warning", Text: "unable to access remote pool"}, {Level: "info", Text: "no answer"}}) || healthOf(got) != report.HealthWarning {
		t.Errorf("%+v", got)
	}
}
