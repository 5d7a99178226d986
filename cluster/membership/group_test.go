package membership

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/mem"
)

// site is a pool in memory with members, in fake time.
type site struct {
	t     *testing.T
	store *mem.Store

	mu    sync.Mutex
	cut   map[*mem.Client]bool     // who cannot reach the cluster
	stall chan struct{}            // if not nil, nobody can, until it is closed
	gone  map[string]bool          // identities of processes that are known to be dead
	fault func(mem.Op) mem.Verdict // more trouble
	ops   int
	all   []*process
}

// process is one member.
type process struct {
	*Group
	name   string
	client *mem.Client
	io     rados.IOContext
	stop   context.CancelFunc
	ended  chan struct{}
	err    error // of Run, when it has ended

	mu    sync.Mutex
	views []View
	at    []time.Time // of the views
	heard []string
	lost  []error
	slow  time.Duration // that it takes to hear
}

func newSite(t *testing.T) *site {
	s := &site{t: t, cut: map[*mem.Client]bool{}, gone: map[string]bool{}}
	s.store = mem.New(mem.Options{Faults: mem.FaultFunc(s.judge)})
	s.store.AddPool("rbd")
	return s
}

func (s *site) judge(op mem.Op) mem.Verdict {
	s.mu.Lock()
	s.ops++
	cut, stall, fault := s.cut[op.Client], s.stall, s.fault
	s.mu.Unlock()
	if fault != nil {
		if v := fault(op); v != (mem.Verdict{}) {
			return v
		}
	}
	if cut {
		return mem.Verdict{Delay: time.Second, Fail: syscall.ETIMEDOUT}
	}
	if stall != nil {
		<-stall
	}
	return mem.Verdict{Delay: time.Millisecond}
}

// start starts a member.
func (s *site) start(name string) *process {
	s.t.Helper()
	client := s.store.Connect()
	io, err := client.Open(context.Background(), "rbd", "")
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &process{name: name, client: client, io: io, stop: stop, ended: make(chan struct{})}
	p.Group = New(io, Options{
		Self: Member{Host: "h-" + name, Identity: name, Seat: "seat-" + name, Index: 7, Extra: map[string]string{"k": name}},
		KnownDead: func(identity string) bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.gone[identity]
		},
		Changed: func(v View) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.views, p.at = append(p.views, v), append(p.at, time.Now())
		},
		Notified: func(b []byte) {
			p.mu.Lock()
			slow := p.slow
			p.mu.Unlock()
			time.Sleep(slow)
			p.mu.Lock()
			defer p.mu.Unlock()
			p.heard = append(p.heard, string(b))
		},
		Lost: func(err error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.Valid() {
				s.t.Errorf("%s is lost and valid", name)
			}
			p.lost = append(p.lost, err)
		},
		Log: zerolog.Nop(),
	})
	s.all = append(s.all, p)
	go func() {
		defer close(p.ended)
		p.err = p.Run(ctx)
	}()
	return p
}

func (s *site) with(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// end stops all and waits for what crashed clients have left behind.
func (s *site) end() {
	for _, p := range s.all {
		p.stop()
		<-p.ended
	}
	time.Sleep(time.Minute)
}

func run(t *testing.T, story func(s *site)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		story(s)
		s.end()
	})
}

// living are the names of those whom p takes for living.
func (p *process) living() string {
	var names []string
	for _, m := range p.View().Members {
		names = append(names, m.Identity)
	}
	return fmt.Sprint(names)
}

func (s *site) assertLiving(p *process, want ...string) {
	s.t.Helper()
	if want == nil {
		want = []string{}
	}
	if got := p.living(); got != fmt.Sprint(want) {
		s.t.Fatalf("%s sees %s, want %v", p.name, got, want)
	}
}

