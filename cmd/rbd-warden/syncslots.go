package main

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/rbdwarden/rbdwarden/report"
)

const (
	// slotHaste is the time between the first words after something has changed; they grow to slotPoll.
	slotHaste = 20 * time.Millisecond
	// slotAnswer bounds how long a word to the leader may take.
	slotAnswer = 2 * time.Second
	// slotPatience is for how long the leader must not have been reached before a member goes by its own
	// part of the bound. A change of leader takes less.
	slotPatience = 10 * time.Second
)

// siteSlots are one worker's slots of a bound that all members of a pool share: its leader hands them out
// (see slotDesk). When the leader cannot be asked, the worker goes by its own part of the bound: then more
// may be out together than the bound allows, which costs time, and harms no image.
type siteSlots struct {
	// tell tells the leader what we hold and wait for, and answers what of that we have got.
	tell func(ctx context.Context, w slotWord) (granted []uint64, err error)

	mu      sync.Mutex
	limit   int // our own part of the bound; 0: there is no bound
	seq, id uint64
	holds   []uint64
	wants   []slotTurn // oldest first
	talks   bool       // somebody runs talk
	wake    chan struct{}
	reached time.Time // when the leader last answered, or we began to ask it
	trouble string    // why we go by our own part; "": we do not
}

// slotTurn waits for a slot.
type slotTurn struct {
	id   uint64
	turn chan struct{} // closed when it has got one
}

func newSiteSlots(limit int, tell func(context.Context, slotWord) ([]uint64, error)) *siteSlots {
	return &siteSlots{limit: limit, tell: tell, wake: make(chan struct{}, 1)}
}

// AcquireTelling waits for a slot, and calls waits if there is none at once. release gives it back; call it
// once.
func (s *siteSlots) AcquireTelling(ctx context.Context, waits func()) (release func(), err error) {
	s.mu.Lock()
	s.id++
	w := slotTurn{s.id, make(chan struct{})}
	s.wants = append(s.wants, w)
	s.give(nil)
	s.mu.Unlock()
	s.Hello()
	release = func() { s.forget(w.id) }
	select {
	case <-w.turn:
		return release, nil
	case <-time.After(slotPoll / 5): // the leader has slots, mostly
		waits()
	case <-ctx.Done():
	}
	select {
	case <-w.turn:
		return release, nil
	case <-ctx.Done():
		release()
		return nil, ctx.Err()
	}
}

// Hello tells a leader that is new what we hold and wait for, be it nothing: it waits for that.
func (s *siteSlots) Hello() {
	s.mu.Lock()
	if !s.talks {
		s.talks, s.reached = true, time.Now()
		go s.talk()
	}
	s.poke() // with mu: talk is not about to end without having seen it
	s.mu.Unlock()
}

// forget lets go of a slot, or of waiting for it.
func (s *siteSlots) forget(id uint64) {
	s.mu.Lock()
	s.holds = slices.DeleteFunc(s.holds, func(h uint64) bool { return h == id })
	s.wants = slices.DeleteFunc(s.wants, func(w slotTurn) bool { return w.id == id })
	s.mu.Unlock()
	s.poke()
}

func (s *siteSlots) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// give lets those begin that were granted a slot; mu is held. Without a bound, or while the leader cannot be
// asked, nobody has to grant it.
func (s *siteSlots) give(granted []uint64) {
	s.wants = slices.DeleteFunc(s.wants, func(w slotTurn) bool {
		own := s.limit <= 0 || s.trouble != "" && len(s.holds) < s.limit
		if !own && !slices.Contains(granted, w.id) {
			return false
		}
		s.holds = append(s.holds, w.id)
		close(w.turn)
		return true
	})
}

// talk tells the leader what is held and waited for, again and again until that is nothing, and until it is
// known to have heard that. A leader that cannot be asked is no reason to go on for ever with nothing to say.
func (s *siteSlots) talk() {
	pause := slotHaste
	for {
		s.mu.Lock()
		s.seq++
		w := slotWord{seq: s.seq, holding: slices.Clone(s.holds)}
		for _, turn := range s.wants {
			w.wanting = append(w.wanting, turn.id)
		}
		s.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), slotAnswer)
		granted, err := s.tell(ctx, w)
		cancel()
		now := time.Now()
		s.mu.Lock()
		gone := now.Sub(s.reached) >= slotPatience
		switch {
		case err == nil:
			s.reached, s.trouble = now, ""
		case gone:
			s.trouble = report.OneLine(err.Error())
		}
		s.give(granted)
		if len(w.holding)+len(w.wanting)+len(s.holds)+len(s.wants)+len(s.wake) == 0 && (err == nil || gone) {
			s.talks, s.trouble = false, ""
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		select {
		case <-s.wake:
			pause = slotHaste
		case <-time.After(pause):
			pause = min(2*pause, slotPoll)
		}
	}
}

// SetLimit changes our own part of the bound.
func (s *siteSlots) SetLimit(limit int) {
	s.mu.Lock()
	s.limit = limit
	s.give(nil)
	s.mu.Unlock()
	s.poke()
}

// Report tells how much is in use here, and why the leader's bound is not gone by.
func (s *siteSlots) Report() (r report.Slots, trouble string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return report.Slots{Limit: s.limit, Running: len(s.holds), Waiting: len(s.wants)}, s.trouble
}
