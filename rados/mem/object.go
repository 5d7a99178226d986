package mem

import (
	"maps"
	"slices"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/rados"
)

// state is what a snapshot of an object keeps.
type state struct {
	data   pages
	xattrs map[string][]byte
	omap   map[string][]byte
	mtime  time.Time
}

func (s *state) clone() state {
	return state{data: s.data.clone(), xattrs: maps.Clone(s.xattrs), omap: maps.Clone(s.omap), mtime: s.mtime}
}

// object is a head, its clones, and what hangs on its name.
type object struct {
	exists  bool
	head    state
	version uint64
	seq     ceph.SnapID // newest snapshot that a write has seen
	clones  []clone     // oldest first
	locks   lock.Object
	watches []*watch
}

// clone is the state of an object for the snapshots between the clone before it and
// its id.
type clone struct {
	id      ceph.SnapID
	snaps   []ceph.SnapID // ascending, never empty
	state   state
	overlap extents // equal in the next newer state
}

// gone says that nothing of the object is left to remember.
func (o *object) gone() bool { return !o.exists && len(o.clones) == 0 && len(o.watches) == 0 }

// at finds the state that a reader sees; false if the object did not exist then.
func (o *object) at(snap ceph.SnapID) (*state, bool) {
	if snap == 0 || snap == ceph.NoSnap || snap > o.seq {
		return &o.head, o.exists
	}
	for i := range o.clones {
		if c := &o.clones[i]; c.id >= snap {
			return &c.state, slices.Contains(c.snaps, snap)
		}
	}
	return nil, false
}

// beforeWrite makes a clone if snapshots were taken since the last write.
func (o *object) beforeWrite(c ceph.SnapContext) {
	if o.exists && len(c.Snaps) > 0 && c.Snaps[0] > o.seq {
		var snaps []ceph.SnapID
		for _, s := range c.Snaps {
			if s > o.seq {
				snaps = append(snaps, s)
			}
		}
		slices.Sort(snaps)
		kept := o.head.clone()
		o.clones = append(o.clones, clone{id: c.Seq, snaps: snaps, state: kept, overlap: whole(kept.data.size)})
	}
	o.seq = max(o.seq, c.Seq)
}

// changed notes that a range of the head no longer equals the newest clone.
func (o *object) changed(offset, length uint64) {
	if n := len(o.clones); n > 0 {
		o.clones[n-1].overlap = o.clones[n-1].overlap.without(offset, length)
	}
}

// unchangedSince is what is the same in all states from a snapshot to the head.
func (o *object) unchangedSince(snap ceph.SnapID) extents {
	same := extents{{Offset: 0, Length: everything}}
	for _, c := range o.clones {
		if c.id >= snap {
			same = same.both(c.overlap)
		}
	}
	return same
}

// trim forgets a snapshot, and clones that no other needs.
func (o *object) trim(id ceph.SnapID) {
	for i := range o.clones {
		c := &o.clones[i]
		c.snaps = slices.DeleteFunc(c.snaps, func(s ceph.SnapID) bool { return s == id })
		if len(c.snaps) == 0 {
			if i > 0 {
				older := &o.clones[i-1]
				older.overlap = older.overlap.both(c.overlap)
			}
			o.clones = slices.Delete(o.clones, i, i+1)
			return
		}
	}
}

// list is what ListSnaps answers.
func (o *object) list() (clones []rados.Clone, seq ceph.SnapID, err error) {
	if !o.exists && len(o.clones) == 0 {
		return nil, 0, syscall.ENOENT
	}
	for _, c := range o.clones {
		clones = append(clones, rados.Clone{ID: c.id, Snaps: slices.Clone(c.snaps),
			Overlap: slices.Clone(c.overlap), Size: c.state.data.size})
	}
	if o.exists {
		clones = append(clones, rados.Clone{ID: ceph.NoSnap, Size: o.head.data.size})
	}
	return clones, o.seq, nil
}

// copy gives an object that can be changed without the original noticing, except for
// locks and watches.
func (o *object) copy() *object {
	n := *o
	n.head = o.head.clone()
	n.clones = slices.Clone(o.clones)
	return &n
}

// extents are ranges, ascending, not touching.
type extents []rados.Extent

func whole(size uint64) extents {
	if size == 0 {
		return nil
	}
	return extents{{Offset: 0, Length: size}}
}

func (e extents) without(offset, length uint64) extents {
	var out extents
	end := offset + length
	for _, x := range e {
		xend := x.Offset + x.Length
		if xend <= offset || x.Offset >= end {
			out = append(out, x)
			continue
		}
		if x.Offset < offset {
			out = append(out, rados.Extent{Offset: x.Offset, Length: offset - x.Offset})
		}
		if xend > end {
			out = append(out, rados.Extent{Offset: end, Length: xend - end})
		}
	}
	return out
}

func (e extents) minus(f extents) extents {
	for _, y := range f {
		e = e.without(y.Offset, y.Length)
	}
	return e
}

// both is what two lists have in common.
func (e extents) both(f extents) extents {
	var out extents
	for _, x := range e {
		for _, y := range f {
			from, to := max(x.Offset, y.Offset), min(x.Offset+x.Length, y.Offset+y.Length)
			if from < to {
				out = append(out, rados.Extent{Offset: from, Length: to - from})
			}
		}
	}
	return out
}
