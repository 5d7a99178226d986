package sim

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/rados/mem"
)

// What the oracle sees of a copy: what its user would read, from head and snapshots.

// shape is what decides which bytes of a copy can be seen, in sectors.
type shape struct {
	size     int
	overlap  int // shared with the parent
	attached bool
}

// state is the head of a copy, or a snapshot of it.
type state struct {
	snap ceph.SnapID
	shape
}

func (s shape) with(overlap *uint64) shape {
	if overlap != nil {
		s.attached, s.overlap = true, int(*overlap/sector)
	}
	return s
}

// shapeOf reads the header of a copy.
func (o *oracle) shapeOf(v mem.View, m *model) (s shape) {
	header := rbd.HeaderObject(m.copied)
	if b, ok := v.Omap(header, "size"); ok {
		s.size = int(binary.LittleEndian.Uint64(b) / sector)
	}
	if b, ok := v.Omap(header, "parent"); ok {
		parent, err := rbd.DecodeHeaderParent(b)
		if err != nil {
			o.violated("%s: the parent in %s: %v", m.globalID, header, err)
		}
		s = s.with(parent.HeadOverlap)
	}
	return s
}

// reshaped: the header of a copy has changed. Where that shows other bytes, or makes the
// image larger or smaller, it is a write like others.
func (o *oracle) reshaped(v mem.View, op mem.Op, m *model) {
	before := m.header
	m.header = o.shapeOf(v, m)
	if m.promoted || m.header == before {
		return
	}
	o.trace.Add("%s: the copy is %+v", m.globalID, m.header)
	for s := range m.sectors {
		inParent := func(h shape) bool { return h.attached && s < h.overlap }
		if s < m.header.size != (s < before.size) || inParent(before) != inParent(m.header) {
			if r, ok := o.look(v, m, s); ok && r != m.shown[s] {
				o.shows(m, op.Client, s, r)
			}
		}
	}
	if m.header.size != before.size {
		o.shows(m, op.Client, m.sectors, value(m.header.size))
	}
}

// look reads a sector of a copy's head.
func (o *oracle) look(v mem.View, m *model, s int) (value, bool) {
	return o.lookAt(v, m, state{ceph.NoSnap, m.header}, s)
}

// lookAt reads a sector as its user would.
func (o *oracle) lookAt(v mem.View, m *model, in state, s int) (value, bool) {
	if s >= in.size {
		return zeros, true
	}
	perObject := 1 << o.set.objectOrder / sector
	var b [sector]byte
	exists := v.Read(m.object(s, perObject), in.snap, uint64(s%perObject*sector), b[:])
	if !exists && in.attached && s < in.overlap && s < m.initial {
		return 0, true
	}
	return m.read(b[:], s)
}

// describe tells what is in a sector of the copy that the model does not know.
func (o *oracle) describe(v mem.View, m *model, s int) string {
	perObject := 1 << o.set.objectOrder / sector
	var b [sector]byte
	exists := v.Read(m.object(s, perObject), ceph.NoSnap, uint64(s%perObject*sector), b[:])
	return fmt.Sprintf("%x (%v)", b[:16], exists)
}

// durable: the copy shows at least everything up to event n; and where nothing behind n had
// landed before this replay, it is a state that a power cut could have left on the primary.
// Its snapshots are those of the primary.
func (o *oracle) durable(v mem.View, m *model, n int32) {
	m.header = o.shapeOf(v, m)
	shown := make([]value, len(m.history))
	newest := int32(0) // that must have been written
	for s := range m.history {
		r, ok := value(m.header.size), true
		if s < m.sectors {
			r, ok = o.look(v, m, s)
		}
		if !ok {
			o.violated("%s: sector %d of the copy holds what the primary never had: %s", m.globalID, s, o.describe(v, m, s))
			return
		}
		oldest, ok := m.least(s, r, m.newest(s, n))
		if !ok && m.cutting(s, r, n) {
			r = m.value(s, n)
			oldest, ok = m.newest(s, n), true
		}
		if !ok {
			o.violated("%s: everything up to event %d is committed, but cell %d lacks event %d and shows %d", m.globalID, n, s, m.newest(s, n), r)
			return
		}
		newest = max(newest, oldest)
		shown[s], m.shown[s] = r, r
	}
	o.snapshots(v, m, n)
	if m.era == nil || n < m.era.high {
		return
	}
	flush := m.flushed[newest]
	for s, r := range shown {
		// Zeros may be those of a discard that is newer than anything that is sure to have landed.
		if have, ok := m.most(s, r, m.next()); !ok || m.after(s, have) <= flush {
			o.violated("%s: the copy shows event %d, and cell %d (%d, event %d) not all before flush %d: no power cut leaves that", m.globalID, newest, s, r, have, flush)
			return
		}
	}
}

// cutting tells whether a sector of a clone shows its parent's bytes because the image is
// being made smaller: its objects are gone, and its header tells so last, as on the primary.
func (m *model) cutting(s int, r value, n int32) bool {
	if r != 0 || m.parent == nil {
		return false
	}
	for e := n + 1; e < m.next(); e++ {
		if m.events[e].resize && m.events[e].size <= s {
			return true
		}
	}
	return false
}

// snapshots: those that the primary took before n, and still has, are there, with what they
// held, and none that was removed before n.
func (o *oracle) snapshots(v mem.View, m *model, n int32) {
	there := map[string]*rbd.HeaderSnapshot{}
	for _, b := range v.OmapValues(rbd.HeaderObject(m.copied), "snapshot_") {
		s, err := rbd.DecodeHeaderSnapshot(b)
		if err != nil {
			o.violated("%s: a snapshot in its header: %v", m.globalID, err)
			return
		}
		if s.Namespace == nil || s.Namespace.Kind() == rbd.SnapshotUser {
			there[s.Name] = &s
		}
	}
	names := slices.Sorted(maps.Keys(there))
	found := map[string]bool{}
	for _, life := range m.lives {
		why := "is missing"
		for _, name := range names {
			if !life.called(name, n) {
				continue
			}
			found[name] = true
			if life.removed == 0 && why != "" {
				why = o.holds(v, m, there[name], life)
			}
		}
		if life.removed == 0 && life.taken <= n && why != "" {
			o.violated("%s: everything up to event %d is committed, but snapshot %s of event %d %s", m.globalID, n, life.name(), life.taken, why)
			return
		}
	}
	for _, name := range names {
		if !found[name] {
			o.violated("%s: everything up to event %d is committed, and the copy has snapshot %s", m.globalID, n, name)
			return
		}
	}
}

// holds says why a snapshot of the copy is not what one of the primary's is; nothing if it is.
func (o *oracle) holds(v mem.View, m *model, is *rbd.HeaderSnapshot, life *snapshot) string {
	if m.sound[is.ID] == life {
		return ""
	}
	at := state{is.ID, shape{size: int(is.ImageSize / sector)}.with(is.ParentOverlap)}
	if at.size != m.size(life.taken) {
		return fmt.Sprintf("has %d sectors, not %d", at.size, m.size(life.taken))
	}
	for s := range m.sectors {
		if r, ok := o.lookAt(v, m, at, s); !ok || r != m.value(s, life.taken) {
			return fmt.Sprintf("shows %d in sector %d, not %d", r, s, m.value(s, life.taken))
		}
	}
	m.sound[is.ID] = life
	return ""
}
