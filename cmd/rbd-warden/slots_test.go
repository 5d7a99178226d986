package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestSlotsHoldTheirBound(t *testing.T) {
	s := newSlots(3)
	var now, most atomic.Int32
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if i%5 == 0 {
				cancel() // who gives up must not keep a slot
			}
			release, err := s.Acquire(ctx)
			if err != nil {
				return
			}
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			time.Sleep(100 * time.Microsecond)
			now.Add(-1)
			release()
		})
	}
	all.Wait()
	if r := s.Report(); most.Load() > 3 || r.Running != 0 || r.Waiting != 0 || r.Limit != 3 {
		t.Errorf("%d together, then %+v", most.Load(), r)
	}
}

func TestSlotsFollowTheirLimit(t *testing.T) {
	s := newSlots(1)
	release, err := s.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := s.Acquire(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a second slot: %v", err)
	}
	got := make(chan func())
	for range 2 {
		go func() {
			r, err := s.Acquire(t.Context())
			if err != nil {
				t.Error(err)
			}
			got <- r
		}()
	}
	s.SetLimit(2)
	second := <-got
	s.SetLimit(0) // none
	third := <-got
	second()
	third()
	release()
	if r := s.Report(); r.Running != 0 || r.Waiting != 0 {
		t.Errorf("%+v", r)
	}
}

// Who has to wait is told so, before it waits; who does not is not.
func TestWaitingForASlotIsTold(t *testing.T) {
	s := newSlots(1)
	release, err := s.AcquireTelling(t.Context(), func() { t.Error("it did not have to wait") })
	if err != nil {
		t.Fatal(err)
	}
	waits, got := make(chan struct{}), make(chan error)
	go func() {
		release, err := s.AcquireTelling(t.Context(), func() { close(waits) })
		if err == nil {
			release()
		}
		got <- err
	}()
	<-waits
	release()
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}
