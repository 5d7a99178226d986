package replay

import (
	"slices"

	"github.com/rbdwarden/rbdwarden/ceph/journal"
)

// checkpoint is the contiguous safe prefix of what was pushed. It advances over
// segments in the journal's order and stops at the first that is not safe.
//
//	│◄──── safe ────►│ pending op │ safe │ in flight │ safe │
//	                 ▲
//	                 position
type checkpoint struct {
	width    uint8
	position journal.ObjectSetPosition // newest first, one per splay offset
	segments []*segment                // not yet in position, oldest first
	compact  int                       // merge when there are so many segments
}

// segment is a run of consecutive entries that become safe together.
type segment struct {
	// last has the last entry for each splay offset, newest last.
	last []journal.ObjectPosition
	safe bool
}

const compactAt = 64

func newCheckpoint(width uint8, committed journal.ObjectSetPosition) *checkpoint {
	return &checkpoint{
		width:    width,
		position: append(journal.ObjectSetPosition(nil), committed...),
		compact:  compactAt,
	}
}

// open starts a segment behind all others.
func (c *checkpoint) open() *segment {
	s := &segment{}
	c.segments = append(c.segments, s)
	return s
}

// add puts an entry into a segment that is still open.
func (c *checkpoint) add(s *segment, p journal.ObjectPosition) {
	if i := c.find(s.last, p.Object); i >= 0 {
		s.last = slices.Delete(s.last, i, i+1)
	}
	s.last = append(s.last, p)
}

// settle makes a segment safe, and advances the position if it can.
func (c *checkpoint) settle(s *segment) {
	s.safe = true
	n := 0
	for n < len(c.segments) && c.segments[n].safe {
		for _, p := range c.segments[n].last {
			c.advance(p)
		}
		n++
	}
	c.segments = append(c.segments[:0], c.segments[n:]...)
	if len(c.segments) >= c.compact {
		c.merge()
	}
}

func (c *checkpoint) advance(p journal.ObjectPosition) {
	if i := c.find(c.position, p.Object); i >= 0 {
		c.position = slices.Delete(c.position, i, i+1)
	}
	c.position = slices.Insert(c.position, 0, p)
}

// merge joins neighbours that are safe, so that a pending operation that pins the
// position for hours costs no memory.
func (c *checkpoint) merge() {
	kept := c.segments[:0]
	for _, s := range c.segments {
		if n := len(kept); n > 0 && s.safe && kept[n-1].safe {
			for _, p := range s.last {
				c.add(kept[n-1], p)
			}
			continue
		}
		kept = append(kept, s)
	}
	clear(c.segments[len(kept):])
	c.segments = kept
	c.compact = max(compactAt, 2*len(kept))
}

// find gives the index of the position at the same splay offset as object, or -1.
func (c *checkpoint) find(ps []journal.ObjectPosition, object journal.ObjectNumber) int {
	offset := object.SplayOffset(c.width)
	return slices.IndexFunc(ps, func(p journal.ObjectPosition) bool {
		return p.Object.SplayOffset(c.width) == offset
	})
}
