package image

import "sort"

// overlay collects what a batch does to one data object: disjoint segments in
// order of offset, where a later put replaces what it covers.
type overlay struct {
	segments []segment
}

type segmentKind uint8

const (
	segmentData    segmentKind = iota + 1 // data are the bytes
	segmentPattern                        // data repeats, beginning at byte phase of it
	segmentZero                           // discarded
)

type segment struct {
	kind       segmentKind
	start, end uint64 // bytes of the object, end exclusive
	data       []byte
	phase      uint64
}

// cut gives the part of s in [start, end), which must lie within s.
func (s segment) cut(start, end uint64) segment {
	switch s.kind {
	case segmentData:
		s.data = s.data[start-s.start : end-s.start]
	case segmentPattern:
		s.phase = (s.phase + start - s.start) % uint64(len(s.data))
	}
	s.start, s.end = start, end
	return s
}

// bytes gives the segment's bytes; for a pattern they are made.
func (s segment) bytes() []byte {
	if s.kind == segmentData {
		return s.data
	}
	out := make([]byte, s.end-s.start)
	if s.kind == segmentPattern {
		n := copy(out, s.data[s.phase:])
		for n < len(out) {
			n += copy(out[n:], s.data)
		}
	}
	return out
}

// put lays s over what is there.
func (o *overlay) put(s segment) {
	o.clear(s.start, s.end)
	i := sort.Search(len(o.segments), func(i int) bool { return o.segments[i].start >= s.end })
	o.segments = append(o.segments, segment{})
	copy(o.segments[i+1:], o.segments[i:])
	o.segments[i] = s
}

// zero lays zeros over [start, end), joins them with the zeros that they touch, and
// gives the length of the whole.
func (o *overlay) zero(start, end uint64) uint64 {
	i := sort.Search(len(o.segments), func(i int) bool { return o.segments[i].end >= start })
	for ; i < len(o.segments) && o.segments[i].start <= end; i++ {
		if s := o.segments[i]; s.kind == segmentZero {
			start, end = min(start, s.start), max(end, s.end)
		}
	}
	o.put(segment{kind: segmentZero, start: start, end: end})
	return end - start
}

// clear forgets what is in [start, end).
func (o *overlay) clear(start, end uint64) {
	first := sort.Search(len(o.segments), func(i int) bool { return o.segments[i].end > start })
	last := first
	var keep []segment // what stays of the segments first..last-1
	for ; last < len(o.segments) && o.segments[last].start < end; last++ {
		s := o.segments[last]
		if s.start < start {
			keep = append(keep, s.cut(s.start, start))
		}
		if s.end > end {
			keep = append(keep, s.cut(end, s.end))
		}
	}
	if first == last {
		return
	}
	if grow := len(keep) - (last - first); grow > 0 { // a hole within one segment
		o.segments = append(o.segments, segment{})
		copy(o.segments[last+1:], o.segments[last:])
		last++
	} else if grow < 0 {
		o.segments = append(o.segments[:last+grow], o.segments[last:]...)
		last += grow
	}
	copy(o.segments[first:last], keep)
}

// writes reports whether any segment puts bytes into the object.
func (o *overlay) writes() bool {
	for _, s := range o.segments {
		if s.kind != segmentZero {
			return true
		}
	}
	return false
}

// covers reports whether the segments leave nothing out of the first size bytes.
func (o *overlay) covers(size uint64) bool {
	var end uint64
	for _, s := range o.segments {
		if s.start > end {
			return false
		}
		end = s.end
	}
	return end >= size
}
