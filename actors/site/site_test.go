package site

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/actors/pool"
	"github.com/rbdwarden/rbdwarden/actors/replayer"
	cephmirror "github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/cluster/coordinator"
	"github.com/rbdwarden/rbdwarden/config"
	"github.com/rbdwarden/rbdwarden/messages"
	"github.com/rbdwarden/rbdwarden/mirror"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/mem"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/supervision"
)

// world is a site whose elections and clusters a test decides about.
type world struct {
	t      *testing.T
	system *actor.ActorSystem
	pid    *actor.PID
	io     rados.IOContext

	mu        sync.Mutex
	pools     []Found
	findErr   error
	findGate  chan struct{} // Find waits for it, if it is not nil
	newGate   chan struct{} // so does NewPool
	newErr    error
	ready     int
	panics    string // "ready": the site panics
	fenced    []error
	elections []*election
	open      map[string]int // actors' options that are not released, by "pool/namespace"
	most      int            // of one namespace at any time
	made      map[string]int
	pasts     map[string]messages.Past // given to the newest actor
	crash     map[string]bool          // the next image of that pool panics in the pool's actor
	images    map[string][]string      // listed
	service   map[int64]mirror.ServicePool
}

// election is a Party that a test decides about. Whoever leads runs all that is listed.
type election struct {
	w       *world
	pool    int64
	told    coordinator.Told
	ctx     context.Context
	hold    chan struct{} // Run returns when it is closed and ctx has ended
	over    bool
	epoch   uint64
	applied map[string]uint64
	reaches map[string]bool
	asked   int // to release the leadership
	leaving bool
}

// lead makes this member the one that leads, and works.
func (e *election) lead() {
	e.told.Works(true, "")
	e.told.Leads()
}

// lose makes it stand by.
func (e *election) lose(err error) {
	e.told.Lost(err)
	e.told.Works(false, "rbd-mirror leads the pool")
}

func (e *election) Run(ctx context.Context, told coordinator.Told) {
	e.told, e.ctx, e.hold = told, ctx, make(chan struct{})
	close(e.hold)
	e.w.locked(func() { e.w.elections = append(e.w.elections, e) })
	<-ctx.Done()
	e.w.mu.Lock()
	hold := e.hold
	e.w.mu.Unlock()
	<-hold
	e.w.locked(func() { e.over = true })
}

func (e *election) Namespaces([]string) {}

func (e *election) Listed(namespace string, ids []string, _ bool) {
	share := coordinator.Share{Run: map[string]struct{}{}}
	for _, id := range ids {
		share.Run[id] = struct{}{}
	}
	e.w.locked(func() { e.epoch++; share.Epoch = e.epoch })
	e.told.Assigned(namespace, share)
}

func (e *election) Applied(namespace string, epoch uint64) {
	e.w.locked(func() { e.applied[namespace] = epoch })
}
func (e *election) Reaches(namespace string, answers bool) {
	e.w.locked(func() { e.reaches[namespace] = answers })
}
func (e *election) Trashed() {}
func (e *election) Release() { e.w.locked(func() { e.asked++ }) }
func (e *election) Leaving() { e.w.locked(func() { e.leaving = true }) }

func newWorld(t *testing.T, pools ...Found) *world {
	store := mem.New(mem.Options{})
	store.AddPool("rbd")
	client := store.Connect()
	io, err := client.Open(t.Context(), "rbd", "")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, io: io, pools: pools, open: map[string]int{}, made: map[string]int{}, pasts: map[string]messages.Past{},
		crash: map[string]bool{}, images: map[string][]string{},
		system: actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(slog.DiscardHandler) })),
	}
	t.Cleanup(func() { w.system.Shutdown() })
	return w
}

// start starts the site; looks for pools are refresh apart.
func (w *world) start(refresh time.Duration) {
	w.pid = w.system.Root.Spawn(Props(Options{
		Find: w.find, Join: w.join, NewPool: w.newPool, Ready: func() {
			w.locked(func() { w.ready++ })
			if w.panics == "ready" {
				panic("injected")
			}
		},
		Service: func(_ context.Context, pools map[int64]mirror.ServicePool) error {
			w.locked(func() { w.service = pools })
			return nil
		},
		Fenced:     func(err error) { w.locked(func() { w.fenced = append(w.fenced, err) }) },
		InstanceID: 4711, Refresh: refresh, Publish: 20 * time.Millisecond, Timeout: 5 * time.Second, Log: zerolog.Nop(),
	}))
}

