package sim

import (
	"fmt"
	"strings"
	"sync"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/mem"
	"github.com/rbdwarden/rbdwarden/test/sim/seed"
)

// oracle says whether what lands on the clusters keeps the invariants. It looks at the
// clusters only, and at which commit position a worker began to replay from.
type oracle struct {
	set           settings
	local, remote *mem.Store
	pool          int64 // the local one's id

	mu     sync.Mutex
	models []*model
	first  string // the first violation
	trace  *seed.Trace
}

// era is one worker's replay of an image, from the position it began at.
type era struct {
	client *mem.Client
	start  int32   // committed when it began
	high   int32   // the newest event that had landed before
	landed []int32 // by cell: the newest event that this replay has brought, or start
	whole  int32   // the flush up to which everything was found to have landed
}

// violated notes the first violation.
func (o *oracle) violated(format string, args ...any) {
	if o.first == "" {
		o.first = fmt.Sprintf(format, args...)
		o.trace.Add("VIOLATION: %s", o.first)
	}
}

func (o *oracle) violation() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.first
}

// opened is told that a worker opens the copy of an image.
func (o *oracle) opened(m *model, imageID string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	m.copied = imageID
	o.local.Look(o.pool, "", func(v mem.View) { m.header = o.shapeOf(v, m) })
}

// isPromoted tells whether the user of a copy that was promoted has its lock.
func (o *oracle) isPromoted(m *model) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return m.promoted
}

// copyOf is the id of an image's copy.
func (o *oracle) copyOf(m *model) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return m.copied
}

// replays is told that a worker begins to replay an image: behind the position, or behind what else is in the copy.
func (o *oracle) replays(m *model, c *mem.Client, committed wire.ObjectSetPosition, covered wire.Covered) {
	o.mu.Lock()
	defer o.mu.Unlock()
	start, ok := m.behind(committed)
	if !ok {
		o.violated("%s: replay begins at %v, which the journal does not have", m.globalID, committed)
		return
	}
	safe := start
	if len(covered.Open) > 0 { // all but what these operations do
		at, _ := m.behind(wire.ObjectSetPosition{covered.At})
		start = max(start, at)
	}
	m.era = &era{client: c, start: start, high: m.highest, whole: start, landed: make([]int32, len(m.history))}
	for s := range m.era.landed {
		m.era.landed[s] = start
	}
	if !m.promoting {
		m.safe = max(m.safe, safe)
		o.local.Look(o.pool, "", func(v mem.View) { o.durable(v, m, safe) })
	}
}

// promoted is told that the user of a copy that was promoted by force holds its lock.
func (o *oracle) promoted(m *model) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.local.Look(o.pool, "", func(v mem.View) { o.durable(v, m, m.safe) })
	m.promoted = true
}

// behind is the event that a commit position stands for.
func (m *model) behind(p wire.ObjectSetPosition) (int32, bool) {
	newest, ok := p.Newest()
	if !ok {
		return 0, true
	}
	n, ok := m.at[place{newest.Tag, newest.Entry}]
	return n, ok
}

