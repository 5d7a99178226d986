package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"time"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/journal"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/test/sim/seed"
)

// primary writes the journal of an image as librbd would, over a connection on which
// nothing goes wrong.
type primary struct {
	*model
	io     rados.IOContext
	set    settings
	trace  *seed.Trace
	rng    *rand.Rand
	tag    wire.TagTID
	tid    wire.EntryTID
	active wire.ObjectSet
	filled []int // bytes in the objects of the active set
	newest wire.ObjectSetPosition
	op     wire.OpTID
	open   []*operation // oldest first
	image  *image.Image
	turn   chan struct{} // cap 1: one thing at a time
	mu     *sync.Mutex   // of the oracle, which reads the model; held with turn to change it
}

// makePrimary makes the remote image: as a copy of somebody's with something in it, which
// only a sync can bring over, or as a clone of what has that; then promoted.
func makePrimary(ctx context.Context, io rados.IOContext, set settings, m *model, rng *rand.Rand, t *seed.Trace, mu *sync.Mutex) (*primary, error) {
	p := &primary{model: m, io: io, set: set, rng: rng, trace: t, mu: mu, filled: make([]int, set.splay), turn: make(chan struct{}, 1)}
	spec := image.CreateSpec{
		ID: m.id, Name: fmt.Sprintf("vm-%d", m.number), GlobalID: m.globalID, RemoteMirrorUUID: "somebody",
		Size: uint64(m.size(0) * sector), Order: set.objectOrder, Features: set.features,
	}
	if m.parent != nil {
		parent, err := image.ReadHeader(ctx, io, m.parent.id)
		if err != nil {
			return nil, err
		}
		base := parent.Snapshot(rbd.UserSnapshot{}, baseName)
		spec.Clone = &image.CloneOf{IO: io, ImageID: parent.ID, Snap: base.ID, Overlap: uint64(set.overlap * sector), Format: set.cloneFormat}
	}
	_, err := image.Create(ctx, io, spec)
	if err != nil {
		return nil, err
	}
	if p.image, err = image.Open(ctx, io, m.id, image.Options{AllowPrimary: true}); err != nil {
		return nil, err
	}
	if m.parent == nil {
		data := m.contents(0, 0, m.initial)
		if _, err = p.image.Apply(ctx, []image.IO{{Kind: image.Write, Length: uint64(len(data)), Data: data}}); err != nil {
			return nil, err
		}
	}
	if set.clone && m.parent == nil {
		if err := p.becomeParent(ctx); err != nil {
			return nil, err
		}
	}
	return p, p.newTag(ctx, wire.TagPredecessor{})
}

// baseName is the snapshot of the parent that the clone is made of.
const baseName = "base"

// becomeParent takes the snapshot that the clone is to be made of.
func (p *primary) becomeParent(ctx context.Context) error {
	if _, _, err := p.image.SnapCreate(ctx, rbd.UserSnapshot{}, baseName); err != nil {
		return err
	}
	p.lives = append(p.lives, &snapshot{names: []named{{name: baseName}}, kept: true})
	if p.set.cloneFormat > 1 {
		return nil
	}
	_, err := p.image.SnapProtect(ctx, rbd.UserSnapshot{}, baseName)
	return err
}

// newTag begins a session.
func (p *primary) newTag(ctx context.Context, before wire.TagPredecessor) error {
	j, err := journal.Open(ctx, p.io, p.id)
	if err != nil {
		return err
	}
	defer j.Close()
	tag, err := j.AllocateTag(ctx, 0, wire.TagData{MirrorUUID: wire.LocalMirrorUUID, Predecessor: before})
	p.tag, p.tid, p.op = tag.TID, 0, 0
	return err
}

// append journals an event and notes what it changes: e, and what note does.
func (p *primary) append(ctx context.Context, ev wire.Event, e event, note ...func()) error {
	offset := uint64(p.tid) % uint64(p.set.splay)
	if p.filled[offset] >= 1<<p.set.journalOrder {
		p.active++
		clear(p.filled)
		if err := rados.Tell(ctx, p.io, wire.HeaderObject(p.id), wire.SetActiveSet(p.active)); err != nil {
			return err
		}
	}
	e.position = wire.ObjectPosition{Object: p.active.Object(p.set.splay, uint8(offset)), Tag: p.tag, Entry: p.tid}
	payload := wire.Marshal(wire.EventEntry{Event: ev, Timestamp: time.Now()})
	data := wire.Marshal(wire.Entry{Tag: p.tag, TID: p.tid, Payload: payload})
	p.trace.Add("%s: event %d is %T of sectors [%d,%d), entry %d", p.globalID, p.next(), ev, e.from, e.to, p.tid)
	p.mu.Lock()
	for _, do := range note {
		do()
	}
	p.happened(e) // first: a reader may be quicker than the next line
	p.mu.Unlock()
	p.tid++
	p.filled[offset] += len(data)
	p.newest = slices.DeleteFunc(p.newest, func(o wire.ObjectPosition) bool { return uint64(o.Object)%uint64(p.set.splay) == offset })
	p.newest = slices.Insert(p.newest, 0, e.position)
	return p.io.Write(ctx, wire.DataObject(p.io.Pool().ID, p.id, e.position.Object), new(rados.WriteOp).Append(data))
}

// last is the place of the newest entry; false if there is none.
func (p *primary) last() (place, bool) {
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	newest, ok := p.newest.Newest()
	return place{newest.Tag, newest.Entry}, ok
}

// commit moves the primary's own commit position, without which nothing is trimmed. An operation's event is committed when
// the operation has ended.
func (p *primary) commit(ctx context.Context) error {
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	position := p.newest
	if len(p.open) > 0 {
		position = p.open[0].before
	}
	return rados.Tell(ctx, p.io, wire.HeaderObject(p.id), wire.ClientCommit(wire.MasterClientID, slices.Clone(position)))
}

// do journals an event, then does it.
func (p *primary) do(ctx context.Context, ev wire.Event, e event, io ...image.IO) error {
	if err := p.append(ctx, ev, e); err != nil {
		return err
	}
	_, err := p.image.Apply(ctx, io)
	return err
}

// librbd is how long the primary's librbd takes for what a worker asks of it.
const librbd = 3456789 * time.Nanosecond

// Create makes a sync point (image/sync.Snapshots).
func (p *primary) Create(ctx context.Context, name string) error {
	time.Sleep(librbd)
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	if p.image.Header().Snapshot(rbd.UserSnapshot{}, name) != nil {
		return syscall.EEXIST
	}
	ctx = context.WithoutCancel(ctx)
	for i := 0; i < len(p.open); {
		if !p.open[i].rollback { // that keeps the image's writes, and so a snapshot, back
			i++
			continue
		}
		if err := p.finish(ctx, i); err != nil {
			return err
		}
	}
	o := p.take(name)
	o.atOnce = true
	return p.begin(ctx, o)
}

// Remove removes a sync point.
func (p *primary) Remove(ctx context.Context, name string) error {
	time.Sleep(librbd)
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	if p.image.Header().Snapshot(rbd.UserSnapshot{}, name) == nil {
		return syscall.ENOENT
	}
	o := p.remove(p.called(name))
	o.atOnce = true
	return p.begin(context.WithoutCancel(ctx), o)
}
