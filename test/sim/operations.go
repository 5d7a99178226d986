package sim

import (
	"context"
	"fmt"
	"slices"
	"syscall"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
)

// operation is something that the journal has a beginning and an end of, at some time with
// other events between them.
type operation struct {
	event   func(wire.OpTID) wire.Event
	at      event                       // what changes where it begins,
	note    func()                      // and is noted then
	do      func(context.Context) error // on the image
	first   bool                        // it is done where it begins: until then librbd keeps writes back
	end     event                       // what changes where it ends
	result  syscall.Errno               // 0: it succeeds
	on      []*snapshot                 // no others may be begun on these
	flatten bool
	atOnce  bool // somebody waits for its end

	// A roll-back. What the journal has between its beginning and its end was under way when it
	// began: librbd keeps all that comes later back.
	rollback bool

	op     wire.OpTID
	left   int                    // so many writes come before its end
	before wire.ObjectSetPosition // the newest entries before its event
}

// begin journals the beginning of an operation, and mostly its end.
func (p *primary) begin(ctx context.Context, o *operation) error {
	p.op++
	o.op, o.before = p.op, slices.Clone(p.newest)
	note := func() {
		if o.note != nil && o.result == 0 {
			o.note()
		}
	}
	if err := p.append(ctx, o.event(o.op), o.at, note); err != nil {
		return err
	}
	for _, s := range o.on {
		s.busy = true
	}
	if o.first {
		if err := p.perform(ctx, o); err != nil {
			return err
		}
	}
	switch n := p.rng.IntN(8); {
	case o.atOnce:
	case n < 3:
		o.left = 1 + p.rng.IntN(8)
	case n == 3:
		o.left = 1 + p.rng.IntN(60)
	}
	p.open = append(p.open, o)
	if o.left == 0 || o.rollback && o.left > 8 {
		return p.finish(ctx, len(p.open)-1)
	}
	return nil
}

// perform does an operation on the image, once.
func (p *primary) perform(ctx context.Context, o *operation) error {
	if o.do == nil { // done, or never to be
		return nil
	}
	do := o.do
	o.do = nil
	return do(ctx)
}

// finish brings an operation to its end.
func (p *primary) finish(ctx context.Context, i int) error {
	o := p.open[i]
	p.open = slices.Delete(p.open, i, i+1)
	if err := p.perform(ctx, o); err != nil {
		return fmt.Errorf("%v: %w", o.event(o.op).Type(), err)
	}
	for _, s := range o.on {
		s.busy = false
	}
	return p.append(ctx, wire.OpFinish{Op: o.op, Result: -int32(o.result)}, o.end)
}

// rolling tells whether a roll-back is under way.
func (p *primary) rolling() bool {
	return slices.ContainsFunc(p.open, func(o *operation) bool { return o.rollback })
}

// proceed lets operations go on, and tells whether one has ended.
func (p *primary) proceed(ctx context.Context) (ended bool, err error) {
	for i, o := range p.open {
		o.left--
		if o.left <= 0 {
			return true, p.finish(ctx, i)
		}
		if p.rng.IntN(8) == 0 && !o.rollback {
			if err := p.perform(ctx, o); err != nil { // in the midst
				return false, err
			}
		}
	}
	return false, nil
}

// session ends the primary's session. The client that comes next completes what the journal
// has only a beginning of; or nothing was left to do.
func (p *primary) session(ctx context.Context) error {
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	dies := p.rng.IntN(3) > 0
	for i := 0; i < len(p.open); {
		if dies && p.open[i].result == 0 {
			i++
			continue
		}
		if err := p.finish(ctx, i); err != nil {
			return err
		}
	}
	if p.tid == 0 {
		return nil
	}
	p.trace.Add("%s: another client, %d operations are to be completed", p.globalID, len(p.open))
	for _, o := range p.open {
		if err := p.perform(ctx, o); err != nil {
			return err
		}
		for _, s := range o.on {
			s.busy = false
		}
		p.mu.Lock()
		p.happened(o.end)
		p.mu.Unlock()
	}
	p.open = nil
	return p.newTag(ctx, wire.TagPredecessor{MirrorUUID: wire.LocalMirrorUUID, CommitValid: true, Tag: p.tag, Entry: p.tid - 1})
}