// onLocal is told of each operation on the local cluster.
func (o *oracle) onLocal(v mem.View, op mem.Op, who *worker) {
	if op.Kind != mem.Write || who == nil || !strings.HasPrefix(op.Object, "rbd_data.") && !strings.HasPrefix(op.Object, "rbd_header.") {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, m := range o.models {
		if m.copied == "" {
			continue
		}
		if op.Object == rbd.HeaderObject(m.copied) {
			o.reshaped(v, op, m)
		}
		if number, ok := rbd.DataObjectNumber("rbd_data."+m.copied, op.Object); ok {
			o.landed(v, op, m, int(number))
		}
	}
}

// landed: only the owner of the copy's exclusive lock writes it (invariant 2), nobody once
// it is primary (6), and nothing ahead of a flush that precedes it (5).
func (o *oracle) landed(v mem.View, op mem.Op, m *model, object int) {
	if m.promoted {
		o.violated("%s: %s was written by a worker although the copy is primary", m.globalID, op.Object)
	}
	if !v.Holds(op.Client, rbd.HeaderObject(m.copied), lock.RBDName) {
		o.violated("%s: %s was written by client %d, which does not hold the lock", m.globalID, op.Object, op.Client.InstanceID())
	}
	perObject := 1 << o.set.objectOrder / sector
	first := object * perObject
	var done [maxPerObject]bool
	for _, step := range op.Write.Steps {
		if step.Kind == rados.WriteExec {
			clear(m.sound) // bytes that were copied up may be the snapshots', too
		}
		from, to := touched(step, perObject)
		for s := from; s < to && first+s < m.header.size; s++ {
			if !done[s] {
				done[s] = true
				if !o.changed(v, op, m, first+s) {
					return
				}
			}
		}
	}
}

// changed looks at a sector after a write.
func (o *oracle) changed(v mem.View, op mem.Op, m *model, s int) bool {
	r, ok := o.look(v, m, s)
	if !ok {
		o.violated("%s: sector %d of the copy holds what the primary never had: %s", m.globalID, s, o.describe(v, m, s))
		return false
	}
	o.shows(m, op.Client, s, r)
	return true
}

// shows notes that a write has left a value in a cell.
func (o *oracle) shows(m *model, who *mem.Client, s int, r value) {
	e := m.era
	if e == nil || e.client != who { // a sync brings what the primary holds now
		m.shown[s], m.highest = r, m.next()-1
		return
	}
	oldest, had := m.least(s, r, 0)
	if !had {
		o.violated("%s: the copy has %d sectors, which the primary never had", m.globalID, r)
		return
	}
	if flush := m.flushed[oldest]; flush > e.whole {
		o.barrier(m, flush, oldest)
		e.whole = flush
	}
	m.shown[s] = r
	if newest, ok := m.most(s, r, m.next()); ok {
		e.landed[s] = max(e.landed[s], newest)
	}
	m.highest = max(m.highest, oldest)
}

// touched is which sectors of its object a step writes.
func touched(step rados.WriteStep, perObject int) (from, to int) {
	begin := int(step.Offset) / sector
	switch step.Kind {
	case rados.WriteData:
		return begin, begin + len(step.Data)/sector
	case rados.WriteSame, rados.WriteZero:
		return begin, begin + int(step.Length)/sector
	case rados.WriteTruncate:
		return begin, perObject
	case rados.WriteAllocHint, rados.WriteAssertExists, rados.WriteAssertVersion, rados.WriteCmpExt:
		return 0, 0
	}
	return 0, perObject // an object that is made, or removed, hides its parent's bytes, or no longer
}

// maxPerObject is how many sectors the largest objects have.
const maxPerObject = 1 << 15 / sector

// barrier: when an event behind a flush lands, everything up to the flush has, or was
// committed when the replay began.
func (o *oracle) barrier(m *model, flush, n int32) {
	e := m.era
	for s := range m.history {
		lacks := m.after(s, e.landed[s])
		if lacks > flush {
			continue
		}
		r := m.shown[s]
		if z, ok := m.most(s, r, flush); ok && m.onceOnly(s, z) && m.after(s, z) > flush {
			e.landed[s] = z // a discard of what is not there need not be written,
			continue
		}
		for lacks <= flush {
			// nor what was performed before this replay began, and cannot be once more: the image may have become
			// smaller since.
			beyond := s < m.sectors && s >= m.header.size
			newest, shown := m.most(s, r, m.next())
			if !shown || newest < lacks || !m.onceOnly(s, lacks) && !beyond {
				break
			}
			e.landed[s] = lacks
			lacks = m.after(s, lacks)
		}
		if lacks > flush {
			continue
		}
		o.violated("%s: event %d has landed, but cell %d lacks event %d, although flush %d is between them", m.globalID, n, s, lacks, flush)
		return
	}
}

// onceOnly tells whether an event need not write a cell that has its value.
func (m *model) onceOnly(s int, n int32) bool {
	e := m.events[n]
	return m.value(s, n) == zeros || e.compare || e.resize || e.rollback
}

// object names the data object of a sector.
func (m *model) object(s, perObject int) string {
	return rbd.DataObject("rbd_data."+m.copied, uint64(s/perObject))
}

// onRemote is told of each operation on the remote cluster: no worker ever writes the
// primary's data, and a commit position covers only what is durable (1).
func (o *oracle) onRemote(v mem.View, op mem.Op, who *worker) {
	if op.Kind != mem.Write || who == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if strings.HasPrefix(op.Object, "rbd_data.") {
		o.violated("client %d has written %s of the primary", op.Client.InstanceID(), op.Object)
	}
	for _, m := range o.models {
		if op.Object == wire.HeaderObject(m.id) && op.Write.Steps[0].Call.Method == "client_commit" {
			o.committed(v, m)
		}
	}
}

func (o *oracle) committed(v mem.View, m *model) {
	b, ok := v.Omap(wire.HeaderObject(m.id), "client_"+localUUID)
	if !ok {
		o.violated("%s: a commit, and no client", m.globalID)
		return
	}
	d := encoding.NewDecoder("client", b)
	var client wire.Client
	client.Decode(d)
	n, ok := m.behind(client.CommitPosition)
	if !ok || d.Err() != nil {
		o.violated("%s: committed %v, which the journal does not have", m.globalID, client.CommitPosition)
		return
	}
	// At its beginning a sync moves the position to where the primary's own is: it copies
	// all before that. What it has brought is looked at when the replay begins.
	meta, err := wire.DecodeClientData(client.Data)
	peer, ok := meta.(wire.MirrorPeerClientMeta)
	if err != nil || !ok {
		o.violated("%s: our client's data are %v (%v)", m.globalID, meta, err)
		return
	}
	if m.promoted || peer.State != wire.PeerReplaying {
		return // or its user may have written anything
	}
	m.safe = max(m.safe, n)
	o.local.Look(o.pool, "", func(v mem.View) { o.durable(v, m, n) })
}
