package journal

import (
	"fmt"
	"slices"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
)

// Positions turns "every entry up to this one is safe" into the commit position
// that all clients of the journal understand, in the plainest way, for the tests of
// the tailer (package replay has the real one): for each splay offset the newest
// safe entry and its object, newest first. An offset keeps its position, of an
// older tag too, until a newer entry at that offset is safe.
//
// Entries are Delivered in the order in which the Tailer gave them; what is
// delivered and not yet safe is remembered, so the caller bounds that.
//
// Source: JournalMetadata::committed.
type Positions struct {
	width     uint8
	delivered []wire.ObjectPosition // not safe yet, in order
	current   wire.ObjectSetPosition
	last      wire.ObjectPosition // newest delivered, or else committed
	any       bool                // last counts
}

// NewPositions starts at a client's commit position.
func NewPositions(splayWidth uint8, committed wire.ObjectSetPosition) *Positions {
	p := &Positions{width: splayWidth, current: slices.Clone(committed)}
	p.last, p.any = committed.Newest()
	return p
}

// Delivered notes an entry that was handed out. Entries must come in order.
func (p *Positions) Delivered(at wire.ObjectPosition) {
	if p.any && !before(p.last, at) {
		panic(fmt.Sprintf("journal position %v delivered after %v", at, p.last))
	}
	p.last, p.any = at, true
	p.delivered = append(p.delivered, at)
}

// Pending is how many delivered entries are not safe yet.
func (p *Positions) Pending() int { return len(p.delivered) }

// Safe says that every delivered entry up to and with (tag, entry) is durable. It
// tells whether the position moved.
func (p *Positions) Safe(tag wire.TagTID, entry wire.EntryTID) bool {
	n := 0
	for n < len(p.delivered) && !after(p.delivered[n], tag, entry) {
		n++
	}
	if n == 0 {
		return false
	}
	p.current = advance(p.current, p.delivered[:n], p.width)
	p.delivered = p.delivered[n:]
	if len(p.delivered) == 0 {
		p.delivered = nil // let go of the memory
	}
	return true
}

// Position is the commit position of what is safe. The caller may keep it.
func (p *Positions) Position() wire.ObjectSetPosition { return slices.Clone(p.current) }

// advance puts newly safe entries, oldest first, before the position and keeps
// the newest of each splay offset.
func advance(current wire.ObjectSetPosition, safe []wire.ObjectPosition, width uint8) wire.ObjectSetPosition {
	seen := make([]bool, width)
	next := make(wire.ObjectSetPosition, 0, width)
	keep := func(at wire.ObjectPosition) {
		if o := at.Object.SplayOffset(width); !seen[o] {
			seen[o] = true
			next = append(next, at)
		}
	}
	for i := len(safe) - 1; i >= 0 && len(next) < int(width); i-- {
		keep(safe[i])
	}
	for _, at := range current {
		keep(at)
	}
	return next
}

func after(at wire.ObjectPosition, tag wire.TagTID, entry wire.EntryTID) bool {
	return at.Tag > tag || at.Tag == tag && at.Entry > entry
}
