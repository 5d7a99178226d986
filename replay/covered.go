package replay

import (
	"slices"

	"github.com/rbdwarden/rbdwarden/ceph/journal"
)

// Cover finds out how much of a journal the copy of a sync point has: all before the sync
// point's event but operations that had not ended there.
type Cover struct {
	name  string      // the sync point's
	reach *checkpoint // of all that was pushed
	tag   journal.TagTID
	open  []openOperation // oldest first
}

// openOperation is an operation without OpFinish so far.
type openOperation struct {
	event  journal.Operation
	place  place
	before journal.ObjectSetPosition // the commit position before its event
}

// NewCover begins behind a commit position, in a journal of that splay width.
func NewCover(width uint8, committed journal.ObjectSetPosition, syncPoint string) *Cover {
	return &Cover{name: syncPoint, reach: newCheckpoint(width, committed)}
}

// Push looks at the next entry. If it is the sync point's event, the answer is the commit
// position of the copy, and what it has behind that.
func (c *Cover) Push(at journal.ObjectPosition, ev journal.Event) (position journal.ObjectSetPosition, covered journal.Covered, found bool) {
	if at.Tag != c.tag { // the primary has ended all operations of an older session
		c.tag, c.open = at.Tag, nil
	}
	switch v := ev.(type) {
	case journal.OpFinish:
		c.finish(v)
	case journal.Operation:
		if create, ok := v.(journal.SnapCreate); ok && create.Name == c.name {
			return c.result(at)
		}
		op := openOperation{event: v, place: placeOf(v), before: slices.Clone(c.reach.position)}
		if op.place == atEvent {
			c.happened(len(c.open), v)
		}
		c.open = append(c.open, op)
	}
	c.reach.advance(at)
	return nil, journal.Covered{}, false
}

func (c *Cover) result(at journal.ObjectPosition) (journal.ObjectSetPosition, journal.Covered, bool) {
	c.reach.advance(at)
	if len(c.open) == 0 {
		return c.reach.position, journal.Covered{}, true
	}
	covered := journal.Covered{At: at}
	for _, o := range c.open {
		covered.Open = append(covered.Open, o.event.Operation())
	}
	return c.open[0].before, covered, true
}

func (c *Cover) finish(f journal.OpFinish) {
	i := slices.IndexFunc(c.open, func(o openOperation) bool { return o.event.Operation() == f.Op })
	if i < 0 {
		return
	}
	ended := c.open[i]
	c.open = slices.Delete(c.open, i, i+1)
	if f.Result < 0 {
		return
	}
	if ended.place == atFinish {
		i = len(c.open) // it takes effect here, behind whatever began before
	}
	c.happened(i, ended.event)
}

// happened forgets those of the n oldest operations that are on the same thing as a newer
// one which has taken effect: they have, too, and to do one of them again would undo the
// newer one.
func (c *Cover) happened(n int, newer journal.Operation) {
	same := subjects(newer)
	shared := func(s string) bool { return slices.Contains(same, s) }
	left := slices.DeleteFunc(slices.Clone(c.open[:n]), func(o openOperation) bool {
		return o.place != atFinish && slices.ContainsFunc(subjects(o.event), shared)
	})
	c.open = append(left, c.open[n:]...)
}

// after says whether an entry is behind another one.
func after(a, b journal.ObjectPosition) bool {
	return a.Tag > b.Tag || a.Tag == b.Tag && a.Entry > b.Entry
}

// consumeCovered plans an entry up to Config.Covered: see the package's text.
func (p *Planner) consumeCovered(e Entry) {
	op, ok := e.Event.(journal.Operation)
	if !ok || e.Position.Tag != p.cfg.Covered.At.Tag || !slices.Contains(p.cfg.Covered.Open, op.Operation()) {
		p.settleNow(e)
		return
	}
	p.pending = append(p.pending, &pendingOp{key: opKey{e.Position.Tag, op.Operation()},
		event: op, at: e.Position, place: placeOf(op), segment: p.takeReleasing(e)})
}

// leaveCovered plans, behind the last covered entry, the operations under way there that
// I/O has to wait for, and those that began before them. A rollback among these waits for
// its OpFinish all the same, and is overtaken. False if an outcome is missing.
func (p *Planner) leaveCovered() bool {
	for {
		i := slices.IndexFunc(p.pending, func(op *pendingOp) bool { return op.place == atEvent })
		if i < 0 {
			p.covering = false
			return true
		}
		if n := min(i, p.clearable()); n > 0 {
			if !p.clearPending(n) {
				return false
			}
			continue
		}
		if !p.finish(p.pending[i]) {
			return false
		}
		p.pending = slices.Delete(p.pending, i, i+1)
	}
}
