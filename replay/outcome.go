package replay

import (
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

// rollbackPending: then the I/O being planned belongs before that rollback, nothing
// may be moved behind it, and nothing needs to be isolated, because the rollback
// replaces the image's contents and is replayed whenever they are.
func (p *Planner) rollbackPending() bool {
	for _, op := range p.pending {
		if op.place == atFinish {
			return true
		}
	}
	return false
}

// clearPending plans the pending operations in the journal's order up to and with
// the last-th, so that the position can advance. False if an outcome is missing.
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
