package replayer_test

import (
	"sync/atomic"
	"testing"

	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/mem"
)

// holdCommit holds the next commit of a worker back, as a network or a pause of the process does, until released is closed.
func (s *scene) holdCommit(w *worker) (held, released chan struct{}) {
	held, released = make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	fault := mem.FaultFunc(func(op mem.Op) mem.Verdict {
		if op.Client == w.remote && op.Kind == mem.Write && commits(op.Write) && once.CompareAndSwap(false, true) {
			close(held)
			return mem.Verdict{Until: released}
		}
		return mem.Verdict{}
	})
	s.fault.Store(&fault)
	return held, released
}

func commits(op *rados.WriteOp) bool {
	for _, step := range op.Steps {
		if step.Kind == rados.WriteExec && step.Call.Method == "client_commit" {
			return true
		}
	}
	return false
}

// TestALateCommitIsRefused has a worker fenced at its own cluster while a commit of it is on its way to the primary's, where
// nobody fences it. It comes there when another worker has replayed and committed more. Stored, it would have a third one
// do what comes next once more, compare-and-writes among it, onto an image that is further on.
func TestALateCommitIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newScene(t, 7, false)
		s.write(0, "XX")
		first := s.start()
		s.caughtUp(first)
		held, released := s.holdCommit(first)
		s.write(0, "XX")
		<-held
		first.local.Crash() // fenced, but for the primary's cluster
		second := s.start()
		s.chain(s.rng)
		s.caughtUp(second)
		s.stop(second)

		close(released)
		// Behind the commit: operations on an object keep their order.
		var look rados.WriteOp
		look.AssertExists()
		check(t, first.there.Write(t.Context(), "journal.r1", &look))
		if why := s.behind(); why != "" {
			t.Errorf("the position moved back: %s", why)
		}
		first.die()
		s.fault.Store(nil)
		third := s.start()
		s.write(10, "A")
		s.caughtUp(third)
		s.stop(third)
		s.equal()
	})
}

// TestTwoOwnersInARow checks that a successor goes on at once where the record has changed between its look at it and its
// lock on the image: the owner before it has committed meanwhile.
func TestTwoOwnersInARow(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newScene(t, 8, false)
		s.write(0, "XX")
		first := s.start()
		s.caughtUp(first)
		second := s.start() // waits for the lock
		for n := range 20 {
			s.write(n, "AB")
		}
		s.caughtUp(first)
		s.stop(first)
		s.chain(s.rng)
		s.caughtUp(second)
		s.stop(second)
		s.equal()
	})
}