func (w *world) locked(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *world) find(context.Context) ([]Found, error) {
	w.mu.Lock()
	gate := w.findGate
	w.mu.Unlock()
	if gate != nil {
		<-gate
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]Found(nil), w.pools...), w.findErr
}

func (w *world) join(id int64) Party {
	return &election{w: w, pool: id, applied: map[string]uint64{}, reaches: map[string]bool{}}
}

func (w *world) newPool(_ context.Context, found mirror.Pool, namespace string, peer cephmirror.Peer) (pool.Options, error) {
	w.mu.Lock()
	gate, err := w.newGate, w.newErr
	w.mu.Unlock()
	if gate != nil {
		<-gate
	}
	if err != nil {
		return pool.Options{}, err
	}
	key := messages.PoolKey{Pool: found.Pool.Name, PoolID: found.Pool.ID, Namespace: namespace}
	name := key.String()
	w.locked(func() {
		w.open[name]++
		w.made[name]++
		w.most = max(w.most, w.open[name])
	})
	return pool.Options{
		Key: key, Peer: report.Peer{UUID: peer.UUID, Site: peer.SiteName}, Local: replayer.Site{IO: w.io}, Status: sink{},
		Connect: func(context.Context) (*pool.Remote, error) {
			return &pool.Remote{Site: replayer.Site{IO: w.io}, Close: func() {}}, nil
		},
		List: func(context.Context, rados.IOContext) ([]string, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return append([]string(nil), w.images[name]...), nil
		},
		Watch: func(context.Context, rados.IOContext, func(string)) (func(), error) { return func() {}, nil },
		NewImage: func(key messages.ImageKey, _ *pool.Remote, _ config.Halt, past messages.Past) actor.Actor {
			w.mu.Lock()
			crash := w.crash[name]
			w.crash[name], w.pasts[name] = false, past
			w.mu.Unlock()
			if crash {
				panic("injected into " + name)
			}
			return image{key}
		},
		Refresh: 10 * time.Millisecond, Timeout: 5 * time.Second, Strategy: supervision.DefaultStrategy, Log: zerolog.Nop(),
		Release: func() { w.locked(func() { w.open[name]-- }) },
	}, nil
}

// sink is a pool.StatusSink that nobody reads.
type sink struct{}

func (sink) Set(string, report.Image) {}
func (sink) Remove(string)            {}
func (sink) Forget(string)            {}
func (sink) Close(context.Context)    {}

// image is an image's actor that does nothing but report and stop.
type image struct{ key messages.ImageKey }

func (i image) Receive(c actor.Context) {
	switch c.Message().(type) {
	case *actor.Started:
		c.Send(c.Parent(), messages.ImageReport{Key: i.key, Report: report.Image{GlobalID: i.key.GlobalID, State: "replaying", LocalID: "l"}})
	case messages.StopImage:
		c.Respond(messages.ImageStopped{Key: i.key})
	case messages.RestartImage:
		c.Send(c.Parent(), messages.ClientFenced{Err: rados.Blocklisted})
	}
}

// until waits for a condition on the world.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		w.mu.Lock()
		done := ok()
		w.mu.Unlock()
		if done {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("never: %s", what)
		}
	}
}

// election waits for the n-th competition.
func (w *world) election(n int) *election {
	w.t.Helper()
	w.until(fmt.Sprintf("competition %d", n), func() bool { return len(w.elections) > n })
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.elections[n]
}

func (w *world) runs(name string) func() bool { return func() bool { return w.open[name] == 1 } }
func (w *world) gone(name string) func() bool { return func() bool { return w.open[name] == 0 } }

// snapshot asks the site for its report.
func (w *world) snapshot() map[string]report.Pool {
	w.t.Helper()
	r, err := w.system.Root.RequestFuture(w.pid, Snapshot{}, 10*time.Second).Result()
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[string]report.Pool{}
	for _, p := range r.([]report.Pool) {
		out[messages.PoolKey{Pool: p.Name, Namespace: p.Namespace}.String()] = p
	}
	return out
}

func found(id int64, name string, peer string, namespaces ...string) Found {
	f := Found{FoundPool: mirror.FoundPool{Pool: mirror.Pool{Pool: rados.Pool{ID: id, Name: name}}}, Namespaces: append([]string{""}, namespaces...)}
	if peer != "" {
		f.Peers = []cephmirror.Peer{{UUID: peer, SiteName: "north", Direction: cephmirror.DirectionRXTX}}
		f.Source = peer
	}
	return f
}

