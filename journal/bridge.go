package journal

import (
	"bytes"
	"context"
	"errors"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
)

// Damage need not stop a client for ever: once it stands behind the damaged entries (a
// re-sync puts it there), the objects that hold them are still read from their
// beginning. What lies in a damaged run of bytes is known if the very entry that is due
// follows it in the object: entries of an object are in the order in which they were
// written, so all in the run came before the one that is due, and what came before that
// was handed out, or committed before the start.
//
// Nothing less will do: an entry of a newer tag behind the damage says nothing of how
// many of this one are in it.

// Bridged is a run of bytes that could not be read and need not be.
type Bridged struct {
	Object string
	// From and To bound the run, in bytes of the object.
	From, To uint64
	// Before is the entry that follows it, which was due.
	Before wire.ObjectPosition
	Err    error // what is wrong with the bytes
}

// bridge goes on behind the damage where r stands, if the entry that is due follows it.
// Otherwise false: the damage hides entries, or nobody can tell.
func (t *Tailer) bridge(ctx context.Context, r *objectReader, damage error) bool {
	var corrupt *CorruptError
	if t.merge.state != within || !errors.As(damage, &corrupt) || corrupt.Object != t.j.DataObject(r.number) {
		return false
	}
	from := corrupt.Offset
	size := uint64(2) << t.meta.Order // appends are refused before an object is as large
	t.held.Add(int64(size))
	defer t.held.Add(-int64(size))
	data, missing, err := t.j.readRaw(ctx, r.number, from, size)
	if err != nil || missing {
		return false
	}
	to, found := t.findDue(data, r.number, from)
	if !found {
		return false
	}
	t.bridged = append(t.bridged, Bridged{
		Object: corrupt.Object, From: from, To: to, Err: corrupt.Err,
		Before: wire.ObjectPosition{Object: r.number, Tag: t.merge.tag, Entry: t.merge.next},
	})
	r.at, r.need, r.more = to, 0, true
	r.atEnd, r.partial, r.missing = false, false, false
	return true
}

// findDue looks in b, which lies at that offset of the object, for the entry that is
// due. Bytes that a guest wrote may look like an entry: it counts only if all behind it
// can be read.
func (t *Tailer) findDue(b []byte, object wire.ObjectNumber, offset uint64) (at uint64, found bool) {
	magic := wire.EntryMagic()
	for i := 1; i < len(b); i++ {
		next := bytes.Index(b[i:], magic)
		if next < 0 {
			return 0, false
		}
		i += next
		e, _, err := wire.DecodeEntry(b[i:])
		if err != nil || e.Tag != t.merge.tag || e.TID != t.merge.next {
			continue
		}
		at := offset + uint64(i)
		if _, err := parseChunk(b[i:], object, at, wire.MaxEntrySize(t.meta.Order)); err == nil {
			return at, true
		}
	}
	return 0, false
}

// takeBridged tells what was bridged since the last call.
func (t *Tailer) takeBridged() []Bridged {
	b := t.bridged
	t.bridged = nil
	return b
}
