package replay

import (
	"slices"

	"github.com/rbdwarden/rbdwarden/ceph/journal"
)

// opKey names an operation. Operation ids start again with each of the writer's
// sessions, so they are unique within a tag only.
type opKey struct {
	tag journal.TagTID
	op  journal.OpTID
}

// outcomes is what is known about the ends of operations, ahead of planning.
type outcomes struct {
	results  map[opKey]int32
	presumed map[opKey]bool
	newest   journal.TagTID // newest tag of which an entry was pushed
}

func (o *outcomes) sawTag(t journal.TagTID) { o.newest = max(o.newest, t) }

func (o *outcomes) set(k opKey, result int32) { o.results[k] = result }

// get tells the result of an operation. presumed: there is none and will be none.
func (o *outcomes) get(k opKey) (result int32, presumed, known bool) {
	if r, ok := o.results[k]; ok {
		return r, false, true
	}
	if o.newest > k.tag || o.presumed[k] {
		return 0, true, true
	}
	return 0, false, false
}

// forget drops what is known about an operation.
func (o *outcomes) forget(k opKey) {
	delete(o.results, k)
	delete(o.presumed, k)
}

// pendingOp is an operation whose event was planned and which itself was not.
type pendingOp struct {
	key     opKey
	event   journal.Operation
	at      journal.ObjectPosition
	place   place
	segment *segment
}

// rollbackPending gives the index of the oldest pending rollback. While there is
// one, the I/O being planned belongs before it, nothing may be moved behind it, and
// nothing needs to be isolated, because the rollback replaces the image's contents
// and is replayed whenever they are.
func (p *Planner) rollbackPending() (int, bool) {
	i := slices.IndexFunc(p.pending, func(op *pendingOp) bool { return op.place == atFinish })
	return i, i >= 0
}

// clearable is how many pending operations can be planned at any place.
func (p *Planner) clearable() int {
	if i, rollback := p.rollbackPending(); rollback {
		return i
	}
	return len(p.pending)
}

// renames says that the operation changes which snapshot has that name.
func renames(op journal.Operation, name string) bool {
	switch v := op.(type) {
	case journal.SnapRemove:
		return v.Name == name
	case journal.SnapRename:
		return v.OldName == name || v.NewName == name
	}
	return false
}

// nameInDoubt: behind a pending rollback other operations wait, so a snapshot of that
// name cannot be created yet. Not in any journal that one librbd writes.
func (p *Planner) nameInDoubt(name string) bool {
	return slices.ContainsFunc(p.pending, func(op *pendingOp) bool { return renames(op.event, name) })
}

// clearPending plans the n oldest pending operations, so that the position can
// advance. False if an outcome is missing.
func (p *Planner) clearPending(n int) bool {
	for ; n > 0; n-- {
		if !p.finish(p.pending[0]) {
			return false
		}
		p.pending = p.pending[1:]
	}
	return true
}

// clearKnown plans pending operations whose outcome is known, as far as nothing
// older is in their way. A rollback waits for the place of its OpFinish.
func (p *Planner) clearKnown() {
	for len(p.pending) > 0 && p.pending[0].place != atFinish {
		if _, _, known := p.outcomes.get(p.pending[0].key); !known {
			return
		}
		p.clearPending(1)
	}
}

// finish plans an operation or its omission. False if its outcome is not known.
func (p *Planner) finish(op *pendingOp) bool {
	result, presumed, known := p.outcomes.get(op.key)
	if !known {
		p.waiting = &op.key
		return false
	}
	p.flushBatch()
	p.ids++
	if result < 0 {
		p.enqueue(&flight{segment: op.segment, step: Skipped{
			StepID: p.ids, Event: op.event, At: op.at, Result: errno(result)}})
		return true
	}
	step := Operation{StepID: p.ids, Event: op.event, At: op.at, Presumed: presumed,
		Tolerate: tolerated(op.event), Concurrent: concurrent(op.event)}
	p.enqueue(&flight{segment: op.segment, step: step})
	if !step.Concurrent {
		// A flatten would not run beside anything with a barrier behind it, and needs
		// none: it changes nothing that others could see.
		p.checkpoint()
	}
	return true
}
