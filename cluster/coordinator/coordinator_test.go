package coordinator

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	cls "github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/cluster/identity"
	"github.com/rbdwarden/rbdwarden/cluster/imagemap"
	"github.com/rbdwarden/rbdwarden/cluster/membership"
	"github.com/rbdwarden/rbdwarden/cluster/placement"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/mem"
)

// site is a pool in memory whose images are shared by workers, in fake time.
type site struct {
	placement placement.Options
	t         *testing.T
	store     *mem.Store

	mu      sync.Mutex
	images  []string
	cut     map[*mem.Client]bool // who cannot reach the cluster
	gone    map[string]bool      // identities of processes that are known to be dead
	runs    map[string]*worker   // who runs an image
	lastRun map[string]*worker
	moved   map[string]int
	slow    time.Duration      // that an image takes to be let go
	blind   time.Duration      // that the newest worker takes to see the members; a third of it for all else
	loads   map[string]float64 // what running images takes; nil: nobody tells
	mute    *worker            // who does not tell
	all     []*worker
	pids    int
}

// worker is a member, with a stand-in for the actors that run its images.
type worker struct {
	*Coordinator
	s        *site
	name     string
	identity string
	client   *mem.Client
	stop     context.CancelFunc
	ended    chan struct{}
	dead     bool

	// guarded by site.mu
	leads, works bool
	why          string
	fenced       error
	share        map[string]struct{}
	trashed      int
}

func newSite(t *testing.T, images int) *site {
	s := &site{placement: placement.Defaults(), t: t, cut: map[*mem.Client]bool{}, gone: map[string]bool{}, runs: map[string]*worker{}, lastRun: map[string]*worker{},
		moved: map[string]int{}, slow: 50 * time.Millisecond,
	}
	s.store = mem.New(mem.Options{Faults: mem.FaultFunc(s.judge)})
	s.store.AddPool("rbd")
	for n := range images {
		s.images = append(s.images, fmt.Sprintf("image-%03d", n))
	}
	return s
}

func (s *site) judge(op mem.Op) mem.Verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cut[op.Client] {
		return mem.Verdict{Delay: time.Second, Fail: syscall.ETIMEDOUT}
	}
	if s.blind > 0 && s.all[len(s.all)-1].client == op.Client && op.Kind == mem.Read {
		if op.Object == membership.Object {
			return mem.Verdict{Delay: s.blind}
		}
		return mem.Verdict{Delay: s.blind / 3}
	}
	return mem.Verdict{Delay: time.Millisecond}
}

// start starts a worker of a daemon that has so many.
func (s *site) start(daemon, index, of int) *worker {
	s.mu.Lock()
	s.pids++
	id := identity.Identity{Boot: "b", PIDNS: "n", PID: s.pids, Start: 1}.String()
	s.mu.Unlock()
	client := s.store.Connect()
	ctx, stop := context.WithCancel(context.Background())
	w := &worker{
		s: s, name: fmt.Sprintf("%d/%d#%d", daemon, index, s.pids), identity: id, client: client, stop: stop, ended: make(chan struct{}),
		share: map[string]struct{}{},
	}
	w.Coordinator = New(Options{
		Open: func(ctx context.Context, namespace string) (rados.IOContext, error) {
			return client.Open(ctx, "rbd", namespace)
		},
		Self: membership.Member{
			Host: fmt.Sprint("host", daemon), Identity: id, Seat: Seat(fmt.Sprint("host", daemon), daemon, index), Index: index, Started: time.Now(),
		},
		Loads:    func(_ context.Context, members []string) map[string]Loads { return s.loadsOf(members) },
		Siblings: of, Heartbeat: 5 * time.Second, Placement: s.placement, Log: zerolog.Nop(),
		KnownDead: func(description string) bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.gone[description]
		},
	})
	s.mu.Lock()
	s.all = append(s.all, w)
	s.mu.Unlock()
	w.Namespaces([]string{"", "ns"})
	go func() {
		defer close(w.ended)
		w.Run(ctx, w.told())
	}()
	go func() { // the lists of its actors
		for {
			s.mu.Lock()
			images, dead := slices.Clone(s.images), w.dead
			s.mu.Unlock()
			if dead || ctx.Err() != nil {
				return
			}
			w.Listed("", images, true)
			w.Listed("ns", []string{"other"}, true)
			time.Sleep(time.Second)
		}
	}()
	return w
}