const never = time.Hour // between looks for pools: what happens must not wait for the next

func TestALeaderMirrorsAllNamespaces(t *testing.T) {
	w := newWorld(t, found(1, "rbd", "p", "ns"), found(2, "vms", "p"))
	w.start(never)
	a, b := w.election(0), w.election(1)
	if a.pool != 1 {
		a, b = b, a
	}
	a.lead()
	b.told.Follows("client.7")
	b.told.Works(false, "rbd-mirror leads the pool")
	w.until("the pool's namespaces run", func() bool { return w.open["rbd"] == 1 && w.open["rbd/ns"] == 1 })
	if p := w.snapshot()["vms"]; p.LeaderID != "client.7" || !strings.Contains(p.Waits, "rbd-mirror leads") || p.Leader {
		t.Errorf("the pool that another daemon leads: %+v", p)
	}
	w.until("the service map says who leads", func() bool { return w.service[1].Leader && !w.service[2].Leader })
	a.lose(errors.New("lost"))
	w.until("both end", func() bool { return w.open["rbd"]+w.open["rbd/ns"] == 0 })
	w.until("the service map says so", func() bool { return !w.service[1].Leader })
	if w.made["vms"] != 0 || w.ready != 1 {
		t.Errorf("%d actors for the pool that another leads, ready %d times", w.made["vms"], w.ready)
	}
}

// Leadership that comes back while the actors still end: they start again at once.
func TestLeadershipThatFlickers(t *testing.T) {
	w := newWorld(t, found(1, "rbd", "p"))
	w.start(never)
	e := w.election(0)
	for n := 1; n <= 5; n++ {
		e.lead()
		w.until("it runs", func() bool { return w.made["rbd"] == n && w.open["rbd"] == 1 })
		e.lose(errors.New("lost"))
	}
	e.lead()
	w.until("it runs in the end", func() bool { return w.made["rbd"] == 6 && w.open["rbd"] == 1 })
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.most != 1 {
		t.Errorf("%d actors of one namespace at the same time", w.most)
	}
}

// What was prepared for leadership that is lost meanwhile is let go of again.
func TestLeadershipLostWhilePreparing(t *testing.T) {
	w := newWorld(t, found(1, "rbd", "p"))
	gate := make(chan struct{})
	w.newGate = gate
	w.start(never)
	e := w.election(0)
	e.lead()
	e.lose(errors.New("lost"))
	w.snapshot() // both were handled
	close(gate)
	w.until("it was made and released", func() bool { return w.made["rbd"] == 1 && w.open["rbd"] == 0 })
	w.locked(func() { w.newGate = nil })
	e.lead()
	w.until("it runs", w.runs("rbd"))
}

