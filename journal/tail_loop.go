package journal

import (
	"context"
	"fmt"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
)

// Next returns the next entries, at least one if there is one, and no more than
// reach maxBytes. It waits for reads, not for entries: an empty batch with
// CaughtUp means that there are none now; call Wait, then Next again.
//
// After an error Next may be called again: what is transient may have passed, what
// is corrupt is found again.
func (t *Tailer) Next(ctx context.Context, maxBytes int64) (Batch, error) {
	clear(t.polled)
	var b Batch
	err := t.collect(ctx, &b, maxBytes)
	b.Dropped, b.Bridged = t.merge.takeDropped(), t.takeBridged()
	if len(b.Entries) > 0 || b.Ended != nil {
		t.pace.found(t.cfg.Now())
		return b, nil // an error is met again by the next call
	}
	return b, err
}

func (t *Tailer) collect(ctx context.Context, b *Batch, maxBytes int64) error {
	var bytes int64
	for {
		before := t.merge.bytes
		s := t.merge.nextStep()
		t.held.Add(t.merge.bytes - before)
		switch {
		case s.entry != nil:
			b.Entries = append(b.Entries, *s.entry)
			t.prefetch()
			if bytes += int64(s.entry.Size()); bytes >= maxBytes {
				return nil
			}
		case s.ended != nil:
			b.Ended = s.ended
			return nil
		case s.bad != nil:
			found := s.bad.found
			return &SequenceError{
				Object: t.j.DataObject(found.Position.Object), Offset: found.Offset,
				Due: s.bad.due, Found: found.Position,
			}
		default:
			r := t.readers[*s.need]
			if len(b.Entries) > 0 && !r.ready() {
				t.prefetch() // while the caller works on what there is
				return nil
			}
			found, err := t.look(ctx, r, len(b.Entries) == 0)
			if err != nil {
				return err
			}
			switch found {
			case foundLater:
				return nil
			case foundTagOver:
				before := t.merge.bytes
				b.Ended = t.merge.endTag()
				t.held.Add(t.merge.bytes - before)
				return nil
			case foundNothing:
				b.CaughtUp = true
				return nil
			}
		}
	}
}

// found is what became of looking at the place where the next entry is due.
type found uint8

const (
	foundSomething found = iota + 1 // entries, or the merge can go on without
	foundTagOver                    // nothing, and there is a newer tag
	foundNothing                    // nothing yet
	foundLater                      // it has to be read, and that has to wait for credit
)

