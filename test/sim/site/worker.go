package site

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/cluster/coordinator"
	"github.com/rbdwarden/rbdwarden/cluster/identity"
	"github.com/rbdwarden/rbdwarden/cluster/membership"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/mem"
)

// seat is a place for a worker: what its daemon keeps filled.
type seat struct {
	number, host, index int
	siblings            int
	worker              *worker   // the newest; nil before the first
	empty               bool      // its daemon is gone
	due                 time.Time // when the next one is to start
	lives               int
}

// worker is one life of a worker process.
type worker struct {
	*coordinator.Coordinator
	site     *site
	seat     *seat
	life     uint64 // counts all workers of the run
	identity string
	client   *mem.Client
	conn     *conn
	io       map[string]rados.IOContext
	stop     context.CancelFunc
	gone     chan struct{} // closed when it is dead
	ended    chan struct{} // closed when all that ran in it has ended
	inbox    chan func()
	actors   sync.WaitGroup

	mu       sync.Mutex
	frozen   chan struct{} // closed when it goes on; nil: it runs
	dead     bool
	refused  bool          // by the blocklist, and knows it
	struck   bool          // off the members, by hand
	leaving  bool          // in order
	orderly  bool          // it has ended so
	away     time.Time     // since when it does not answer
	cut      part          // what it cannot reach
	healed   chan struct{} // closed when it can
	forgot   func()        // tells it that its watches are gone
	troubled time.Time     // when something was last wrong between it and the cluster
	leads    bool
	works    bool
	view     membership.View

	// Only the goroutine that serves the inbox uses what follows; to look from outside, ask it.
	shares map[string]*coordinator.Share
	ids    []string // as listed; the same in each namespace
	owners map[key]*owner
	told   map[string]uint64 // epoch applied
}

// key is an image.
type key struct{ namespace, id string }

func (k key) String() string {
	if k.namespace == "" {
		return k.id
	}
	return k.namespace + "/" + k.id
}

func (w *worker) String() string { return fmt.Sprintf("worker %d.%d", w.seat.number, w.life) }

// start starts a worker in a seat.
func (s *site) start(at *seat) *worker {
	s.lives++
	at.lives++
	w := &worker{
		site: s, seat: at, life: s.lives, client: s.store.Connect(), io: map[string]rados.IOContext{},
		gone: make(chan struct{}), ended: make(chan struct{}), inbox: make(chan func(), 10000),
		identity: identity.Identity{Boot: fmt.Sprint("host", at.host), PIDNS: "pid:[1]", PID: int(s.lives), Start: s.lives}.String(),
		shares:   map[string]*coordinator.Share{}, owners: map[key]*owner{}, told: map[string]uint64{}, troubled: time.Now(),
	}
	w.conn = &conn{w.client, w}
	s.faults.with(func() { s.faults.whose[w.client] = w })
	for _, ns := range s.set.namespaces {
		w.io[ns] = s.must(w.conn.Open(s.ctx, poolName, ns))
	}
	logger := zerolog.Nop()
	if s.trace.Verbose() {
		logger = zerolog.New(s.trace.Log(w.String())).Level(zerolog.DebugLevel)
	}
	host, daemon := fmt.Sprint("host", at.host), at.host+1
	now := func() time.Time { return time.Now().Add(s.skewOf(at.host)) }
	w.Coordinator = coordinator.New(coordinator.Options{
		Open: func(ctx context.Context, namespace string) (rados.IOContext, error) {
			return w.conn.Open(ctx, poolName, namespace)
		},
		Self: membership.Member{
			Host: host, Identity: w.identity, Seat: coordinator.Seat(host, daemon, at.index), Index: at.index, Started: now(),
		},
		Siblings: at.siblings, KnownDead: w.knownDead, AwaitDeath: w.awaitDeath, Heartbeat: 5 * time.Second, Placement: s.set.placement, Now: now,
		Changed: func(v membership.View) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.view = v
		},
		Log: logger,
	})
	s.mu.Lock()
	s.workers = append(s.workers, w)
	s.mu.Unlock()
	at.worker = w
	s.trace.Add("%s starts on host %d", w, at.host)
	w.Namespaces(s.set.namespaces)
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	var all sync.WaitGroup
	all.Go(func() {
		w.Run(ctx, w.tells())
		w.left()
	})
	all.Go(w.serve)
	all.Go(w.list)
	go func() {
		all.Wait()
		w.actors.Wait()
		close(w.ended)
	}()
	return w
}

// knownDead is what can be seen from the worker's host.
func (w *worker) knownDead(description string) bool {
	if !w.neighbour(description) {
		return false
	}
	w.site.mu.Lock()
	defer w.site.mu.Unlock()
	return w.site.ended[description]
}

