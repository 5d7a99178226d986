package sim

import (
	"context"
	"fmt"
	"strings"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
)

// called finds one of the primary's snapshots; nil if there is none of that name.
func (p *primary) called(name string) *snapshot {
	for _, s := range p.lives {
		if s.removed == 0 && s.name() == name {
			return s
		}
	}
	return nil
}

// taken are the snapshots that something may be done to.
func (p *primary) taken() (out []*snapshot) {
	for _, s := range p.lives {
		if s.removed == 0 && !s.busy && !s.kept && strings.HasPrefix(s.name(), "snap-") {
			out = append(out, s)
		}
	}
	return out
}

// any is one of them; nil if there is none.
func (p *primary) any() *snapshot {
	there := p.taken()
	if len(there) == 0 {
		return nil
	}
	return there[p.rng.IntN(len(there))]
}

// free tells whether a name is nobody's, nor will be when the operations under way have ended.
func (p *primary) free(name string) bool {
	for _, s := range p.lives {
		if s.removed == 0 && s.name() == name {
			return false
		}
		for _, n := range s.names {
			if s.busy && n.name == name {
				return false
			}
		}
	}
	return true
}

// changeSnapshots takes, renames or removes a snapshot. The names are few, so that each is
// used again.
func (p *primary) changeSnapshots() *operation {
	name, what := fmt.Sprintf("snap-%d", p.rng.IntN(6)), p.rng.IntN(4)
	s := p.called(name)
	switch old := p.any(); {
	case s != nil && what < 2:
		if s.busy || s.rolled && p.era == nil { // a sync cannot bring a roll-back to what is gone
			return nil
		}
		if p.image.Header().Snapshot(rbd.UserSnapshot{}, name).Protection != rbd.Unprotected {
			return nil
		}
		return p.remove(s)
	case p.free(name) && what == 0 && old != nil:
		return p.rename(old, name)
	case p.free(name):
		return p.take(name)
	}
	return nil
}

// take takes a snapshot.
func (p *primary) take(name string) *operation {
	return &operation{
		event: func(op wire.OpTID) wire.Event { return wire.SnapCreate{Op: op, Name: name} }, first: true,
		note: func() {
			p.lives = append(p.lives, &snapshot{taken: p.next(), names: []named{{p.next(), name}}})
		},
		do: func(ctx context.Context) error {
			_, _, err := p.image.SnapCreate(ctx, rbd.UserSnapshot{}, name)
			return err
		},
	}
}

// remove removes a snapshot.
func (p *primary) remove(s *snapshot) *operation {
	name := s.name()
	return &operation{
		event: func(op wire.OpTID) wire.Event { return wire.SnapRemove{Op: op, Name: name} }, on: []*snapshot{s},
		note: func() { s.removed = p.next() },
		do: func(ctx context.Context) error {
			_, err := p.image.SnapRemove(ctx, rbd.UserSnapshot{}, name)
			return err
		},
	}
}

// rename gives a snapshot another name.
func (p *primary) rename(s *snapshot, name string) *operation {
	old := s.name()
	id := uint64(p.image.Header().Snapshot(rbd.UserSnapshot{}, old).ID)
	return &operation{
		event: func(op wire.OpTID) wire.Event {
			return wire.SnapRename{Op: op, SnapID: id, OldName: old, NewName: name}
		},
		on:   []*snapshot{s},
		note: func() { s.names = append(s.names, named{p.next(), name}) },
		do: func(ctx context.Context) error {
			_, err := p.image.SnapRename(ctx, old, name)
			return err
		},
	}
}

// protect protects a snapshot from removal, or ends that.
func (p *primary) protect() *operation {
	s := p.any()
	if s == nil || !p.set.features.Has(rbd.FeatureLayering) {
		return nil
	}
	name := s.name()
	if p.image.Header().Snapshot(rbd.UserSnapshot{}, name).Protection == rbd.Unprotected {
		return &operation{
			event: func(op wire.OpTID) wire.Event { return wire.SnapProtect{Op: op, Name: name} }, on: []*snapshot{s},
			do: func(ctx context.Context) error {
				_, err := p.image.SnapProtect(ctx, rbd.UserSnapshot{}, name)
				return err
			},
		}
	}
	return &operation{
		event: func(op wire.OpTID) wire.Event { return wire.SnapUnprotect{Op: op, Name: name} }, on: []*snapshot{s},
		do: func(ctx context.Context) error {
			_, err := p.image.SnapUnprotect(ctx, rbd.UserSnapshot{}, name)
			return err
		},
	}
}

// rollBack takes the image back to a snapshot.
func (p *primary) rollBack() *operation {
	s := p.any()
	if s == nil {
		return nil
	}
	s.rolled = true
	name := s.name()
	return &operation{
		event: func(op wire.OpTID) wire.Event { return wire.SnapRollback{Op: op, Name: name} }, on: []*snapshot{s}, rollback: true,
		end: event{rollback: true, back: s.taken},
		do: func(ctx context.Context) error {
			_, err := p.image.SnapRollback(ctx, rbd.UserSnapshot{}, name)
			return err
		},
	}
}
