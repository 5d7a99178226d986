package main

import (
	"context"
	"sync"

	"github.com/rbdwarden/rbdwarden/report"
)

// slots bound how many of something are under way together. The bound can change; 0 is
// none, as in Ceph.
//
// Invariant: with a bound, no slot is given while so many are out; and who waits gets one
// in the order of asking.
type slots struct {
	mu      sync.Mutex
	limit   int
	running int
	queue   []chan struct{} // closed when it is their turn
}

func newSlots(limit int) *slots { return &slots{limit: limit} }

// Acquire waits for a slot. release gives it back; call it once.
func (s *slots) Acquire(ctx context.Context) (release func(), err error) {
	return s.AcquireTelling(ctx, func() {})
}

// AcquireTelling is Acquire that calls waits if there is no slot at the moment.
func (s *slots) AcquireTelling(ctx context.Context, waits func()) (release func(), err error) {
	turn := make(chan struct{})
	s.mu.Lock()
	s.queue = append(s.queue, turn)
	s.next()
	s.mu.Unlock()
	select {
	case <-turn:
		return s.release, nil
	default:
		waits()
	}
	select {
	case <-turn:
		return s.release, nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, q := range s.queue {
		if q == turn {
			s.queue = append(s.queue[:i], s.queue[i+1:]...)
			return nil, ctx.Err()
		}
	}
	// It was given in the last moment.
	s.running--
	s.next()
	return nil, ctx.Err()
}

func (s *slots) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	s.next()
}

// next gives slots to those whose turn it is; mu is held.
func (s *slots) next() {
	for len(s.queue) > 0 && (s.limit <= 0 || s.running < s.limit) {
		close(s.queue[0])
		s.queue = s.queue[1:]
		s.running++
	}
}

// SetLimit changes the bound. What is under way goes on.
func (s *slots) SetLimit(limit int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = limit
	s.next()
}

// Report tells how much is in use.
func (s *slots) Report() *report.Slots {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &report.Slots{Limit: s.limit, Running: s.running, Waiting: len(s.queue)}
}
