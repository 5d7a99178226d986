package site

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/mem"
	"github.com/rbdwarden/rbdwarden/test/sim/seed"
)

const poolName = "rbd"

// site is one run.
type site struct {
	t       *testing.T
	ctx     context.Context
	seed    uint64
	set     settings
	rng     *rand.Rand // of the story
	trace   *seed.Trace
	oracle  *oracle
	faults  *faults
	store   *mem.Store
	admin   map[string]rados.IOContext // by namespace; on it nothing goes wrong
	seats   []*seat
	lives   uint64
	pending sync.WaitGroup // what was put off

	mu      sync.Mutex
	workers []*worker // all that ever were
	images  []string
	born    int // images
	skew    map[int]time.Duration
	deaf    map[int]bool    // hosts that do not hear the primary's cluster
	ended   map[string]bool // identities of processes that have ended
	active  map[key][]*owner
	armed   []strike // for the next decisions
	over    bool     // the trouble
}

func newSite(t *testing.T, number uint64, set settings, verbose io.Writer) *site {
	s := &site{
		t: t, ctx: context.Background(), seed: number, set: set, rng: rand.New(rand.NewPCG(number, 2)),
		trace: seed.NewTrace(verbose), faults: newFaults(number + 1), admin: map[string]rados.IOContext{},
		skew: map[int]time.Duration{}, deaf: map[int]bool{}, ended: map[string]bool{}, active: map[key][]*owner{},
	}
	s.oracle = newOracle(s)
	s.store = mem.New(mem.Options{
		Faults: s.faults, Observe: s.oracle.observe, WatchTimeout: 30 * time.Second,
		Config: map[string]string{"rbd_blocklist_expire_seconds": "0"},
	})
	s.faults.struck = s.strikes
	s.store.AddPool(poolName)
	admin := s.store.Connect()
	for _, ns := range set.namespaces {
		s.admin[ns] = s.must(admin.Open(s.ctx, poolName, ns))
	}
	for range set.images {
		s.addImage()
	}
	hosts := make([]int, set.hosts)
	for n := range set.seats {
		host := n % set.hosts
		s.seats = append(s.seats, &seat{number: n, host: host, index: hosts[host]})
		hosts[host]++
	}
	for _, at := range s.seats {
		at.siblings = hosts[at.host]
	}
	return s
}

func (s *site) must(io rados.IOContext, err error) rados.IOContext {
	s.t.Helper()
	s.check(err)
	return io
}

func (s *site) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("seed %d: %v", s.seed, err)
	}
}

// addImage has one more image mirrored, in each namespace.
func (s *site) addImage() {
	s.mu.Lock()
	s.born++
	id := fmt.Sprintf("image-%02d", s.born)
	s.mu.Unlock()
	for _, ns := range s.set.namespaces {
		var create rados.WriteOp
		create.Create(false)
		s.check(s.admin[ns].Write(s.ctx, headerPrefix+id, &create))
	}
	s.mu.Lock()
	s.images = append(s.images, id)
	s.mu.Unlock()
}

func (s *site) removeImage(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.images = slices.Delete(slices.Clone(s.images), n, n+1)
}

// mirrored are the images that are to be run.
func (s *site) mirrored() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.images)
}

func (s *site) hears(host int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.deaf[host]
}

func (s *site) skewOf(host int) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.skew[host]
}

// runs notes who runs an image, from the moment that it begins until it has let go.
func (s *site) runs(o *owner, runs bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if runs {
		s.active[o.key] = append(slices.Clone(s.active[o.key]), o)
		return
	}
	s.active[o.key] = slices.DeleteFunc(slices.Clone(s.active[o.key]), func(x *owner) bool { return x == o })
}

// running are those who run an image.
func (s *site) running(k key) []*owner {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.active[k]
}

// hasEnded notes that a worker's process is gone.
func (s *site) hasEnded(w *worker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended[w.identity] = true
}

// called is the worker with an identity.
func (s *site) called(identity string) *worker {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.workers {
		if w.identity == identity {
			return w
		}
	}
	return nil
}

// byID is the worker with an instance id.
func (s *site) byID(id string) *worker {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.workers {
		if strconv.FormatUint(w.client.InstanceID(), 10) == id {
			return w
		}
	}
	return nil
}

// at is the worker with an address.
func (s *site) at(address string) *worker {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.workers {
		if w.client.Addresses() == address {
			return w
		}
	}
	return nil
}

// alive are the workers that have not ended, in order of their seats.
func (s *site) alive() (all []*worker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.workers {
		if !w.isDead() {
			all = append(all, w)
		}
	}
	return all
}

// later does something when so much time has passed.
func (s *site) later(d time.Duration, f func()) {
	s.pending.Go(func() {
		time.Sleep(d)
		f()
	})
}

// sleep lets time pass, and does what daemons and clusters do meanwhile.
func (s *site) sleep(d time.Duration) {
	const step = 37 * time.Millisecond
	for end := time.Now().Add(d); time.Until(end) > 0; {
		time.Sleep(min(step, time.Until(end)))
		s.tend()
	}
}

// tend fills the seats whose worker has ended, after a while, and forgets watches.
func (s *site) tend() {
	for _, at := range s.seats {
		switch w := at.worker; {
		case at.empty:
		case w != nil && !w.isDead():
			w.forget()
		case at.due.IsZero():
			at.due = time.Now().Add(time.Duration(1 + s.dice(at, "restart").Int64N(int64(3*time.Second))))
		case time.Now().After(at.due):
			at.due = time.Time{}
			s.start(at)
		}
	}
}

// dice are those of a seat's present worker.
func (s *site) dice(at *seat, what string) *rand.Rand {
	return s.faults.dice(uint64(at.lives)<<8|uint64(at.number), what)
}