// neighbour tells whether a process is of the worker's host.
func (w *worker) neighbour(description string) bool {
	return strings.HasPrefix(description, w.identity[:strings.Index(w.identity, " pid=")])
}

// awaitDeath is what a pidfd does.
func (w *worker) awaitDeath(description string, gone func()) (stop func(), waits bool) {
	if !w.neighbour(description) {
		return func() {}, true
	}
	other := w.site.called(description)
	if other == nil || !w.site.set.pidfd {
		return nil, false
	}
	stopped := make(chan struct{})
	dice := w.site.faults.dice(w.life, "the end of "+description)
	w.site.pending.Go(func() {
		select {
		case <-stopped:
		case <-other.gone:
			if w.runs(dice) {
				gone()
			}
		}
	})
	return func() { close(stopped) }, true
}

func (w *worker) tells() coordinator.Told {
	locked := func(f func()) {
		w.mu.Lock()
		defer w.mu.Unlock()
		f()
	}
	return coordinator.Told{
		Works: func(works bool, why string) {
			w.site.trace.Add("%s works: %t %s", w, works, why)
			locked(func() { w.works = works })
			w.post(w.reconcile)
		},
		Leads: func() {
			w.site.trace.Add("%s leads", w)
			locked(func() { w.leads = true })
		},
		Lost: func(error) {
			locked(func() { w.leads = false })
		},
		Follows: func(string) {}, Trashed: func() {},
		Assigned: func(namespace string, share coordinator.Share) {
			w.post(func() { w.assigned(namespace, share) })
		},
		Fenced: func(error) { w.fenced() },
	}
}

// post hands something to the inbox, whose goroutine does one thing after the other.
func (w *worker) post(f func()) {
	if !w.isDead() {
		w.inbox <- f
	}
}

func (w *worker) serve() {
	rng := w.site.faults.dice(w.life, "inbox")
	for {
		select {
		case <-w.gone:
			return
		case f := <-w.inbox:
			if !w.runs(rng) { // also if both were ready
				return
			}
			f()
		}
	}
}

// list tells what is mirrored, as its pool's actor does.
func (w *worker) list() {
	rng := w.site.faults.dice(w.life, "list")
	for w.runs(rng) {
		ids := w.site.mirrored()
		complete := rng.IntN(4) > 0 // or the other site does not answer
		for _, ns := range w.site.set.namespaces {
			w.Listed(ns, ids, complete)
			w.Reaches(ns, w.site.hears(w.seat.host))
		}
		w.post(func() {
			w.ids = ids
			w.reconcile()
		})
		if !w.pause(time.Duration(float64(time.Second) * (0.5 + rng.Float64()))) {
			return
		}
	}
}

// pause sleeps; false if the worker died.
func (w *worker) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-w.gone:
		return false
	case <-t.C:
		return true
	}
}

// fenced is what a worker does that the cluster refuses: it ends.
func (w *worker) fenced() {
	w.mu.Lock()
	known := w.refused
	w.refused = true
	w.mu.Unlock()
	if known {
		return
	}
	w.site.trace.Add("%s knows that it is refused", w)
	w.post(func() { w.kill(0) })
}

func (w *worker) isStruck() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.struck
}

func (w *worker) isDead() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dead
}

// kill is SIGKILL: nothing more is sent. What was sent may land for a while.
func (w *worker) kill(linger time.Duration) {
	w.mu.Lock()
	if w.dead {
		w.mu.Unlock()
		return
	}
	w.dead, w.leads = true, false
	w.mu.Unlock()
	w.site.trace.Add("%s ends", w)
	w.site.hasEnded(w)
	close(w.gone)
	go func() {
		time.Sleep(linger)
		w.client.Crash()
		w.thaw()
		w.heal()
		w.stop()
	}()
}

// leave ends the worker in order, if that goes well soon.
func (w *worker) leave() {
	w.mu.Lock()
	was := w.leaving || w.dead
	w.leaving = true
	w.mu.Unlock()
	if was {
		return
	}
	w.site.trace.Add("%s is asked to end", w)
	w.Leaving()
	w.post(w.reconcile)
	w.site.later(20*time.Second, func() { w.kill(time.Millisecond) }) // its daemon does not wait for ever
}

// left is called when the worker takes part no longer: it has ended in order, or is dead.
func (w *worker) left() {
	w.mu.Lock()
	was := w.dead
	w.dead, w.leads = true, false
	w.orderly = !was
	w.mu.Unlock()
	if was {
		return
	}
	w.site.trace.Add("%s has ended in order", w)
	w.client.Close()
	w.site.hasEnded(w)
	close(w.gone)
}
