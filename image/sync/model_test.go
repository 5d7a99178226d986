package imagesync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/rados"
)

// modelObject is a RADOS object as an OSD keeps it: a head, and clones of what the
// head was, made by the first write after a snapshot.
type modelObject struct {
	head   []byte
	exists bool
	seq    ceph.SnapID
	clones []modelClone // oldest first
}

type modelClone struct {
	id    ceph.SnapID
	snaps []ceph.SnapID // ascending
	data  []byte
	same  []bool // by byte: equal in the next newer state
}

// write does an operation as PrimaryLogPG does: clone if the context is newer than
// what the object has seen, then the steps; every byte that a step touches differs
// from then on, whatever is written.
func (o *modelObject) write(op *rados.WriteOp) error {
	if op.SnapContext.Seq > o.seq {
		if o.exists {
			var snaps []ceph.SnapID
			for _, s := range op.SnapContext.Snaps {
				if s > o.seq {
					snaps = append(snaps, s)
				}
			}
			slices.Sort(snaps)
			if len(snaps) > 0 {
				same := make([]bool, len(o.head))
				for i := range same {
					same[i] = true
				}
				o.clones = append(o.clones, modelClone{id: snaps[len(snaps)-1], snaps: snaps, data: bytes.Clone(o.head), same: same})
			}
		}
		o.seq = op.SnapContext.Seq
	}
	for _, s := range op.Steps {
		switch s.Kind {
		case rados.WriteAllocHint:
			o.exists = true
		case rados.WriteCreate:
			o.exists = true
		case rados.WriteRemove:
			if !o.exists {
				return syscall.ENOENT
			}
			o.touch(0, len(o.head))
			o.head, o.exists = nil, false
		case rados.WriteTruncate:
			if o.exists {
				o.resize(int(s.Offset))
			}
		case rados.WriteZero:
			if !o.exists || int(s.Offset) >= len(o.head) {
				break
			}
			if int(s.Offset+s.Length) >= len(o.head) {
				o.resize(int(s.Offset))
				break
			}
			o.touch(int(s.Offset), int(s.Length))
			clear(o.head[s.Offset : s.Offset+s.Length])
		case rados.WriteData:
			o.exists = true
			if n := int(s.Offset) + len(s.Data); n > len(o.head) {
				o.resize(n)
			}
			o.touch(int(s.Offset), len(s.Data))
			copy(o.head[s.Offset:], s.Data)
		default:
			return fmt.Errorf("step kind %d is not in the model", s.Kind)
		}
	}
	return nil
}

func (o *modelObject) resize(n int) {
	if n < len(o.head) {
		o.touch(n, len(o.head)-n)
		o.head = bytes.Clone(o.head[:n])
		return
	}
	o.head = append(o.head[:len(o.head):len(o.head)], make([]byte, n-len(o.head))...)
}

// touch notes that bytes of the head differ from those of the newest clone.
func (o *modelObject) touch(at, n int) {
	if len(o.clones) == 0 {
		return
	}
	same := o.clones[len(o.clones)-1].same
	for i := at; i < min(at+n, len(same)); i++ {
		same[i] = false
	}
}

// trim removes a snapshot; a clone that no snapshot needs goes, and what it had in
// common with its neighbours is then what both steps leave alone.
func (o *modelObject) trim(snap ceph.SnapID) {
	for i := range o.clones {
		c := &o.clones[i]
		at := slices.Index(c.snaps, snap)
		if at < 0 {
			continue
		}
		c.snaps = slices.Delete(slices.Clone(c.snaps), at, at+1)
		if len(c.snaps) > 0 {
			return
		}
		if i > 0 {
			older := o.clones[i-1].same
			for k := range older {
				older[k] = older[k] && k < len(c.same) && c.same[k]
			}
		}
		o.clones = slices.Delete(o.clones, i, i+1)
		return
	}
}

// at is the object's state at a snapshot, ceph.NoSnap for the head.
func (o *modelObject) at(snap ceph.SnapID) ([]byte, bool) {
	if snap > o.seq {
		return o.head, o.exists
	}
	for _, c := range o.clones {
		if slices.Contains(c.snaps, snap) {
			return c.data, true
		}
	}
	return nil, false
}

// history is what ListSnaps answers.
func (o *modelObject) history() history {
	if o == nil || len(o.clones) == 0 && !o.exists {
		return history{}
	}
	h := history{seq: o.seq}
	for _, c := range o.clones {
		clone := rados.Clone{ID: c.id, Snaps: slices.Clone(c.snaps), Size: uint64(len(c.data))}
		var same extentSet
		for i, s := range c.same {
			if s {
				same = same.add(rados.Extent{Offset: uint64(i), Length: 1})
			}
		}
		clone.Overlap = same
		h.clones = append(h.clones, clone)
	}
	if o.exists {
		h.clones = append(h.clones, rados.Clone{ID: ceph.NoSnap, Size: uint64(len(o.head))})
	}
	return h
}

// modelIO reads one object of the model.
type modelIO struct {
	rados.IOContext
	object *modelObject
	// holes: sparse reads leave out bytes in blocks of zeros of this size.
	holes int
}

func (m modelIO) Read(_ context.Context, _ string, op *rados.ReadOp) error {
	for _, s := range op.Steps {
		switch s.Kind {
		case rados.ReadListSnaps:
			h := m.object.history()
			if len(h.clones) == 0 {
				return syscall.ENOENT
			}
			s.Clones, s.Seq = h.clones, h.seq
		case rados.ReadSparse:
			data, ok := m.object.at(op.Snap)
			if !ok {
				return syscall.ENOENT
			}
			m.sparse(s, data)
		default:
			return errors.New("not in the model")
		}
	}
	return nil
}

func (m modelIO) sparse(s *rados.ReadStep, data []byte) {
	var found extentSet
	for at := int(s.Offset); at < min(len(data), int(s.Offset+s.Length)); {
		next := min((at/m.holes+1)*m.holes, len(data), int(s.Offset+s.Length))
		if !allZeros(data[at:next]) {
			found = found.add(rados.Extent{Offset: uint64(at), Length: uint64(next - at)})
		}
		at = next
	}
	s.Extents = found
	for _, e := range found {
		s.Data = append(s.Data, data[e.Offset:e.Offset+e.Length]...)
	}
}
