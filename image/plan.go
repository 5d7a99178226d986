package image

import (
	"cmp"
	"maps"
	"slices"

	"github.com/rbdwarden/rbdwarden/rados"
)

// objectPlan is what a batch does to one data object.
type objectPlan struct {
	object  ObjectNumber
	cleared bool    // the whole object was discarded before what over holds
	over    overlay // what came after
	// behind says that a cleared object is behind the image's new end: it is removed
	// even where an object that does not exist shows the parent's bytes.
	behind bool
}

// objectAction is how a plan changes an object's existence, which decides the
// object map's states before and after (src/librbd/io/ObjectRequest.cc).
type objectAction uint8

const (
	// actionNone: the object does not exist and stays so.
	actionNone objectAction = iota
	// actionWrite: the map says EXISTS first, then the object is written, zeroed
	// or truncated.
	actionWrite
	// actionRemove: the map says PENDING, then the object is removed, then the
	// map says NONEXISTENT. Had the map said so first, a crash would leave an
	// object that nobody knows of.
	actionRemove
)

// planBatch gathers I/Os, in journal order and without CompareAndWrite, into one
// plan for each object that they touch, ordered by object. The I/Os are clipped
// to an image of size bytes.
func planBatch(l Layout, size uint64, ios []IO) []*objectPlan {
	plans := make(map[ObjectNumber]*objectPlan)
	for _, io := range ios {
		if io.Kind == Discard && alreadyAligned(l, io) {
			io.DiscardGranularity = 0
		}
		io, ok := io.clip(size)
		if !ok {
			continue
		}
		for _, e := range l.Extents(io.Offset, io.Length) {
			if io.Kind == Discard {
				e, ok = alignDiscard(e, io.DiscardGranularity, l.ObjectSize())
				if !ok {
					continue
				}
			}
			p := plans[e.Object]
			if p == nil {
				p = &objectPlan{object: e.Object}
				plans[e.Object] = p
			}
			p.add(io, e, l.ObjectSize())
		}
	}
	return slices.SortedFunc(maps.Values(plans), func(a, b *objectPlan) int { return cmp.Compare(a.object, b.object) })
}

// alreadyAligned tells whether a journalled discard is what its primary made of the
// discard that it was asked for, piece by piece: then it has to be done to the byte.
//
// Since 16.2.11 librbd journals what is left of a discard after alignDiscard, if that
// is less than there was: one event for each stripe unit, still with the granularity
// (src/librbd/io/ImageRequest.cc, AbstractImageWriteRequest::send_request). Where the
// granularity is larger than the unit, alignDiscard would leave nothing of such a piece
// (and rbd-mirror does lose it). An older librbd journals the discard as it was asked
// for, but not one of which nothing would be left: so that tells them apart.
func alreadyAligned(l Layout, io IO) bool {
	if io.DiscardGranularity == 0 {
		return true
	}
	for _, e := range l.Extents(io.Offset, io.Length) {
		if _, some := alignDiscard(e, io.DiscardGranularity, l.ObjectSize()); some {
			return false
		}
	}
	return true
}

// alignDiscard shrinks a discard to the granularity, as librbd does with each
// object extent (src/librbd/io/ImageRequest.cc, ImageDiscardRequest::
// prune_object_extents). ok is false if nothing is left. A granularity of an
// object or more still lets a discard that runs to the object's end through: it
// becomes a truncation.
func alignDiscard(e ObjectExtent, granularity, objectSize uint64) (_ ObjectExtent, ok bool) {
	if granularity == 0 {
		return e, true
	}
	granularity = min(granularity, objectSize)
	end := e.Offset + e.Length
	if granularity == objectSize && end == objectSize {
		return e, true
	}
	e.Offset = (e.Offset + granularity - 1) / granularity * granularity
	end = end / granularity * granularity
	if e.Offset >= end {
		return e, false
	}
	e.Length = end - e.Offset
	e.Buffer = nil // a discard has none
	return e, true
}

// add lays one object extent of io over the plan.
func (p *objectPlan) add(io IO, e ObjectExtent, objectSize uint64) {
	switch io.Kind {
	case Discard:
		switch {
		case e.Length == objectSize:
			p.cleared = true
			p.over.segments = nil
		case p.cleared: // what is below reads as zeros already
			p.over.clear(e.Offset, e.Offset+e.Length)
		case p.over.zero(e.Offset, e.Offset+e.Length) == objectSize: // piece by piece
			p.cleared = true
			p.over.segments = nil
		}
	case Write:
		at := e.Offset
		for _, b := range e.Buffer {
			p.over.put(segment{kind: segmentData, start: at, end: at + b.Length, data: io.Data[b.Offset : b.Offset+b.Length]})
			at += b.Length
		}
	case WriteSame:
		at := e.Offset
		for _, b := range e.Buffer {
			p.over.put(segment{kind: segmentPattern, start: at, end: at + b.Length, data: io.Data, phase: b.Offset % uint64(len(io.Data))})
			at += b.Length
		}
	}
}

