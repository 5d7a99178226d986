package replay

import (
	"maps"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph/journal"
)

// plan turns queued entries into steps until there is one to give, or the next
// entry has to wait.
func (p *Planner) plan() {
	p.waiting = nil
	for len(p.ready) == 0 && p.err == nil && len(p.queue) > 0 {
		if !p.consume(p.queue[0]) {
			break
		}
	}
	if len(p.ready) == 0 && p.err == nil && len(p.queue) == 0 && p.tagKnown && p.outcomes.newest > p.tag {
		// The tag has ended, and nothing behind it is here yet.
		p.flushBatch()
		p.clearPending(len(p.pending))
	}
	// I/O that arrives while other I/O is under way is gathered, so that steps grow
	// with the load; alone it starts at once.
	if len(p.ready) == 0 && p.quiet() {
		p.flushBatch()
	}
}

// consume plans one entry. False if it has to wait; then it stays in the queue.
func (p *Planner) consume(e Entry) bool {
	if !p.tagKnown || e.Position.Tag != p.tag {
		p.changeTag(e.Position.Tag)
		return true
	}
	if p.covering {
		if !after(e.Position, p.cfg.Covered.At) {
			p.consumeCovered(e)
			return true
		}
		if !p.leaveCovered() {
			return false
		}
	}
	switch ev := e.Event.(type) {
	case journal.AioWrite, journal.AioDiscard, journal.AioWriteSame:
		return p.consumeIO(e)
	case journal.AioFlush:
		p.consumeFlush(e)
		return true
	case journal.AioCompareAndWrite:
		return p.consumeCompareAndWrite(e, ev)
	case journal.OpFinish:
		return p.consumeFinish(e, ev)
	case journal.DemotePromote:
		p.flushBatch()
		p.ids++
		p.enqueue(&flight{segment: p.take(), bytes: e.Bytes, step: Handover{StepID: p.ids, At: e.Position}})
		return true
	case journal.Operation:
		return p.consumeOperation(e, ev)
	}
	p.fail(&UnknownEventError{Tag: e.Position.Tag, Entry: e.Position.Entry, Type: uint32(e.Event.Type())})
	return true
}

// changeTag finishes the old tag: operations without an OpFinish have been completed
// by the primary's own replay, behind all of the tag's entries.
func (p *Planner) changeTag(tag journal.TagTID) {
	p.flushBatch()
	p.clearPending(len(p.pending)) // the newer tag makes every outcome known
	old := func(k opKey) bool { return k.tag < tag }
	maps.DeleteFunc(p.outcomes.results, func(k opKey, _ int32) bool { return old(k) })
	maps.DeleteFunc(p.outcomes.presumed, func(k opKey, _ bool) bool { return old(k) })
	maps.DeleteFunc(p.asked, func(k opKey, _ bool) bool { return old(k) })
	p.ids++
	p.enqueue(&flight{step: TagChange{StepID: p.ids, Tag: tag}})
	p.tag, p.tagKnown = tag, true
}

func (p *Planner) consumeFlush(e Entry) {
	if !p.batch.empty() {
		p.batch.entries++
		p.batch.bytes += e.Bytes
		p.batch.upto = e.Position
		p.safe.add(p.batch.segment, e.Position)
		p.drop()
		p.flushBatch()
	} else {
		p.settleNow(e)
	}
	p.epoch++
}

func (p *Planner) consumeCompareAndWrite(e Entry, ev journal.AioCompareAndWrite) bool {
	if reason := invalidCompareAndWrite(ev); reason != "" {
		p.failAt(e, reason)
		return true
	}
	if !p.clearPending(p.clearable()) {
		return false
	}
	_, rollback := p.rollbackPending()
	isolate := !rollback
	p.flushBatch()
	if isolate && p.dirty {
		p.checkpoint()
	}
	p.ids++
	p.enqueue(&flight{segment: p.take(), bytes: e.Bytes, step: CompareAndWrite{StepID: p.ids,
		Offset: ev.Offset, Compare: ev.CompareData, Write: ev.WriteData, Upto: e.Position}})
	if isolate {
		p.checkpoint()
	}
	return true
}

// consumeOperation plans an operation that takes effect at its event, and remembers
// all others.
func (p *Planner) consumeOperation(e Entry, ev journal.Operation) bool {
	op := &pendingOp{key: opKey{e.Position.Tag, ev.Operation()}, event: ev, at: e.Position, place: placeOf(ev)}
	for _, other := range p.pending {
		if other.key == op.key {
			p.failAt(e, "operation id is in use by a pending operation")
			return true
		}
	}
	p.flushBatch()
	if op.place == atEvent {
		if !p.clearPending(p.clearable()) {
			return false
		}
		if create, ok := ev.(journal.SnapCreate); ok && p.nameInDoubt(create.Name) {
			p.failAt(e, "snapshot is created beside an unfinished operation on its name, during a rollback")
			return true
		}
		if _, _, known := p.outcomes.get(op.key); !known {
			p.waiting = &op.key
			return false
		}
		op.segment = p.takeReleasing(e)
		return p.finish(op)
	}
	if len(p.pending) >= p.cfg.Pending && !p.clearPending(min(1, p.clearable())) {
		return false
	}
	op.segment = p.takeReleasing(e)
	p.pending = append(p.pending, op)
	return true
}

// consumeFinish plans the operation that ends here, after those that began before it.
// One that is not pending was applied at its event, or before the commit position.
func (p *Planner) consumeFinish(e Entry, ev journal.OpFinish) bool {
	key := opKey{e.Position.Tag, ev.Op}
	for i, op := range p.pending {
		if op.key != key {
			continue
		}
		if op.place == atFinish && !p.clearPending(i+1) {
			return false
		}
		break
	}
	p.flushBatch()
	p.clearKnown()
	// Its own segment is behind the event's, so it can be settled even if the
	// operation is still waiting for an older one.
	p.settleNow(e)
	if !p.isPending(key) {
		p.outcomes.forget(key)
		delete(p.asked, key)
	}
	return true
}

func (p *Planner) isPending(key opKey) bool {
	for _, op := range p.pending {
		if op.key == key {
			return true
		}
	}
	return false
}

// checkpoint plans a Checkpoint step.
func (p *Planner) checkpoint() {
	p.ids++
	p.ready = append(p.ready, &flight{step: Checkpoint{StepID: p.ids}})
	p.dirty = false
}

// enqueue plans a step that has an effect.
func (p *Planner) enqueue(f *flight) {
	p.ready = append(p.ready, f)
	p.dirty = true
}

// take removes the first queued entry and gives it a segment of its own.
func (p *Planner) take() *segment {
	s := p.safe.open()
	p.safe.add(s, p.queue[0].Position)
	p.drop()
	return s
}

// takeReleasing is take for an entry whose payload nobody keeps.
func (p *Planner) takeReleasing(e Entry) *segment {
	p.held -= e.Bytes
	return p.take()
}

// settleNow takes an entry that needs nothing but what is before it.
func (p *Planner) settleNow(e Entry) { p.safe.settle(p.takeReleasing(e)) }

// drop removes the first queued entry.
func (p *Planner) drop() {
	p.queue[0] = Entry{} // let go of its payload
	p.queue = p.queue[1:]
	if len(p.queue) == 0 {
		p.queue = nil
	}
}

func (p *Planner) fail(err error) {
	p.flushBatch()
	p.err = err
}

func (p *Planner) failAt(e Entry, reason string) {
	p.fail(&InvalidEventError{Tag: e.Position.Tag, Entry: e.Position.Entry, Reason: reason})
}

func errno(result int32) syscall.Errno { return syscall.Errno(-int64(result)) }