// settle brings everything to its end.
func (p *primary) settle(ctx context.Context) error {
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	for len(p.open) > 0 {
		if err := p.finish(ctx, 0); err != nil {
			return err
		}
	}
	return nil
}

// operate begins an operation.
func (p *primary) operate(ctx context.Context) error {
	var o *operation
	switch p.rng.IntN(10) {
	case 0, 1, 2, 3:
		o = p.changeSnapshots()
	case 4:
		o = p.protect()
	case 5, 6:
		o = p.rollBack()
	case 7, 8:
		o = p.resize()
	case 9:
		if p.rng.IntN(2) == 0 {
			o = p.flattened()
		} else {
			o = p.fail()
		}
	}
	if o == nil {
		return nil
	}
	return p.begin(ctx, o)
}

// resize makes the image smaller or larger.
func (p *primary) resize() *operation {
	old, size := p.size(p.next()-1), p.sectors
	switch p.rng.IntN(4) {
	case 0:
		size = p.rng.IntN(p.sectors + 1)
	case 1, 2:
		size = p.sectors/2 + p.rng.IntN(p.sectors/2+1)
	}
	return &operation{
		event: func(op wire.OpTID) wire.Event { return wire.Resize{Op: op, Size: uint64(size * sector)} },
		at:    event{resize: true, size: size, from: min(size, old), to: old}, first: true,
		do: func(ctx context.Context) error {
			_, err := p.image.Resize(ctx, uint64(size*sector))
			return err
		},
	}
}

// flattened makes a clone independent.
func (p *primary) flattened() *operation {
	if !p.image.Header().Attached || slices.ContainsFunc(p.open, func(o *operation) bool { return o.flatten }) {
		return nil
	}
	return &operation{
		event: func(op wire.OpTID) wire.Event { return wire.Flatten{Op: op} }, flatten: true,
		do: func(ctx context.Context) error {
			_, err := p.image.Flatten(ctx, nil)
			return err
		},
	}
}

// fail is an operation that the primary begins and cannot do.
func (p *primary) fail() *operation {
	failed := func(errno syscall.Errno, ev func(wire.OpTID) wire.Event) *operation {
		return &operation{event: ev, result: errno}
	}
	size := uint64(p.size(p.next()-1) * sector)
	if s := p.any(); s != nil {
		name, id := s.name(), p.image.Header().Snapshot(rbd.UserSnapshot{}, s.name()).ID
		switch p.rng.IntN(6) {
		case 0:
			return failed(syscall.EBUSY, func(op wire.OpTID) wire.Event { return wire.SnapRemove{Op: op, Name: name} })
		case 1:
			return failed(syscall.EBUSY, func(op wire.OpTID) wire.Event { return wire.SnapUnprotect{Op: op, Name: name} })
		case 2:
			return failed(syscall.EROFS, func(op wire.OpTID) wire.Event {
				return wire.SnapRename{Op: op, SnapID: uint64(id), OldName: name, NewName: "not so"}
			})
		}
	}
	switch p.rng.IntN(4) {
	case 0:
		return failed(syscall.EDQUOT, func(op wire.OpTID) wire.Event { return wire.SnapCreate{Op: op, Name: "above the limit"} })
	case 1:
		return failed(syscall.EINVAL, func(op wire.OpTID) wire.Event { return wire.Resize{Op: op, Size: 2*size + sector} })
	case 2:
		return failed(syscall.ERESTART, func(op wire.OpTID) wire.Event { return wire.Resize{Op: op, Size: size / 2 / sector * sector} })
	}
	if !p.image.Header().Attached {
		return nil
	}
	return failed(syscall.ETIMEDOUT, func(op wire.OpTID) wire.Event { return wire.Flatten{Op: op} })
}
