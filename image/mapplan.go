package image

import "github.com/rbdwarden/rbdwarden/ceph/rbd"

// maxMapUpdate is how many objects one update of the object map covers at most, a
// multiple of the map's blocks (src/librbd/object_map/UpdateRequest.cc).
const maxMapUpdate = 256 << 10

// mapRange is objects [start, end) that get one state in the object map.
type mapRange struct {
	start, end uint64
	state      rbd.ObjectState
	// current, if not nil, is the state that an object must be in to get the new
	// one; ObjectExists stands for ObjectExistsClean, too.
	current *rbd.ObjectState
}

// mapChangeNeeded tells whether the map must be written for an object to go from
// one state to another (src/librbd/ObjectMap.cc, update_required): an object that
// does not exist need not become pending, and only a pending one becomes
// nonexistent.
func mapChangeNeeded(from, to rbd.ObjectState) bool {
	switch {
	case from == to,
		to == rbd.ObjectPending && from == rbd.ObjectNonexistent,
		to == rbd.ObjectNonexistent && from != rbd.ObjectPending:
		return false
	}
	return true
}

// planMapChanges finds the ranges that have to be written so that the objects, in
// ascending order, get the state. A range also runs over objects in between that
// have the state already. Objects beyond the map's end are left out: the map is
// known to be wrong then.
func planMapChanges(m *rbd.ObjectMap, objects []ObjectNumber, state rbd.ObjectState) []mapRange {
	var out []mapRange
	for _, object := range objects {
		n := uint64(object)
		if n >= m.Size() || !mapChangeNeeded(m.At(n), state) {
			continue
		}
		if k := len(out); k > 0 && n+1-out[k-1].start <= maxMapUpdate && allInState(m, out[k-1].end, n, state) {
			out[k-1].end = n + 1
			continue
		}
		out = append(out, mapRange{start: n, end: n + 1, state: state})
	}
	return out
}

func allInState(m *rbd.ObjectMap, start, end uint64, state rbd.ObjectState) bool {
	for i := start; i < end; i++ {
		if m.At(i) != state {
			return false
		}
	}
	return true
}

// split cuts a range into pieces that one update each may have, up to the map's
// end.
func (r mapRange) split(size uint64) []mapRange {
	var out []mapRange
	end := min(r.end, size)
	for r.start < end {
		piece := r
		piece.end = min(r.start+maxMapUpdate, end)
		out = append(out, piece)
		r.start = piece.end
	}
	return out
}

// changes tells whether a piece of a map has any object that the range changes.
func (r mapRange) changes(m *rbd.ObjectMap) bool {
	for i := r.start; i < r.end; i++ {
		s := m.At(i)
		fits := r.current == nil || s == *r.current || *r.current == rbd.ObjectExists && s == rbd.ObjectExistsClean
		if s != r.state && fits {
			return true
		}
	}
	return false
}

// Bounds of when the whole map is written instead of ranges of it.
const (
	maxMapRanges = 4       // more ranges than these are written as one whole map,
	maxMapSave   = 1 << 20 // unless the map has more bytes than this
)

// saveWhole tells whether writing the map as a whole is cheaper than range by
// range. A range costs one operation: several updates cannot share one, for a
// class method does not see what an earlier step of its own operation wrote, and
// updates rewrite whole blocks of 4096 bytes, so that the last would undo the
// others.
func saveWhole(m *rbd.ObjectMap, ranges int) bool {
	return ranges > maxMapRanges && m.Bytes() <= maxMapSave
}
