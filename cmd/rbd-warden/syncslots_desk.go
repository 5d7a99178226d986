package main

import (
	"slices"
	"time"
)

const (
	// slotPoll is the time between two words of a member that holds a slot or waits for one.
	slotPoll = 500 * time.Millisecond
	// slotGrace is how long a new leader gives no slot, unless all have told it what they hold before.
	slotGrace = 3 * slotPoll
	// slotSilence is after how long a member that lives, but says nothing, has lost its slots.
	slotSilence = time.Minute
)

// slotDesk is where a pool's leader hands out the slots of rbd_mirror_concurrent_image_syncs, which
// all members share. It is pure: members' words and the time go in, the slots of who spoke come out.
//
// Members say what they hold and what they wait for: whenever there is a new leader, and again and again
// while that is not nothing. So nothing has to be remembered over a change of leader, no word that is lost does harm, and who dies gives its slots back.
//
// Invariant: no slot is given while as many are out as the bound allows, by what the living
// have said in this term.
type slotDesk struct {
	term    any // whose desk it is; another one begins with nothing
	begun   time.Time
	members map[string]*slotMember
	queue   []slotWant // oldest first
}

type slotMember struct {
	seq   uint64 // of its newest word
	heard time.Time
	holds map[uint64]bool
}

type slotWant struct {
	member string
	id     uint64
}

// slotWord is what a member says: all that it holds and waits for, by numbers of its own.
type slotWord struct {
	member           string
	seq              uint64 // one more with each word
	holding, wanting []uint64
}

// hear takes in a member's word, and tells which of what it waits for it has got.
func (d *slotDesk) hear(now time.Time, term any, living []string, limit int, w slotWord) (granted []uint64) {
	if d.members == nil || d.term != term {
		*d = slotDesk{term: term, begun: now, members: map[string]*slotMember{}}
	}
	for id, m := range d.members {
		if !slices.Contains(living, id) || now.Sub(m.heard) > slotSilence {
			delete(d.members, id)
		}
	}
	m := d.members[w.member]
	if m == nil {
		m = &slotMember{holds: map[uint64]bool{}}
		d.members[w.member] = m
	}
	if w.seq <= m.seq { // late: a newer one was heard
		return nil
	}
	m.seq, m.heard = w.seq, now
	d.update(m, w)
	silent := func(id string) bool { return d.members[id] == nil }
	if !slices.ContainsFunc(living, silent) || now.Sub(d.begun) >= slotGrace {
		d.give(limit)
	}
	for _, id := range w.wanting {
		if m.holds[id] {
			granted = append(granted, id)
		}
	}
	return granted
}

// update makes of a member what it says of itself. What it was given, and waits for still, it has not
// heard of yet.
func (d *slotDesk) update(m *slotMember, w slotWord) {
	for id := range m.holds {
		if !slices.Contains(w.holding, id) && !slices.Contains(w.wanting, id) {
			delete(m.holds, id)
		}
	}
	for _, id := range w.holding {
		m.holds[id] = true
	}
	d.queue = slices.DeleteFunc(d.queue, func(q slotWant) bool {
		return d.members[q.member] == nil || q.member == w.member && (m.holds[q.id] || !slices.Contains(w.wanting, q.id))
	})
	for _, id := range w.wanting {
		if q := (slotWant{w.member, id}); !m.holds[id] && !slices.Contains(d.queue, q) {
			d.queue = append(d.queue, q)
		}
	}
}

// give gives free slots to who has waited longest. A bound of 0 is none.
func (d *slotDesk) give(limit int) {
	out := 0
	for _, m := range d.members {
		out += len(m.holds)
	}
	for len(d.queue) > 0 && (limit <= 0 || out < limit) {
		q := d.queue[0]
		d.queue = d.queue[1:]
		d.members[q.member].holds[q.id] = true
		out++
	}
}
