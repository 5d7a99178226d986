package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	clusterv1 "github.com/rbdwarden/rbdwarden/proto/cluster/v1"
	"github.com/rbdwarden/rbdwarden/report"
)

// errNotOurs answers a word that is for another member.
var errNotOurs = errors.New("this member does not lead the pool")

// syncSlots are this worker's image-sync slots in all pools, and the desks of those that it leads.
type syncSlots struct {
	worker int // its index
	of     int // workers of the daemon

	mu    sync.Mutex
	bound int // rbd_mirror_concurrent_image_syncs
	pools map[int64]*siteSlots
	desks map[int64]*slotDesk
}

func newSyncSlots(bound, workers, worker int) *syncSlots {
	return &syncSlots{bound: bound, of: workers, worker: worker, pools: map[int64]*siteSlots{}, desks: map[int64]*slotDesk{}}
}

func (s *syncSlots) part() int { return shareOf(s.bound, s.of, s.worker) }

// in are the slots of a pool.
func (s *syncSlots) in(pool int64, tell func(context.Context, slotWord) ([]uint64, error)) *siteSlots {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pools[pool] == nil {
		s.pools[pool] = newSiteSlots(s.part(), tell)
	}
	return s.pools[pool]
}

// SetLimit changes the bound: for this worker's part, and for the pools that it leads.
func (s *syncSlots) SetLimit(bound int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bound = bound
	for _, p := range s.pools {
		p.SetLimit(s.part())
	}
}

// Report tells how much is in use here, and what a person should know of that.
func (s *syncSlots) Report() (r *report.Slots, notes []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r = &report.Slots{Limit: s.part()}
	for _, p := range s.pools {
		one, trouble := p.Report()
		r.Running, r.Waiting = r.Running+one.Running, r.Waiting+one.Waiting
		note := fmt.Sprintf("image syncs: a pool's leader cannot be asked for slots (%s): this worker goes by its own part, %d", trouble, s.part())
		if trouble != "" && !slices.Contains(notes, note) {
			notes = append(notes, note)
		}
	}
	return r, notes
}

// hear is the desk of a pool that this worker leads.
func (s *syncSlots) hear(pool int64, term any, living []string, w slotWord) []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.desks[pool] == nil {
		s.desks[pool] = &slotDesk{}
	}
	return s.desks[pool].hear(time.Now(), term, living, s.bound, w)
}

// syncSlot is how images of a pool get their slots.
func (w *wiring) syncSlot(pool int64) func(ctx context.Context, waits func()) (func(), error) {
	return w.slotsOf(pool).AcquireTelling
}

func (w *wiring) slotsOf(pool int64) *siteSlots {
	return w.syncs.in(pool, func(ctx context.Context, word slotWord) ([]uint64, error) { return w.tellLeader(ctx, pool, word) })
}

// tellLeader takes a word to the pool's leader, which may be this worker.
func (w *wiring) tellLeader(ctx context.Context, pool int64, word slotWord) ([]uint64, error) {
	word.member = w.memberID()
	w.mu.Lock()
	p := w.parties[pool]
	w.mu.Unlock()
	if p == nil {
		return nil, errors.New("this worker takes no part in the pool")
	}
	leader := p.Leader()
	switch {
	case leader == "":
		return nil, errors.New("nobody is known to lead the pool")
	case leader == word.member:
		return w.hearSlots(pool, word)
	case w.network == nil:
		return nil, errors.New("this worker is not connected to other daemons")
	}
	a, err := w.network.question(ctx, leader, &clusterv1.Question{What: &clusterv1.Question_Slots{Slots: &clusterv1.SlotQuestion{
		PoolId: pool, Member: word.member, Sequence: word.seq, Holding: word.holding, Wanting: word.wanting,
	}}})
	if err == nil && a.GetSlots() == nil {
		err = errors.New("the answer is to another question")
	}
	return a.GetSlots().GetGranted(), err
}

// hearSlots takes a word at the desk, if this worker leads the pool.
func (w *wiring) hearSlots(pool int64, word slotWord) ([]uint64, error) {
	w.mu.Lock()
	p := w.parties[pool]
	w.mu.Unlock()
	if p == nil {
		return nil, errNotOurs
	}
	term := p.Term()
	if term == nil {
		return nil, errNotOurs
	}
	var living []string
	for _, m := range p.View().Members {
		living = append(living, m.ID)
	}
	if !slices.Contains(living, word.member) {
		return nil, fmt.Errorf("member %s is not known", word.member)
	}
	return w.syncs.hear(pool, term, living, word), nil
}