// until waits until cond holds and tells how long that took.
func (s *site) until(limit time.Duration, what string, cond func() bool) time.Duration {
	s.t.Helper()
	start := time.Now()
	for !cond() {
		if time.Since(start) > limit {
			s.t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(start)
}

// TestAChangeDuringTheJoinIsWritten: what changes while the operation that joins is under way
// is not in it.
func TestAChangeDuringTheJoinIsWritten(t *testing.T) {
	run(t, func(s *site) {
		a := s.start("a")
		time.Sleep(100 * time.Millisecond)
		b := s.start("b")
		time.Sleep(500 * time.Microsecond) // an operation takes 1 ms
		b.Update(func(m *Member) { m.Address = "here" })
		time.Sleep(2 * time.Second)
		if m, _ := a.View().Find(b.ID()); m.Address != "here" {
			t.Errorf("a knows of b: %+v", m)
		}
	})
}

// Joins, changes and leaves are seen at once, by notification.
func TestMembersSeeEachOther(t *testing.T) {
	run(t, func(s *site) {
		a := s.start("a")
		time.Sleep(100 * time.Millisecond)
		s.assertLiving(a, "a")
		b := s.start("b")
		time.Sleep(100 * time.Millisecond)
		s.assertLiving(a, "a", "b")
		s.assertLiving(b, "a", "b")
		m, ok := a.View().Find(b.ID())
		if !ok || m.Host != "h-b" || m.Seat != "seat-b" || m.Index != 7 || m.Extra["k"] != "b" || m.Draining {
			t.Errorf("a knows of b: %+v", m)
		}
		b.SetDraining(true)
		time.Sleep(100 * time.Millisecond)
		if m, _ := a.View().Find(b.ID()); !m.Draining {
			t.Error("a does not see that b is draining")
		}
		if err := a.Notify(context.Background(), []byte("map")); err != nil {
			t.Error(err)
		}
		for _, p := range []*process{a, b} {
			p.mu.Lock()
			if !slices.Equal(p.heard, []string{"map"}) {
				t.Errorf("%s heard %q", p.name, p.heard)
			}
			p.mu.Unlock()
		}
		b.stop()
		<-b.ended
		time.Sleep(100 * time.Millisecond)
		s.assertLiving(a, "a")
		if v := a.View(); len(v.Dead) > 0 || len(s.store.Blocklisted()) > 0 || b.err != nil || len(b.lost) > 0 {
			t.Errorf("after a clean leave: dead %v, blocklist %v, %v, lost %v", v.Dead, s.store.Blocklisted(), b.err, b.lost)
		}
	})
}

// TestNotifyWaitsUntilItIsHeard: when Notify returns, Notified has been called in every member
// that listens, however long that took.
func TestNotifyWaitsUntilItIsHeard(t *testing.T) {
	run(t, func(s *site) {
		a, b := s.start("a"), s.start("b")
		time.Sleep(100 * time.Millisecond)
		b.mu.Lock()
		b.slow = 100 * time.Millisecond
		b.mu.Unlock()
		if err := a.Notify(context.Background(), []byte("map")); err != nil {
			t.Error(err)
		}
		for _, p := range []*process{a, b} {
			p.mu.Lock()
			if !slices.Equal(p.heard, []string{"map"}) {
				t.Errorf("%s heard %q", p.name, p.heard)
			}
			p.mu.Unlock()
		}
	})
}

// A death is seen within about two seconds by silence, at once when it is known; and the
// dead member is fenced before its record is gone.
func TestADeathIsSeenAndFenced(t *testing.T) {
	for _, known := range []bool{false, true} {
		t.Run(fmt.Sprintf("known=%v", known), func(t *testing.T) {
			run(t, func(s *site) {
				a, b := s.start("a"), s.start("b")
				time.Sleep(5 * time.Second)
				s.assertLiving(a, "a", "b")
				if err := a.Fence(context.Background(), b.ID()); !errors.Is(err, ErrAlive) {
					t.Errorf("fencing the living: %v", err)
				}
				b.client.Crash()
				s.with(func() { s.gone["b"] = known })
				// Two seconds, and a round at each end: its last heartbeat is seen up to half a second later, and
				// four rounds may add up to a little less than two seconds.
				limit := 3100 * time.Millisecond
				if known {
					limit = 200 * time.Millisecond
				}
				took := s.until(limit, "a sees b dead", func() bool { return a.View().KnownDead("b") })
				t.Logf("seen dead after %v", took)
				s.assertLiving(a, "a")
				if a.Fenced("b") {
					t.Error("called fenced before it is")
				}
				if err := a.Fence(context.Background(), b.ID()); err != nil {
					t.Fatal(err)
				}
				if !slices.Contains(s.store.Blocklisted(), b.client.Addresses()) {
					t.Error("b is not on the blocklist")
				}
				s.until(100*time.Millisecond, "a sees b fenced", func() bool { return a.Fenced("b") })
				if err := a.Fence(context.Background(), b.ID()); err != nil {
					t.Errorf("fencing again: %v", err)
				}
				c := s.start("c")
				s.until(100*time.Millisecond, "c sees that b was fenced", func() bool { return c.Fenced("b") })
				time.Sleep(12 * time.Minute)
				if v := c.View(); len(v.Dead) > 0 {
					t.Errorf("after ten minutes there still are %v", v.Dead)
				}
			})
		})
	}
}
