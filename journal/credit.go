package journal

import (
	"context"
	"sync"
	"sync/atomic"
)

// Credit is a share of a bound on bytes that several tailers have in common. A tailer
// takes it before it reads, for as much as the read may bring. What was read keeps it
// until the last entry of that read is Done: entries of one read share its memory, so
// one of them keeps all of it.
type Credit interface {
	// TryTake takes bytes if they can be had at once.
	TryTake(bytes int64) bool
	// Take waits for bytes. One that holds nothing must get them in the end.
	Take(ctx context.Context, bytes int64) error
	// Give gives bytes back.
	Give(bytes int64)
}

// ledger is what a tailer has taken of its credit. A nil ledger is of a tailer without.
type ledger struct {
	credit Credit
	mu     sync.Mutex
	held   int64
	closed bool
}

func newLedger(c Credit) *ledger {
	if c == nil {
		return nil
	}
	return &ledger{credit: c}
}

// lease is the credit of one read. A nil lease is of a read without.
type lease struct {
	ledger  *ledger
	bytes   int64
	entries atomic.Int64 // that are not done
}

// try takes a lease if it can be had at once.
func (l *ledger) try(bytes int64) (*lease, bool) {
	if l == nil {
		return nil, true
	}
	if !l.credit.TryTake(bytes) {
		return nil, false
	}
	return l.book(bytes), true
}

// wait waits for a lease.
func (l *ledger) wait(ctx context.Context, bytes int64) (*lease, error) {
	if err := l.credit.Take(ctx, bytes); err != nil {
		return nil, err
	}
	return l.book(bytes), nil
}

func (l *ledger) book(bytes int64) *lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held += bytes
	return &lease{ledger: l, bytes: bytes}
}

// close gives everything back: what was read is dropped.
func (l *ledger) close() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.credit.Give(l.held)
	l.held = 0
}

func (l *ledger) give(bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.held -= bytes
		l.credit.Give(bytes)
	}
}

// settle hands a lease to the entries that a read has brought. They keep so many bytes.
func (l *lease) settle(entries []Entry, bytes int64) {
	if l == nil {
		return
	}
	if len(entries) == 0 {
		bytes = 0
	}
	if over := l.bytes - bytes; over > 0 {
		l.bytes = bytes
		l.ledger.give(over)
	}
	l.entries.Store(int64(len(entries)))
	for i := range entries {
		entries[i].lease = l
	}
}

// Done says that an entry that was handed out, and all that was decoded from it, is not
// used any more. It may be called once, by any goroutine, also after Close.
func (e Entry) Done() {
	if e.lease != nil && e.lease.entries.Add(-1) == 0 {
		e.lease.ledger.give(e.lease.bytes)
	}
}

// Shed drops what was read ahead, and gives its credit back: it is read again when it is
// due. It is for a caller that will not call Next for some time. Only the caller of Next
// may call it.
func (t *Tailer) Shed(ctx context.Context) error { return t.shed(ctx, nil) }

// shed does so but for what was read at r. An image that waits for credit must not keep
// others waiting with what it cannot use itself.
func (t *Tailer) shed(ctx context.Context, r *objectReader) error {
	for o, other := range t.readers {
		if other == r {
			continue
		}
		if other.inflight != nil {
			select {
			case res := <-other.inflight:
				t.finishRead(other, res)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		q := &t.merge.queues[o]
		if q.empty() {
			continue
		}
		first := q.front()
		*other = objectReader{offset: other.offset, number: first.Position.Object, at: first.Offset, more: true}
		t.merge.bytes -= q.bytes
		t.held.Add(-q.bytes)
		for _, e := range q.entries {
			e.Done()
		}
		*q = entryQueue{}
	}
	return nil
}