// A pool whose mirroring is disabled and enabled again: the new competition begins when
// the old one has ended, and what the old one still tells does not count.
func TestAStaleElectionDoesNotCount(t *testing.T) {
	w := newWorld(t, found(1, "rbd", "p"))
	w.start(10 * time.Millisecond)
	old := w.election(0)
	hold := make(chan struct{})
	w.locked(func() { old.hold = hold })
	old.lead()
	w.until("it runs", w.runs("rbd"))
	w.locked(func() { w.pools = nil })
	w.until("it ends", w.gone("rbd"))
	<-old.ctx.Done()
	w.locked(func() { w.pools = []Found{found(1, "rbd", "p")} })
	time.Sleep(100 * time.Millisecond) // several looks: nothing must happen, so there is nothing to wait for
	w.mu.Lock()
	if len(w.elections) != 1 || w.open["rbd"] != 0 {
		t.Errorf("%d competitions and %d actors while the old one has not ended", len(w.elections), w.open["rbd"])
	}
	w.mu.Unlock()
	close(hold)
	e := w.election(1)
	e.lead()
	w.until("it runs again", w.runs("rbd"))
	old.lose(errors.New("late"))
	w.snapshot()
	if p := w.snapshot()["rbd"]; !p.Leader {
		t.Errorf("a stale loss ended the reign: %+v", p)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open["rbd"] != 1 || w.made["rbd"] != 2 {
		t.Errorf("%d actors, %d made", w.open["rbd"], w.made["rbd"])
	}
}

// Another peer: its actor starts when that of the old peer has let go of the images.
func TestAnotherPeerTakesTurns(t *testing.T) {
	w := newWorld(t, found(1, "rbd", "p1"))
	w.images["rbd"] = []string{"i"}
	w.start(5 * time.Millisecond)
	w.election(0).lead()
	w.until("it runs", w.runs("rbd"))
	for n := 2; n <= 6; n++ {
		w.locked(func() { w.pools = []Found{found(1, "rbd", fmt.Sprint("p", n))} })
		w.until("the new peer's runs", func() bool { return w.made["rbd"] == n && w.open["rbd"] == 1 })
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.most != 1 {
		t.Errorf("%d actors of one namespace at the same time", w.most)
	}
}

// A pool's actor that panics comes back after a moment, knows why, and touches no other.
func TestAPanicOfAPoolRestartsIt(t *testing.T) {
	w := newWorld(t, found(1, "rbd", "p"), found(2, "vms", "p"))
	w.images["rbd"], w.images["vms"] = []string{"i"}, []string{"j"}
	w.crash["rbd"] = true
	w.start(never)
	w.election(0).lead()
	w.election(1).lead()
	w.until("both run, one again", func() bool {
		return w.made["rbd"] == 2 && w.open["rbd"] == 1 && w.open["vms"] == 1 && w.pasts["rbd"].Restarts == 1
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	if c := w.pasts["rbd"].LastCause; c == nil || c.Why != report.WhyPanic || !strings.Contains(c.Text, "injected into rbd") {
		t.Errorf("the cause is %+v", c)
	}
	if w.made["vms"] != 1 || len(w.fenced) > 0 {
		t.Errorf("the other pool: made %d times; fenced %v", w.made["vms"], w.fenced)
	}
}

// A list of pools that cannot be read says nothing: what runs goes on.
func TestAnUnreadableListEndsNothing(t *testing.T) {
	w := newWorld(t, found(1, "rbd", "p"), found(2, "vms", "p"))
	w.start(5 * time.Millisecond)
	w.election(0).lead()
	w.election(1).lead()
	w.until("both run", func() bool { return w.open["rbd"] == 1 && w.open["vms"] == 1 })
	unreadable := found(1, "rbd", "")
	unreadable.Err = errors.New("no answer")
	w.locked(func() { w.pools, w.findErr = nil, errors.New("no answer") })
	time.Sleep(50 * time.Millisecond)
	w.locked(func() { w.pools, w.findErr = []Found{unreadable, found(2, "vms", "p")}, nil })
	time.Sleep(50 * time.Millisecond)
	w.mu.Lock()
	if w.made["rbd"] != 1 || w.open["rbd"] != 1 || w.open["vms"] != 1 {
		t.Errorf("an unreadable list ended something: %v, made %v", w.open, w.made)
	}
	w.pools = []Found{found(2, "vms", "p")}
	w.mu.Unlock()
	w.until("the vanished pool ends", w.gone("rbd"))
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open["vms"] != 1 || w.made["vms"] != 1 {
		t.Error("the other pool was touched")
	}
}

// A pool without a peer has no actor, and says what is missing.
func TestAPoolWithoutAPeer(t *testing.T) {
	w := newWorld(t, found(1, "rbd", "p"))
	w.start(5 * time.Millisecond)
	w.election(0).lead()
	w.until("it runs", w.runs("rbd"))
	w.locked(func() { w.pools = []Found{found(1, "rbd", "")} })
	w.until("it ends", w.gone("rbd"))
	if p := w.snapshot()["rbd"]; !strings.Contains(p.Waits, "no peer") {
		t.Errorf("%+v", p)
	}
	w.locked(func() { w.pools = []Found{found(1, "rbd", "p")} })
	w.until("it runs again", w.runs("rbd"))
}

// NewPool that fails is tried again at the next look, and the reason is told.
func TestAPoolThatCannotBePrepared(t *testing.T) {
	w := newWorld(t, found(1, "rbd", "p"))
	w.newErr = errors.New("no such key")
	w.start(5 * time.Millisecond)
	w.election(0).lead()
	w.until("the service map says so", func() bool {
		return len(w.service[1].Callouts) > 0 && strings.Contains(fmt.Sprint(w.service[1].Callouts), "no such key")
	})
	w.locked(func() { w.newErr = nil })
	w.until("it runs", w.runs("rbd"))
}

// Whoever finds out that this process may write no more: the worker hears of it.
func TestFencedFromEverywhere(t *testing.T) {
	fenced := func(w *world) func() bool { return func() bool { return len(w.fenced) > 0 } }
	t.Run("an election", func(t *testing.T) {
		w := newWorld(t, found(1, "rbd", "p"))
		w.start(never)
		w.election(0).told.Fenced(rados.Blocklisted)
		w.until("fenced", fenced(w))
	})
	t.Run("an image", func(t *testing.T) {
		w := newWorld(t, found(1, "rbd", "p"))
		w.images["rbd"] = []string{"i"}
		w.start(never)
		w.election(0).lead()
		w.until("the image runs", func() bool { return w.open["rbd"] == 1 })
		w.until("fenced", func() bool {
			w.system.Root.Send(w.pid, Command{Pool: "rbd", Message: messages.RestartImage{}})
			return len(w.fenced) > 0
		})
	})
	t.Run("a panic of the site itself", func(t *testing.T) {
		w := newWorld(t, found(1, "rbd", "p"))
		w.panics = "ready"
		w.start(never)
		w.until("fenced", fenced(w))
		w.mu.Lock()
		defer w.mu.Unlock()
		var p *PanicError
		if !errors.As(w.fenced[0], &p) || p.Value != "injected" || !strings.Contains(p.Stack, "goroutine") {
			t.Errorf("the worker ends for %v", w.fenced)
		}
	})
}

// Stop ends everything and is answered, whatever the site is doing.
func TestStopInEveryState(t *testing.T) {
	for name, reach := range map[string]func(w *world){
		"looking for pools": func(w *world) {
			gate := make(chan struct{})
			w.findGate = gate
			w.start(never)
			time.AfterFunc(50*time.Millisecond, func() { close(gate) })
		},
		"following": func(w *world) {
			w.start(never)
			w.election(0).told.Follows("client.7")
		},
		"competing": func(w *world) {
			w.start(never)
			w.election(0)
		},
		"preparing": func(w *world) {
			gate := make(chan struct{})
			w.newGate = gate
			w.start(never)
			w.election(0).lead()
			w.snapshot()
			time.AfterFunc(50*time.Millisecond, func() { close(gate) })
		},
		"leading": func(w *world) {
			w.images["rbd"] = []string{"i", "j"}
			w.start(never)
			w.election(0).lead()
			w.until("it runs", w.runs("rbd"))
		},
		"losing": func(w *world) {
			w.images["rbd"] = []string{"i", "j"}
			w.start(never)
			e := w.election(0)
			e.lead()
			w.until("it runs", w.runs("rbd"))
			e.lose(errors.New("lost"))
		},
		"waiting for a crashed pool": func(w *world) {
			w.images["rbd"], w.crash["rbd"] = []string{"i"}, true
			w.start(never)
			w.election(0).lead()
			w.until("it has crashed", func() bool { return w.made["rbd"] == 1 && w.open["rbd"] == 0 })
		},
		"after the pool has vanished": func(w *world) {
			w.start(5 * time.Millisecond)
			w.election(0).lead()
			w.until("it runs", w.runs("rbd"))
			w.locked(func() { w.pools = nil })
			<-w.election(0).ctx.Done()
		},
		"without pools": func(w *world) {
			w.pools = nil
			w.start(never)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, found(1, "rbd", "p"))
			reach(w)
			if _, err := w.system.Root.RequestFuture(w.pid, Stop{}, 10*time.Second).Result(); err != nil {
				t.Fatal("not answered:", err)
			}
			w.until("everything was let go", func() bool {
				for _, e := range w.elections {
					if !e.over {
						return false
					}
				}
				return w.open["rbd"] == 0
			})
			time.Sleep(20 * time.Millisecond) // nothing must start any more, so there is nothing to wait for
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.open["rbd"] != 0 || len(w.fenced) > 0 {
				t.Errorf("after the stop: %v, fenced %v", w.open, w.fenced)
			}
		})
	}
}

// The service map's counts: what rbd-mirror counts as an error or as a warning.
func TestCounts(t *testing.T) {
	var images []report.Image
	for _, state := range []string{"replaying", "replaying", "stopped", "stopping_replay", "error", "unknown", "syncing", "starting_replay"} {
		images = append(images, report.Image{State: state, LocalID: "l"})
	}
	images[0].RemoteID = "r"
	c := count(report.Pool{Images: images})
	got := fmt.Sprint(*c.Assigned, *c.Error, *c.Warning, *c.Local, *c.Remote)
	if got != "8 1 3 8 1" {
		t.Errorf("assigned, error, warning, local, remote: %s", got)
	}
}