// action tells what happens to the object's existence. mayExist is what the object
// map knows (true if it knows nothing). parent says that an object of this number
// shows bytes of the image's parent if it does not exist; copyUp that these are needed.
func (p *objectPlan) action(mayExist, parent, copyUp bool) objectAction {
	switch {
	case p.over.writes():
		return actionWrite
	case p.cleared && (!parent || p.behind):
		if mayExist || copyUp {
			return actionRemove
		}
		return actionNone
	case !mayExist && !parent:
		return actionNone
	case p.cleared, len(p.over.segments) > 0:
		return actionWrite // an empty object hides the parent's
	}
	return actionNone
}

// needsParent tells whether the parent's bytes have to be in an object that does not
// exist before the plan is carried out: where some of them stay, or snapshots need
// them (src/librbd/io/ObjectRequest.cc, compute_parent_info).
func (p *objectPlan) needsParent(snapshots bool, objectSize uint64) bool {
	return snapshots || !p.cleared && !p.over.covers(objectSize)
}

// Bounds of what is built from one plan.
const (
	// maxSteps is how many steps one RADOS operation gets. The limit of the
	// protocol is 65535; fewer keep the OSD's work on one operation short.
	maxSteps = 1024
	// maxExpand is the longest repetition of a pattern that is sent as bytes, and
	// the longest write that is copied together with its neighbours.
	maxExpand = 64 << 10
)

// ops builds the RADOS operations that carry the plan out for actionWrite; they
// are independent of each other but for the first, which must come first. hint
// asks for an allocation hint. An object gets one operation unless it has more
// than maxSteps separate segments.
func (p *objectPlan) ops(l Layout, mayExist, hint bool) []*rados.WriteOp {
	op := new(rados.WriteOp)
	ops := []*rados.WriteOp{op}
	if hint && p.over.writes() {
		op.AllocHint(l.ObjectSize(), l.ObjectSize())
	}
	if p.cleared && mayExist {
		// Not a removal: that fails with ENOENT where the object is already gone.
		op.Truncate(0)
	}
	for i := 0; i < len(p.over.segments); i++ {
		if len(op.Steps) >= maxSteps {
			op = new(rados.WriteOp)
			ops = append(ops, op)
		}
		s := p.over.segments[i]
		switch {
		case s.kind == segmentZero && !mayExist: // reads as zeros already
		case s.kind == segmentZero && s.end == l.ObjectSize():
			op.Truncate(s.start)
		case s.kind == segmentZero:
			op.Zero(s.start, s.end-s.start)
		case s.kind == segmentPattern && s.end-s.start > maxExpand && len(s.data) <= maxExpand:
			addPattern(op, s)
		default:
			n := p.run(i)
			op.Write(s.start, joined(p.over.segments[i:i+n]))
			i += n - 1
		}
	}
	if len(op.Steps) == 0 {
		ops = ops[:len(ops)-1]
	}
	return ops
}

// run tells how many segments from i on follow each other without a gap and are
// small enough to be worth copying together.
func (p *objectPlan) run(i int) int {
	s := p.over.segments
	n := 1
	for small(s[i]) && i+n < len(s) && s[i+n].kind != segmentZero && small(s[i+n]) && s[i+n].start == s[i+n-1].end {
		n++
	}
	return n
}

func small(s segment) bool { return s.end-s.start <= maxExpand }

// joined gives the bytes of adjacent segments in one slice.
func joined(s []segment) []byte {
	if len(s) == 1 {
		return s[0].bytes()
	}
	out := make([]byte, 0, s[len(s)-1].end-s[0].start)
	for _, one := range s {
		out = append(out, one.bytes()...)
	}
	return out
}

// addPattern lets the OSD repeat the pattern, and sends the incomplete last
// repetition as bytes.
func addPattern(op *rados.WriteOp, s segment) {
	size := uint64(len(s.data))
	turned := append(slices.Clone(s.data[s.phase:]), s.data[:s.phase]...)
	whole := (s.end - s.start) / size * size
	op.WriteSame(s.start, whole, turned)
	if rest := s.end - s.start - whole; rest > 0 {
		op.Write(s.start+whole, turned[:rest])
	}
}

// payload is the number of bytes that the operations carry.
func payload(ops []*rados.WriteOp) int64 {
	var n int64
	for _, op := range ops {
		for i := range op.Steps {
			n += int64(len(op.Steps[i].Data))
		}
	}
	return n
}
