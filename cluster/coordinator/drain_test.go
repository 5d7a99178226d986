package coordinator

import (
	"testing"
	"time"
)

// A member that drains, the leader too, gives its images and the leadership away, goes on
// running, and gets images again when it drains no more. Nobody else's images move, and
// none is run twice or by nobody for longer than a hand-over.
func TestADrainedMemberGivesEverythingAway(t *testing.T) {
	for _, leader := range []bool{false, true} {
		run(t, 24, func(s *site) {
			a, b, c := s.start(1, 0, 1), s.start(2, 0, 1), s.start(3, 0, 1)
			s.settledWithin(5*time.Second, true)
			w := a
			for _, other := range []*worker{b, c} {
				if (s.leaders()[0] == w) != leader {
					w = other
				}
			}
			assertGone := s.givesAway(w)
			w.Drain(true)
			began := time.Now()
			for s.counts()[w.name] > 0 || w.Part().Images > 0 {
				if time.Sleep(10 * time.Millisecond); time.Since(began) > 5*time.Second {
					t.Fatalf("after %v: %v", time.Since(began), s.counts())
				}
			}
			s.settledWithin(time.Second, false)
			time.Sleep(time.Minute)
			assertGone()
			w.Drain(false)
			s.settledWithin(10*time.Minute, true)
		})
	}
}

// Where all drain, somebody leads, and the images are run: that is better than nobody.
func TestAllDrain(t *testing.T) {
	run(t, 10, func(s *site) {
		a, b := s.start(1, 0, 1), s.start(2, 0, 1)
		s.settledWithin(5*time.Second, true)
		a.Drain(true)
		time.Sleep(5 * time.Second)
		b.Drain(true)
		time.Sleep(20 * time.Second)
		s.settledWithin(time.Second, false)
		if l := s.leaders(); len(l) != 1 {
			t.Errorf("%d lead", len(l))
		}
		if p := b.Part(); p.Images != 11 || // one is the other namespace's
			len(p.Takers) != 0 {
			t.Errorf("%+v", p)
		}
		b.kill(false)
		s.settledWithin(10*time.Second, false)
	})
}

// A member that leaves does not take images again because a drain ends.
func TestWhoLeavesStaysDraining(t *testing.T) {
	run(t, 4, func(s *site) {
		a, b := s.start(1, 0, 1), s.start(2, 0, 1)
		s.settledWithin(5*time.Second, true)
		a.Drain(true)
		a.Leaving()
		time.Sleep(time.Second)
		a.Drain(false)
		time.Sleep(5 * time.Second)
		if m, ok := b.View().Find(a.group.ID()); !ok || !m.Draining {
			t.Errorf("%+v", m)
		}
	})
}