func (w *worker) told() Told {
	locked := func(f func()) {
		w.s.mu.Lock()
		defer w.s.mu.Unlock()
		f()
	}
	return Told{
		Works:    func(works bool, why string) { locked(func() { w.works, w.why = works, why }) },
		Leads:    func() { locked(func() { w.leads = true }) },
		Lost:     func(error) { locked(func() { w.leads = false }) },
		Follows:  func(string) {},
		Trashed:  func() { locked(func() { w.trashed++ }) },
		Fenced:   func(err error) { locked(func() { w.fenced = err }); w.die() },
		Assigned: func(namespace string, share Share) { go w.assigned(namespace, share) },
	}
}

// assigned does as the actors do: lets go, which takes a while, says so, begins.
func (w *worker) assigned(namespace string, share Share) {
	if namespace != "" {
		w.Applied(namespace, share.Epoch)
		return
	}
	s := w.s
	s.mu.Lock()
	slow := s.slow
	for id, owner := range s.runs {
		if _, ours := share.Run[id]; owner == w && !ours {
			defer func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				if s.runs[id] == w {
					delete(s.runs, id)
				}
			}()
		}
	}
	w.share = share.Run
	for id := range share.Run {
		if w.dead {
			break
		}
		if other := s.runs[id]; other != nil && other != w && !other.dead {
			s.t.Errorf("%s begins with %s, which %s runs", w.name, id, other.name)
		}
		if last := s.lastRun[id]; last != w {
			s.lastRun[id], s.moved[id] = w, s.moved[id]+1
		}
		s.runs[id] = w
	}
	s.mu.Unlock()
	time.AfterFunc(slow, func() { w.Applied(namespace, share.Epoch) })
	time.Sleep(slow - time.Millisecond)
}

// kill ends a worker as kill -9 does. noticed: those on its host know at once.
func (w *worker) kill(noticed bool) {
	w.s.mu.Lock()
	w.s.cut[w.client] = true
	w.s.gone[w.identity] = noticed
	w.s.mu.Unlock()
	w.die()
	w.client.Crash()
}

func (w *worker) die() {
	w.s.mu.Lock()
	w.dead = true
	for id, owner := range w.s.runs {
		if owner == w {
			delete(w.s.runs, id)
		}
	}
	w.s.mu.Unlock()
	w.stop()
}

// leave ends a worker in order.
func (w *worker) leave() {
	w.Leaving()
	w.s.mu.Lock()
	w.dead = true // its actors let go of everything
	for id, owner := range w.s.runs {
		if owner == w {
			delete(w.s.runs, id)
		}
	}
	w.s.mu.Unlock()
	w.stop()
	<-w.ended
}

// counts are the images that each living worker runs; "" are those that nobody does.
func (s *site) counts() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := map[string]int{}
	for _, w := range s.all {
		if !w.dead {
			n[w.name] = 0
		}
	}
	for _, id := range s.images {
		if w := s.runs[id]; w != nil && !w.dead {
			n[w.name]++
		} else {
			n[""]++
		}
	}
	return n
}

// settledWithin waits until all images are run, evenly, and tells how long that took.
func (s *site) settledWithin(d time.Duration, even bool) time.Duration {
	s.t.Helper()
	began := time.Now()
	for {
		n := s.counts()
		none := n[""]
		delete(n, "")
		least, most := len(s.images), 0
		for _, c := range n {
			least, most = min(least, c), max(most, c)
		}
		if none == 0 && len(n) > 0 && (!even || most-least <= 1) {
			return time.Since(began)
		}
		if time.Since(began) > d {
			s.t.Fatalf("after %v: %v, and %d run by nobody", d, n, none)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// leaders are the workers that lead, if their locks hold.
func (s *site) leaders() (all []*worker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.all {
		if w.leads && !w.dead {
			all = append(all, w)
		}
	}
	return all
}

func (s *site) movedSoFar() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.moved)
}

// givesAway notes who runs what before a worker gives all away. The result asserts that it has done so, with the
// leadership, that everything is run, and that what was others' has not moved.
func (s *site) givesAway(w *worker) (assert func()) {
	before, others := s.movedSoFar(), map[string]bool{}
	s.mu.Lock()
	for id, owner := range s.runs {
		others[id] = owner != w
	}
	s.mu.Unlock()
	return func() {
		s.t.Helper()
		for id, n := range s.movedSoFar() {
			if others[id] && n != before[id] {
				s.t.Errorf("%s moved, though it was another's", id)
			}
		}
		if l := s.leaders(); len(l) != 1 || l[0] == w {
			s.t.Errorf("leaders: %d, and it leads: %v", len(l), w.leads)
		}
		if n := s.counts(); n[w.name] != 0 || n[""] != 0 {
			s.t.Errorf("%v", n)
		}
	}
}

func run(t *testing.T, images int, story func(s *site)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, images)
		story(s)
		for _, w := range s.all {
			w.die()
			<-w.ended
		}
		time.Sleep(time.Minute)
	})
}

