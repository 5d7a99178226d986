package imagesync

import (
	"slices"

	"github.com/rbdwarden/rbdwarden/rados"
)

// extentSet is a set of bytes of an object: extents in ascending order that neither
// overlap nor touch.
type extentSet []rados.Extent

func end(e rados.Extent) uint64 { return e.Offset + e.Length }

// add gives the union with an extent.
func (s extentSet) add(e rados.Extent) extentSet {
	if e.Length == 0 {
		return s
	}
	out := make(extentSet, 0, len(s)+1)
	placed := false
	for _, have := range s {
		switch {
		case end(have) < e.Offset:
			out = append(out, have)
		case have.Offset > end(e):
			if !placed {
				out = append(out, e)
				placed = true
			}
			out = append(out, have)
		default: // they overlap or touch
			to := max(end(have), end(e))
			e.Offset = min(have.Offset, e.Offset)
			e.Length = to - e.Offset
		}
	}
	if !placed {
		out = append(out, e)
	}
	return out
}

func (s extentSet) union(other extentSet) extentSet {
	for _, e := range other {
		s = s.add(e)
	}
	return s
}

// remove gives the set without an extent.
func (s extentSet) remove(e rados.Extent) extentSet {
	out := make(extentSet, 0, len(s)+1)
	for _, have := range s {
		if left := min(end(have), e.Offset); left > have.Offset {
			out = append(out, rados.Extent{Offset: have.Offset, Length: left - have.Offset})
		}
		if right := max(have.Offset, end(e)); right < end(have) {
			out = append(out, rados.Extent{Offset: right, Length: end(have) - right})
		}
	}
	if e.Length == 0 {
		return slices.Clone(s)
	}
	return out
}

// clip gives what is below limit.
func (s extentSet) clip(limit uint64) extentSet {
	out := make(extentSet, 0, len(s))
	for _, e := range s {
		if e.Offset < limit {
			e.Length = min(end(e), limit) - e.Offset
			out = append(out, e)
		}
	}
	return out
}
