package mirror

import (
	"cmp"
	"slices"
	"time"

	cephmirror "github.com/rbdwarden/rbdwarden/ceph/mirror"
)

// statusBook decides which statuses are to be written when. It is the pure core of
// StatusWriter: no I/O, no clock.
//
//	             set                      due               written
//	(unknown) ─────────► pending, due at t ───► in the batch ───────► clean ──┐ set, beat
//	    ▲                      ▲                     │ failed                 │
//	    │ written, forgotten   └─────────────────────┴────────────────────────┘
type statusBook struct {
	hurry  time.Duration // from a change of state until it is written
	settle time.Duration // from a change of the description alone

	entries map[string]*statusEntry
}

type statusEntry struct {
	status cephmirror.Status
	// What the entry is there for: remove deletes the stored status, forgotten
	// writes it once more and then lets it be.
	remove    bool
	forgotten bool
	// pending says that it is to be written, at due at the latest.
	pending bool
	due     time.Time
}

// statusUpdate is one status of a batch; remove deletes it.
type statusUpdate struct {
	globalID string
	status   cephmirror.Status
	remove   bool
}

func newStatusBook(hurry, settle time.Duration) *statusBook {
	return &statusBook{hurry: hurry, settle: settle, entries: map[string]*statusEntry{}}
}

// set notes an image's status.
func (b *statusBook) set(now time.Time, globalID string, s cephmirror.Status) {
	e := b.entries[globalID]
	delay := b.hurry
	switch {
	case e == nil:
		e = &statusEntry{}
		b.entries[globalID] = e
	case e.remove || e.forgotten:
	case e.status == s:
		return // written, or pending already
	case e.status.State == s.State:
		delay = b.settle
	}
	e.status, e.remove, e.forgotten = s, false, false
	e.await(now.Add(delay))
}

// await makes the entry pending; an earlier time stays.
func (e *statusEntry) await(due time.Time) {
	if !e.pending || due.Before(e.due) {
		e.pending, e.due = true, due
	}
}

// forget writes what is pending of an image, and then no more: another daemon has it.
func (b *statusBook) forget(globalID string) {
	e := b.entries[globalID]
	switch {
	case e == nil, e.remove: // a removal ends by itself
	case e.pending:
		e.forgotten = true
	default:
		delete(b.entries, globalID)
	}
}

// remove deletes the stored status of an image.
func (b *statusBook) remove(now time.Time, globalID string) {
	e := &statusEntry{remove: true}
	b.entries[globalID] = e
	e.await(now.Add(b.hurry))
}

// beat makes all entries due, so that their times show that we live, and so that
// nothing that was lost with a watch stays lost.
func (b *statusBook) beat(now time.Time) {
	for _, e := range b.entries {
		e.await(now)
	}
}

// next is when something is due; false if nothing is pending.
func (b *statusBook) next() (due time.Time, ok bool) {
	for _, e := range b.entries {
		if e.pending && (!ok || e.due.Before(due)) {
			due, ok = e.due, true
		}
	}
	return due, ok
}

// pending counts what is to be written.
func (b *statusBook) pending() int {
	n := 0
	for _, e := range b.entries {
		if e.pending {
			n++
		}
	}
	return n
}

// take gives up to max updates, those that are due soonest, if any is due now. What is
// pending but not due comes along where there is room: it saves a later operation.
// The caller says for each batch whether it was written or failed.
func (b *statusBook) take(now time.Time, max int) []statusUpdate {
	if due, ok := b.next(); !ok || due.After(now) {
		return nil
	}
	ids := make([]string, 0, len(b.entries))
	for id, e := range b.entries {
		if e.pending {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(x, y string) int {
		return cmp.Or(b.entries[x].due.Compare(b.entries[y].due), cmp.Compare(x, y))
	})
	ids = ids[:min(len(ids), max)]
	batch := make([]statusUpdate, len(ids))
	for i, id := range ids {
		e := b.entries[id]
		e.pending = false
		batch[i] = statusUpdate{globalID: id, status: e.status, remove: e.remove}
	}
	return batch
}

// written says that a batch is in the pool.
func (b *statusBook) written(batch []statusUpdate) {
	for _, u := range batch {
		if e := b.entries[u.globalID]; e != nil && !e.pending && (e.remove || e.forgotten) {
			delete(b.entries, u.globalID)
		}
	}
}

// failed makes a batch pending again, to be tried at that time. What was set
// meanwhile counts, not what the batch had; what is no longer known stays unknown.
func (b *statusBook) failed(batch []statusUpdate, retry time.Time) {
	for _, u := range batch {
		e := b.entries[u.globalID]
		if e == nil {
			if !u.remove { // forgotten while the batch was under way
				b.entries[u.globalID] = &statusEntry{status: u.status, forgotten: true, pending: true, due: retry}
			}
			continue
		}
		e.pending, e.due = true, retry
	}
}