// The workers of a daemon start together: each image is begun with once.
func TestWorkersShareTheImages(t *testing.T) {
	run(t, 11, func(s *site) {
		s.start(1, 0, 3)
		time.Sleep(300 * time.Millisecond)
		s.start(1, 1, 3)
		s.start(1, 2, 3)
		s.settledWithin(5*time.Second, true)
		time.Sleep(time.Minute)
		for id, n := range s.movedSoFar() {
			if n != 1 {
				t.Errorf("%s was begun with %d times", id, n)
			}
		}
		if l := s.leaders(); len(l) != 1 {
			t.Errorf("%d lead", len(l))
		}
	})
}

// TestWhoHasSeenNobodyWaits: a new member has joined, so it is given images at once, and reads the
// map before it has read who else is a member. It waits for them all the same; assigned sees to that.
func TestWhoHasSeenNobodyWaits(t *testing.T) {
	run(t, 12, func(s *site) {
		s.start(1, 0, 1)
		s.settledWithin(5*time.Second, true)
		s.mu.Lock()
		s.blind, s.slow = 300*time.Millisecond, 2*time.Second
		s.mu.Unlock()
		s.start(2, 0, 1)
		s.settledWithin(10*time.Second, true)
	})
}

// A worker is killed and started again: its images go to its successor, and nobody else's move.
func TestAHeirInherits(t *testing.T) {
	for _, leader := range []bool{false, true} {
		run(t, 20, func(s *site) {
			a, b := s.start(1, 0, 2), s.start(1, 1, 2)
			s.settledWithin(5*time.Second, true)
			victim, index := a, 0
			if s.leaders()[0] == a != leader {
				victim, index = b, 1
			}
			other := map[*worker]*worker{a: b, b: a}[victim]
			s.mu.Lock()
			before := maps.Clone(other.share)
			s.mu.Unlock()
			victim.kill(true)
			time.Sleep(300 * time.Millisecond)
			s.start(1, index, 2)
			took := s.settledWithin(5*time.Second, true)
			t.Logf("leader %t: all run again after %v", leader, took+300*time.Millisecond)
			s.mu.Lock()
			defer s.mu.Unlock()
			if !maps.Equal(before, other.share) || other.fenced != nil {
				t.Errorf("the other worker's share changed: %v, before %v; fenced: %v", other.share, before, other.fenced)
			}
		})
	}
}

// A host dies, and nobody can see its processes: the others have its images within seconds.
func TestAHostDies(t *testing.T) {
	run(t, 30, func(s *site) {
		for d := range 3 {
			s.start(d, 0, 2)
			s.start(d, 1, 2)
		}
		s.settledWithin(5*time.Second, true)
		time.Sleep(10 * time.Second)
		before := s.movedSoFar()
		s.all[0].kill(false)
		s.all[1].kill(false)
		took := s.settledWithin(6*time.Second, false)
		t.Logf("all run again after %v", took)
		moved := 0
		for id, n := range s.movedSoFar() {
			moved += n - before[id]
		}
		if moved != 10 {
			t.Errorf("%d images moved, 10 had to", moved)
		}
		if n := len(s.store.Blocklisted()); n != 2 {
			t.Errorf("%d clients are blocklisted", n)
		}
	})
}

// Workers that end in order leave no blocklist entry, and their images go on elsewhere.
func TestALeaveHandsOver(t *testing.T) {
	run(t, 12, func(s *site) {
		s.start(1, 0, 1)
		s.start(2, 0, 1)
		s.settledWithin(5*time.Second, true)
		s.leaders()[0].leave()
		took := s.settledWithin(5*time.Second, true)
		t.Logf("all run again after %v", took)
		if n := len(s.store.Blocklisted()); n != 0 {
			t.Errorf("%d clients are blocklisted", n)
		}
	})
}

