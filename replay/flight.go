package replay

import (
	"cmp"
	"slices"
)

// flight is a planned step with what the planner keeps about it.
type flight struct {
	step    Step
	segment *segment // becomes safe with the step; nil if it has no entries
	bytes   int      // payload released when it is safe
	epoch   uint64   // of Writes
	extents []extent // of Writes, sorted
}

type extent struct{ from, to uint64 }

func (f *flight) isWrites() bool     { _, ok := f.step.(Writes); return ok }
func (f *flight) isConcurrent() bool { op, ok := f.step.(Operation); return ok && op.Concurrent }

// Next gives a step that may start now; false if there is none until more is pushed,
// a step becomes safe, or an outcome is known.
func (p *Planner) Next() (Step, bool) {
	p.plan()
	if len(p.ready) > 0 && p.mayStart(p.ready[0]) {
		f := p.ready[0]
		p.ready = append(p.ready[:0], p.ready[1:]...)
		p.flying[f.step.ID()] = f
		return f.step, true
	}
	if p.waiting != nil && p.Full() && !p.asked[*p.waiting] {
		p.asked[*p.waiting] = true
		p.ids++
		return NeedOutcome{StepID: p.ids, Tag: p.waiting.tag, Op: p.waiting.op, After: p.last}, true
	}
	return nil, false
}

// mayStart keeps the order: only I/O of one epoch that does not overlap, and
// operations that allow it, run beside each other.
func (p *Planner) mayStart(next *flight) bool {
	if !next.isWrites() {
		return len(p.flying) == 0
	}
	writes := 0
	for _, f := range p.flying {
		switch {
		case f.isConcurrent():
		case !f.isWrites(), f.epoch != next.epoch, overlap(f.extents, next.extents):
			return false
		default:
			writes++
		}
	}
	return writes < p.cfg.InFlight
}

// quiet says that nothing is under way that Writes would have to wait for.
func (p *Planner) quiet() bool {
	for _, f := range p.flying {
		if !f.isConcurrent() {
			return false
		}
	}
	return true
}

func extentsOf(ios []IO) []extent {
	es := make([]extent, len(ios))
	for i, io := range ios {
		es[i] = extent{io.Offset, io.Offset + io.Length}
	}
	slices.SortFunc(es, func(a, b extent) int { return cmp.Compare(a.from, b.from) })
	// Join what touches, so that overlap can walk both lists once.
	joined := es[:0]
	for _, e := range es {
		if n := len(joined); n > 0 && e.from <= joined[n-1].to {
			joined[n-1].to = max(joined[n-1].to, e.to)
			continue
		}
		joined = append(joined, e)
	}
	return joined
}

// overlap says whether two sorted lists of disjoint extents share a byte.
func overlap(a, b []extent) bool {
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0].to <= b[0].from:
			a = a[1:]
		case b[0].to <= a[0].from:
			b = b[1:]
		default:
			return true
		}
	}
	return false
}
