package replayer

import (
	"sync"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	"github.com/rbdwarden/rbdwarden/image"
	imagesync "github.com/rbdwarden/rbdwarden/image/sync"
	"github.com/rbdwarden/rbdwarden/journal"
)

// Invariant 8: the bytes that a worker holds for all its images stay within one budget.
// Each image takes credit before it reads, by the reader of its journal or by its sync,
// and what it has read keeps that credit:
//
//	journal.Tailer ── EntriesRead ──▶ core ── Apply ──▶ image
//	  takes                                    │ durable: core.Released grows
//	    ▲                                      ▼
//	    └──────── given back ◀──────── handed.release
//
// Nobody who waits for credit keeps others from getting on: see Tailer.startRead, and
// memory.Budget. What is handed on to be applied needs no more credit of this budget to
// get done, but for the outcome of an operation further on in the journal: that is
// looked for with a credit of its own.

// Credit is what one user holds of the worker's budget.
type Credit interface {
	journal.Credit
	// Held is in bytes.
	Held() int64
	// Wanted tells whether others wait for what somebody holds.
	Wanted() bool
}

// handed are the entries that the machine was given and that count, oldest first.
type handed struct {
	mu       sync.Mutex
	entries  []handedEntry
	released int64 // bytes of all that were done with
}

type handedEntry struct {
	journal.Entry
	bytes int64
}

func (h *handed) add(e journal.Entry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.entries = append(h.entries, handedEntry{e, int64(len(e.Payload))})
}

// release gives back the credit of the oldest entries, which have so many bytes since
// the replay began.
func (h *handed) release(total int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for n < len(h.entries) && h.released+h.entries[n].bytes <= total {
		h.released += h.entries[n].bytes
		h.entries[n].Done()
		h.entries[n] = handedEntry{}
		n++
	}
	if h.entries = h.entries[n:]; len(h.entries) == 0 {
		h.entries = nil
	}
}

// reset forgets everything: the tailer gives back what is left.
func (h *handed) reset() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.entries, h.released = nil, 0
}

// Released hears how many bytes of all that this replay has read are not held any more.
func (p *performer) Released(bytes int64) { p.handed.release(bytes) }

// Held is what the image holds of the worker's budget, in bytes.
func (p *performer) Held() int64 {
	if p.credit == nil {
		return 0
	}
	return p.credit.Held()
}

// tailing is how the image's journal is read.
func (p *performer) tailing(client string) journal.TailConfig {
	cfg := p.Tail
	cfg.ClientID = client
	if p.credit != nil {
		cfg.Credit = p.credit
		cfg.Hungry = func() { p.notify(core.ReadingWaits{}) }
	}
	return cfg
}

// lookingAhead is how a journal is read beside that, or before it. It has a credit of
// its own that never waits: the replay may hold what it holds, an overdraft too, until
// this one has found what it looks for.
func (p *performer) lookingAhead(client string) journal.TailConfig {
	cfg := p.Tail
	cfg.ClientID, cfg.Budget = client, lookAheadBudget
	if p.NewUrgentCredit != nil {
		cfg.Credit = p.NewUrgentCredit()
	}
	return cfg
}

// done says that nothing of entries is used any more.
func done(entries []journal.Entry) {
	for _, e := range entries {
		e.Done()
	}
}

// syncLimits bounds a sync, by what it may have under way and by the worker's budget.
func (p *performer) syncLimits() imagesync.Limits {
	l := p.SyncLimits
	if p.credit != nil {
		l.Credit = p.credit
	}
	return l
}

// applyLimits bounds what is applied. That has a budget of its own in the worker: what
// waits for it keeps its credit of the other, and never the other way round.
func (p *performer) applyLimits() image.Limits {
	l := p.Limits
	if p.NewApplyCredit != nil {
		l.Credit = p.patiently(p.NewApplyCredit())
	}
	return l
}