// A member that cannot reach the cluster for long is fenced, learns it, and its images are
// run by others, never by two at a time: those that it goes on to run without knowing are
// its lock's to guard, which this test has not; it checks that it stops when it knows.
func TestACutOffMemberEnds(t *testing.T) {
	run(t, 12, func(s *site) {
		a := s.start(1, 0, 1)
		s.start(2, 0, 1)
		s.start(3, 0, 1)
		s.settledWithin(10*time.Second, true)
		s.mu.Lock()
		s.cut[a.client] = true
		for id, w := range s.runs { // what it runs now is for its locks to guard
			if w == a {
				delete(s.runs, id)
			}
		}
		s.mu.Unlock()
		time.Sleep(20 * time.Second)
		s.mu.Lock()
		s.cut[a.client] = false
		s.mu.Unlock()
		time.Sleep(5 * time.Second)
		s.mu.Lock()
		fenced := a.fenced
		s.mu.Unlock()
		if fenced == nil {
			t.Error("it was fenced, and does not know")
		}
		s.settledWithin(5*time.Second, false)
	})
}

// An rbd-mirror leads: we stand by, and take over when it has gone.
func TestAnRBDMirrorLeads(t *testing.T) {
	run(t, 6, func(s *site) {
		client := s.store.Connect()
		io, err := client.Open(context.Background(), "rbd", "")
		if err != nil {
			t.Fatal(err)
		}
		var create rados.WriteOp
		create.Create(false)
		if err := io.Write(context.Background(), imagemap.Object, &create); err != nil {
			t.Fatal(err)
		}
		watch, err := io.Watch(context.Background(), imagemap.Object, 0, deaf{})
		if err != nil {
			t.Fatal(err)
		}
		cookie := cls.RBDCookie(watch.Cookie())
		if err := rados.Tell(context.Background(), io, imagemap.Object, cls.Lock(cls.Request{
			Name: cls.RBDName, Type: cls.Exclusive, Cookie: cookie, Tag: cls.RBDTag,
		})); err != nil {
			t.Fatal(err)
		}
		w := s.start(1, 0, 1)
		time.Sleep(20 * time.Second)
		s.mu.Lock()
		if w.works || len(s.runs) > 0 || !strings.Contains(w.why, "no rbd-warden") {
			t.Errorf("works %t (%s), %d run", w.works, w.why, len(s.runs))
		}
		s.mu.Unlock()
		if err := rados.Tell(context.Background(), io, imagemap.Object, cls.Unlock(cls.RBDName, cookie)); err != nil {
			t.Fatal(err)
		}
		if err := watch.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		s.settledWithin(20*time.Second, true)
		client.Close()
	})
}

type deaf struct{}

func (deaf) Notified(n rados.Notification) { n.Ack(nil) }
func (deaf) WatchLost(error)               {}

// Whatever dies, leaves and joins: no image is begun with while another worker runs it, and in the
// end all are run, evenly.
func TestMembersAtRandom(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			run(t, 17, func(s *site) {
				random := rand.New(rand.NewPCG(seed, 1))
				seats := map[[2]int]*worker{}
				for range 40 {
					seat := [2]int{random.IntN(3), random.IntN(2)}
					w := seats[seat]
					switch {
					case w == nil || w.isDead():
						seats[seat] = s.start(seat[0], seat[1], 2)
					case random.IntN(3) == 0:
						w.leave()
					case random.IntN(3) == 0:
						w.kill(false)
					case random.IntN(3) == 0:
						w.Release()
					default:
						w.kill(true)
					}
					s.mu.Lock()
					s.slow = time.Duration(1+random.IntN(3000)) * time.Millisecond
					s.mu.Unlock()
					time.Sleep(time.Duration(random.IntN(4000)) * time.Millisecond)
				}
				for d := range 3 {
					if w := seats[[2]int{d, 0}]; w == nil || w.isDead() {
						s.start(d, 0, 2)
					}
				}
				s.settledWithin(time.Minute, false)
				s.settledWithin(15*time.Minute, true) // what moved lately stays for a while
			})
		})
	}
}

func (w *worker) isDead() bool {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	return w.dead
}

// Something that is put into the trash is told to the leader, whoever put it there.
func TestTheLeaderHearsOfTheTrash(t *testing.T) {
	run(t, 2, func(s *site) {
		a, b := s.start(1, 0, 2), s.start(1, 1, 2)
		s.settledWithin(5*time.Second, true)
		a.Trashed()
		b.Trashed()
		time.Sleep(2 * time.Second)
		s.mu.Lock()
		defer s.mu.Unlock()
		if l := map[bool]*worker{true: a, false: b}[a.leads]; l.trashed != 2 || a.trashed+b.trashed != 2 {
			t.Errorf("heard %d and %d times", a.trashed, b.trashed)
		}
	})
}
