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
	trace  *trace
}

// era is one worker's replay of an image, from the position it began at.
type era struct {
	client *mem.Client
	start  int32   // committed when it began
	high   int32   // the newest event that had landed before
	landed []int32 // by sector: the newest event that this replay has brought, or start
	whole  int32   // the flush up to which everything was found to have landed
}

// violated notes the first violation.
func (o *oracle) violated(format string, args ...any) {
	if o.first == "" {
		o.first = fmt.Sprintf(format, args...)
		o.trace.add("VIOLATION: %s", o.first)
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

// replays is told that a worker begins to replay an image.
func (o *oracle) replays(m *model, c *mem.Client, committed wire.ObjectSetPosition) {
	o.mu.Lock()
	defer o.mu.Unlock()
	start, ok := m.behind(committed)
	if !ok {
		o.violated("%s: replay begins at %v, which the journal does not have", m.globalID, committed)
		return
	}
	m.era = &era{client: c, start: start, high: m.highest, whole: start, landed: make([]int32, m.sectors)}
	for s := range m.era.landed {
		m.era.landed[s] = start
	}
	if !m.promoting {
		m.safe = max(m.safe, start)
		o.local.Look(o.pool, "", func(v mem.View) { o.durable(v, m, start) })
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
	if op.Kind != mem.Write || who == nil || !strings.HasPrefix(op.Object, "rbd_data.") {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, m := range o.models {
		if number, ok := rbd.DataObjectNumber("rbd_data."+m.copied, op.Object); ok && m.copied != "" {
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
	e := m.era
	if e != nil && e.client != op.Client {
		e = nil // a sync
	}
	perObject := 1 << o.set.objectOrder / sector
	var b [sector]byte
	for _, step := range op.Write.Steps {
		from, to := touched(step, perObject)
		for s := object*perObject + from; s < min(object*perObject+to, m.sectors); s++ {
			v.Read(op.Object, uint64(s%perObject*sector), b[:])
			r, ok := m.read(b[:], s)
			if !ok {
				o.violated("%s: sector %d of the copy holds what the primary never had", m.globalID, s)
				return
			}
			if e == nil { // it brings what the primary holds now
				m.shown[s], m.highest = r, m.next()-1
				continue
			}
			oldest, _ := m.least(s, r, 0)
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
	}
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
	case rados.WriteFull, rados.WriteRemove:
		return 0, perObject
	}
	return 0, 0
}

// barrier: when an event behind a flush lands, everything up to the flush has, or was
// committed when the replay began.
func (o *oracle) barrier(m *model, flush, n int32) {
	e := m.era
	for s := range m.sectors {
		lacks := m.after(s, e.landed[s])
		if lacks > flush {
			continue
		}
		r := m.shown[s]
		if z, zero := m.most(s, r, flush); r.zero && zero && m.after(s, z) > flush {
			e.landed[s] = z // a discard of what is not there need not be written,
			continue
		}
		for lacks <= flush {
			// nor a compare-and-write that was performed before this replay began.
			newest, shown := m.most(s, r, m.next())
			if !shown || newest < lacks || !m.zeros(s, lacks) && !m.events[lacks].compare {
				break
			}
			e.landed[s] = lacks
			lacks = m.after(s, lacks)
		}
		if lacks > flush {
			continue
		}
		o.violated("%s: event %d has landed, but sector %d lacks event %d, although flush %d is between them", m.globalID, n, s, lacks, flush)
		return
	}
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

// durable: the copy shows at least everything up to event n; and where nothing behind n had
// landed before this replay, it is a state that a power cut could have left on the primary.
func (o *oracle) durable(v mem.View, m *model, n int32) {
	perObject := 1 << o.set.objectOrder / sector
	shown := make([]reading, m.sectors)
	var b [sector]byte
	newest := int32(0) // that must have been written
	for s := range m.sectors {
		v.Read(m.object(s, perObject), uint64(s%perObject*sector), b[:])
		r, ok := m.read(b[:], s)
		if !ok {
			o.violated("%s: sector %d of the copy holds what the primary never had: %.16q", m.globalID, s, b[:16])
			return
		}
		oldest, ok := m.least(s, r, m.newest(s, n))
		if !ok {
			o.violated("%s: everything up to event %d is committed, but sector %d lacks event %d and shows %+v", m.globalID, n, s, m.newest(s, n), r)
			return
		}
		newest = max(newest, oldest)
		shown[s] = r
	}
	if m.era == nil || n < m.era.high {
		return
	}
	flush := m.flushed[newest]
	for s, r := range shown {
		// Zeros may be those of a discard that is newer than anything that is sure to have landed.
		if have, ok := m.most(s, r, m.next()); !ok || m.after(s, have) <= flush {
			o.violated("%s: the copy shows event %d, and sector %d (%+v, event %d) not all before flush %d: no power cut leaves that", m.globalID, newest, s, r, have, flush)
			return
		}
	}
}
