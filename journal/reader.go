package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/rados"
)

// objectReader reads the objects of one splay offset, one behind the other. Its
// fields belong to the tailer's goroutine; a read under way only sends its result.
type objectReader struct {
	offset uint8
	number wire.ObjectNumber // the object that is read
	at     uint64            // next byte to parse in it
	need   int               // bytes the next read must ask for at least: an entry was cut off

	inflight chan readResult // nil if no read is under way
	asked    int64           // bytes that the read under way may bring
	started  time.Time       // when it was begun
	more     bool            // a read is worth while: not yet read to the end
	err      error           // a failed read, for when this offset is due

	// What the last read found, if it found the end of what is written. It knows
	// no more than what had been true when it began: the header as in seen.
	atEnd   bool
	partial bool // the end is within an entry
	missing bool // the object does not exist
	seen    seenHeader
}

// seenHeader is what of the header was known before a read began.
type seenHeader struct {
	active  wire.ObjectSet
	nextTag wire.TagTID
	refresh uint64 // Tailer.refresh
}

type readResult struct {
	chunk
	atEnd   bool
	missing bool
	seen    seenHeader
	kept    int64 // bytes of memory that the entries share
	err     error
}

// chunk is what was parsed of a run of bytes.
type chunk struct {
	entries []Entry
	parsed  int // bytes up to the end of the last entry, and padding behind it
	need    int // bytes from there on that the next entry takes at least; 0 if nothing is left over
}

// parseChunk parses b, which lies at that offset of the object. What is right
// before a corrupt place is in the result together with the error. maxEntry is the
// largest an entry can be.
func parseChunk(b []byte, object wire.ObjectNumber, offset uint64, maxEntry int64) (c chunk, err error) {
	var more wire.NeedMore
	for c.parsed < len(b) {
		rest, at := b[c.parsed:], offset+uint64(c.parsed)
		if rest[0] == 0 {
			n, err := wire.Padding(rest, at)
			c.parsed += n
			if errors.As(err, &more) {
				c.need = len(rest) - n + int(more)
				return c, nil
			}
			if err != nil {
				return c, err
			}
			continue
		}
		e, size, err := wire.DecodeEntry(rest)
		if errors.As(err, &more) {
			c.need = len(rest) + int(more)
			if int64(c.need) > maxEntry {
				return c, tooLarge(c.need, maxEntry)
			}
			return c, nil
		}
		if err != nil {
			return c, err
		}
		c.entries = append(c.entries, Entry{
			Position: wire.ObjectPosition{Object: object, Tag: e.Tag, Entry: e.TID},
			Offset:   at,
			Payload:  e.Payload,
		})
		c.parsed += size
	}
	return c, nil
}

func tooLarge(size int, maxEntry int64) error {
	return &encoding.CorruptError{What: "journal.Entry", Reason: fmt.Sprintf("entry of %d bytes, %d is the most", size, maxEntry)}
}

// readRaw reads up to length bytes of a data object, none if it is missing.
func (j *Journal) readRaw(ctx context.Context, number wire.ObjectNumber, at, length uint64) (b []byte, missing bool, err error) {
	var op rados.ReadOp
	data := op.Read(at, length)
	err = j.data.Read(ctx, j.DataObject(number), &op)
	if errors.Is(err, syscall.ENOENT) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read journal: %w", err)
	}
	return data.Data, false, nil
}

// read reads and parses length bytes from where r stands.
func (j *Journal) read(ctx context.Context, number wire.ObjectNumber, at, length uint64) readResult {
	name := j.DataObject(number)
	b, missing, err := j.readRaw(ctx, number, at, length)
	if err != nil || missing {
		return readResult{atEnd: missing, missing: missing, err: err}
	}
	j.mu.Lock()
	maxEntry := wire.MaxEntrySize(j.meta.Order)
	j.mu.Unlock()
	if len(b) < cap(b)/2 {
		b = bytes.Clone(b) // entries keep their buffer alive: no large one for a few
	}
	c, err := parseChunk(b, number, at, maxEntry)
	if err != nil {
		err = &CorruptError{Object: name, Offset: at + uint64(c.parsed), Err: err}
	}
	return readResult{chunk: c, atEnd: uint64(len(b)) < length, kept: int64(cap(b)), err: err}
}

// ready says that a read's result can be taken in without waiting.
func (r *objectReader) ready() bool { return len(r.inflight) > 0 }

// start begins a read of size bytes, on a lease of as many.
func (r *objectReader) start(ctx context.Context, t *Tailer, size int64, on *lease) {
	seen := seenHeader{active: t.meta.ActiveSet, nextTag: t.meta.NextTag, refresh: t.refresh}
	done := make(chan readResult, 1)
	r.inflight, r.asked, r.more, r.started = done, size, false, t.cfg.Now()
	t.held.Add(size)
	number, at := r.number, r.at
	t.reads.Go(func() {
		res := t.j.read(ctx, number, at, uint64(size))
		res.seen = seen
		on.settle(res.entries, res.kept)
		done <- res
	})
}

// finish takes in the result of the read under way and tells how many entries it
// brought.
func (r *objectReader) finish(res readResult, m *merge) int {
	r.inflight, r.asked = nil, 0
	m.feed(r.offset, res.entries)
	r.at += uint64(res.parsed)
	r.need = res.need
	if res.err != nil {
		r.atEnd, r.more = false, true
		if len(res.entries) == 0 {
			r.err = res.err
		} // else the next read meets it again, when the entries before it are used up
		return len(res.entries)
	}
	r.atEnd, r.missing, r.seen = res.atEnd, res.missing, res.seen
	r.partial = res.atEnd && res.need > 0
	r.more = !res.atEnd
	return len(res.entries)
}

// final says that the object has been read to the end and that nothing will be
// appended to it: the active set was known to be beyond it before the read.
func (r *objectReader) final(width uint8) bool {
	return r.atEnd && r.seen.active > r.number.Set(width)
}

// advance goes on to the object of the next set, or of the oldest that there is.
func (r *objectReader) advance(width uint8, minimum wire.ObjectSet) {
	set := max(r.number.Set(width)+1, minimum)
	*r = objectReader{offset: r.offset, number: set.Object(width, r.offset), more: true}
}