// look reads until the due offset r has an entry or it is clear that there is none. It
// waits for credit only if it may: not while the caller of Next has yet to get entries,
// which keep credit.
func (t *Tailer) look(ctx context.Context, r *objectReader, mayWait bool) (found, error) {
	width := t.meta.SplayWidth
	for {
		if r.inflight != nil {
			select {
			case res := <-r.inflight:
				// Begun a moment ago, by the call before this one, it is a look as good as one of now.
				t.polled[r.offset] = t.polled[r.offset] || t.cfg.Now().Sub(r.started) < t.cfg.MinPoll
				t.finishRead(r, res)
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
		// The read may also have been taken in by prefetch.
		if !t.merge.queues[r.offset].empty() {
			return foundSomething, nil
		}
		if err := r.err; err != nil {
			r.err = nil
			if t.bridge(ctx, r, err) {
				continue
			}
			return 0, err
		}
		within, tag := t.merge.state == within, t.merge.tag
		switch {
		case r.more:
			if started, err := t.startRead(ctx, r, mayWait); err != nil {
				return 0, err
			} else if !started {
				return foundLater, nil
			}
		case r.final(width):
			if r.partial {
				torn := t.tornEntry(r)
				if t.bridge(ctx, r, torn) {
					continue
				}
				return 0, torn
			}
			if r.missing && r.seen.refresh == t.refresh {
				// Never written, or trimmed? The header tells whether we still count.
				if err := t.readHeader(ctx); err != nil {
					return 0, err
				}
			}
			r.advance(width, t.meta.MinimumSet)
		case t.meta.ActiveSet > r.number.Set(width):
			r.more = true // what was written until the set was closed
		case within && r.seen.nextTag > tag+1:
			if r.partial {
				torn := t.tornEntry(r)
				if t.bridge(ctx, r, torn) {
					continue
				}
				return 0, torn
			}
			if t.owed() {
				return 0, t.lostEntry(r)
			}
			return foundTagOver, nil
		case within && t.meta.NextTag > tag+1:
			r.more = true // what was written until the tag was over
		case !t.polled[r.offset]:
			r.more = true
		case t.stale():
			if err := t.readHeader(ctx); err != nil {
				return 0, err
			}
		case t.owed() && r.seen.refresh != t.refresh:
			r.more = true // what the primary had committed then has to be there now
		case t.owed():
			lost := t.lostEntry(r)
			if r.partial && t.bridge(ctx, r, lost) {
				continue
			}
			return 0, lost
		default:
			return foundNothing, nil
		}
	}
}

// startRead reads on at the due offset, and at every other one that may have more. It is
// false if there is no credit and it must not wait.
//
// Nobody waits for credit who holds some for nothing: what was read ahead is dropped
// first, and what the caller has will be done with, for it needs nothing of us for that
// once it was told (Hungry). So a tailer that waits holds nothing in the end, and then
// its Credit must not refuse it.
func (t *Tailer) startRead(ctx context.Context, r *objectReader, mayWait bool) (bool, error) {
	if r.inflight == nil {
		size, l, ok := t.tryLease(r)
		switch {
		case ok:
		case !mayWait:
			return false, nil
		default:
			if err := t.shed(ctx, r); err != nil {
				return false, err
			}
			if size, l, ok = t.tryLease(r); !ok {
				if t.cfg.Hungry != nil {
					t.cfg.Hungry()
				}
				var err error
				if l, err = t.ledger.wait(ctx, size); err != nil {
					return false, err
				}
			}
		}
		t.polled[r.offset] = true
		r.start(t.ctx, t, size, l)
	}
	t.prefetch()
	return true, nil
}

// tryLease takes credit for the next read of an offset: for all that is wanted, or the
// least that is of use. size is what can be read on it, or has to be waited for.
func (t *Tailer) tryLease(r *objectReader) (size int64, l *lease, ok bool) {
	size = max(t.readSize(r), int64(r.need))
	if l, ok = t.ledger.try(size); ok {
		return size, l, true
	}
	if least := max(t.minRead, int64(r.need)); least < size {
		size = least
		l, ok = t.ledger.try(size)
	}
	return size, l, ok
}

// prefetch takes in what has been read and starts reads at the offsets that have
// more, and room for it.
func (t *Tailer) prefetch() {
	for o, r := range t.readers {
		if r.ready() {
			t.finishRead(r, <-r.inflight)
		}
		if r.inflight != nil || r.err != nil || t.merge.queues[o].bytes > t.chunk() {
			continue
		}
		t.moveOn(r)
		if !r.more {
			continue
		}
		if size, l, ok := t.tryLease(r); ok {
			t.polled[o] = true
			r.start(t.ctx, t, size, l)
		}
	}
}

// moveOn goes on to the next object where that needs no second look; look does
// the rest, when the offset is due.
func (t *Tailer) moveOn(r *objectReader) {
	width := t.meta.SplayWidth
	switch {
	case r.more || r.partial:
	case r.final(width) && !r.missing:
		r.advance(width, t.meta.MinimumSet)
	case r.atEnd && !r.final(width) && t.meta.ActiveSet > r.number.Set(width):
		r.more = true
	}
}

// readSize is how much the next read asks for: little when it is a poll.
func (t *Tailer) readSize(r *objectReader) int64 {
	if r.atEnd {
		return t.minRead
	}
	return t.chunk()
}

// chunk is the most that one read asks for. Each offset holds two of them at
// most: one being read and one being handed out.
func (t *Tailer) chunk() int64 {
	share := t.budget.Load() / int64(len(t.readers)) / 2
	return min(max(share, t.minRead), 2<<t.meta.Order)
}

// finishRead takes in a read's result.
func (t *Tailer) finishRead(r *objectReader, res readResult) {
	atTail := r.atEnd
	before := t.merge.bytes
	asked := r.asked
	n := r.finish(res, t.merge)
	if res.err == nil {
		t.heard.Store(t.cfg.Now().UnixNano())
	}
	t.held.Add(t.merge.bytes - before - asked)
	if n > 0 && atTail {
		// Something was written. Entries go round the offsets: a single one says nothing but that the next offset is due;
		// several were written together with others at every offset.
		next := (r.offset + 1) % t.meta.SplayWidth
		for _, other := range t.readers {
			if other != r && (n > 1 || other.offset == next) && other.atEnd && other.inflight == nil {
				other.more = true
			}
		}
	}
}

func (t *Tailer) stale() bool {
	return t.dirty.Load() || t.cfg.Now().Sub(t.metaAt) >= t.cfg.Recheck
}

// readHeader reads the header and checks that the client may go on.
func (t *Tailer) readHeader(ctx context.Context) error {
	t.dirty.Store(false) // before, so that a change during it counts
	m, err := t.j.Refresh(ctx)
	if err != nil {
		t.dirty.Store(true)
		return err
	}
	t.meta, t.metaAt = m, t.cfg.Now()
	t.heard.Store(t.metaAt.UnixNano())
	t.refresh++
	if err := checkClient(m, t.cfg.ClientID); err != nil {
		return fmt.Errorf("journal of image %s, client %q: %w", t.j.imageID, t.cfg.ClientID, err)
	}
	return nil
}

// checkClient tells whether the client can rely on what is in the journal. While
// a client is connected nothing is trimmed beyond any of its positions, and nothing at
// all if it has none.
func checkClient(m Metadata, id string) error {
	c, ok := m.Client(id)
	switch {
	case !ok:
		return ErrNotRegistered
	case c.State == wire.Disconnected:
		return ErrDisconnected
	case len(c.CommitPosition) == 0 && m.MinimumSet > 0:
		return ErrTrimmed
	}
	for _, p := range c.CommitPosition {
		if p.Object.Set(m.SplayWidth) < m.MinimumSet {
			return ErrTrimmed
		}
	}
	return nil
}

// owed tells whether the primary has committed the entry that is due, as far as the
// header tells. It commits only what has been written, so the entry has to be there for
// a read that began after the header was read.
func (t *Tailer) owed() bool {
	if t.merge.state != within {
		return false
	}
	primary, _ := t.meta.Client(wire.MasterClientID)
	for _, p := range primary.CommitPosition {
		if p.Tag == t.merge.tag && p.Entry >= t.merge.next {
			return true
		}
	}
	return false
}

// lostEntry is for an entry that the primary has committed and that is not there, or
// not whole. To go on would leave its write out.
func (t *Tailer) lostEntry(r *objectReader) error {
	reason := fmt.Sprintf("entry %d of tag %d is missing, though the primary has committed it", t.merge.next, t.merge.tag)
	if r.partial {
		reason = fmt.Sprintf("the object ends within entry %d of tag %d, which the primary has committed", t.merge.next, t.merge.tag)
	}
	return &CorruptError{Object: t.j.DataObject(r.number), Offset: r.at, Err: &encoding.CorruptError{What: "journal.Entry", Reason: reason}}
}

// tornEntry is for an entry that is cut off where nothing will be written any more.
func (t *Tailer) tornEntry(r *objectReader) error {
	return &CorruptError{Object: t.j.DataObject(r.number), Offset: r.at, Err: &encoding.CorruptError{
		What: "journal.Entry", Reason: "the object ends within the entry and is complete",
	}}
}
