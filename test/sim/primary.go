package sim

import (
	"context"
	"fmt"
	"maps"
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
)

// primary writes the journal of an image as librbd would, over a connection on which
// nothing goes wrong.
type primary struct {
	*model
	io     rados.IOContext
	set    settings
	trace  *trace
	rng    *rand.Rand
	tag    wire.TagTID
	tid    wire.EntryTID
	active wire.ObjectSet
	filled []int // bytes in the objects of the active set
	newest wire.ObjectSetPosition
	op     wire.OpTID
	image  *image.Image
	turn   chan struct{} // cap 1: one thing at a time
	mu     *sync.Mutex   // of the oracle, which reads the model; held with turn to change it
}

// makePrimary makes the remote image: as a copy of somebody's with something in it, which
// only a sync can bring over, then promoted.
func makePrimary(ctx context.Context, io rados.IOContext, set settings, m *model, rng *rand.Rand, t *trace, mu *sync.Mutex) (*primary, error) {
	p := &primary{model: m, io: io, set: set, rng: rng, trace: t, mu: mu, filled: make([]int, set.splay), turn: make(chan struct{}, 1)}
	_, err := image.Create(ctx, io, image.CreateSpec{
		ID: m.id, Name: fmt.Sprintf("vm-%d", m.number), GlobalID: m.globalID, RemoteMirrorUUID: "somebody",
		Size: uint64(m.sectors * sector), Order: set.objectOrder, Features: set.features,
	})
	if err != nil {
		return nil, err
	}
	if p.image, err = image.Open(ctx, io, m.id, image.Options{AllowPrimary: true}); err != nil {
		return nil, err
	}
	data := m.contents(0, 0, m.sectors/2)
	if _, err = p.image.Apply(ctx, []image.IO{{Kind: image.Write, Length: uint64(len(data)), Data: data}}); err != nil {
		return nil, err
	}
	j, err := journal.Open(ctx, io, m.id)
	if err != nil {
		return nil, err
	}
	defer j.Close()
	tag, err := j.AllocateTag(ctx, 0, wire.TagData{MirrorUUID: wire.LocalMirrorUUID})
	p.tag = tag.TID
	return p, err
}

// append journals an event and notes what it changes.
func (p *primary) append(ctx context.Context, ev wire.Event, e event) error {
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
	p.trace.add("%s: event %d is %T of sectors [%d,%d), entry %d", p.globalID, p.next(), ev, e.from, e.to, p.tid)
	p.mu.Lock()
	p.happened(e) // first: a reader may be quicker than the next line
	p.mu.Unlock()
	p.tid++
	p.filled[offset] += len(data)
	p.newest = slices.DeleteFunc(p.newest, func(o wire.ObjectPosition) bool { return uint64(o.Object)%uint64(p.set.splay) == offset })
	p.newest = slices.Insert(p.newest, 0, e.position)
	return p.io.Write(ctx, wire.DataObject(p.io.Pool().ID, p.id, e.position.Object), new(rados.WriteOp).Append(data))
}

// entries is how many the journal has.
func (p *primary) entries() uint64 {
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	return uint64(p.tid)
}

// commit moves the primary's own commit position, without which nothing is trimmed.
func (p *primary) commit(ctx context.Context) error {
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	return rados.Tell(ctx, p.io, wire.HeaderObject(p.id), wire.ClientCommit(wire.MasterClientID, slices.Clone(p.newest)))
}

// do journals an event, then does it.
func (p *primary) do(ctx context.Context, ev wire.Event, e event, io ...image.IO) error {
	if err := p.append(ctx, ev, e); err != nil {
		return err
	}
	_, err := p.image.Apply(ctx, io)
	return err
}

// write makes something happen on the primary.
func (p *primary) write(ctx context.Context) error {
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	length := 1 + p.rng.IntN(min(p.set.maxSectors, p.sectors-1))
	from := p.rng.IntN(p.sectors - length)
	if p.rng.IntN(3) > 0 { // in few places, so that much is written over
		from %= 16
	}
	e := event{from: from, to: from + length}
	at, bytes := uint64(from*sector), uint64(length*sector)
	e.position.Entry = p.tid // says whether the event writes the same everywhere
	kind := p.rng.IntN(14)
	switch {
	case e.same():
		b := make([]byte, sector)
		p.stamp(b, p.next(), everywhere)
		return p.do(ctx, wire.AioWriteSame{Offset: at, Length: bytes, Data: b}, e,
			image.IO{Kind: image.WriteSame, Offset: at, Length: bytes, Data: b})
	case kind < 3:
		return p.do(ctx, wire.AioFlush{}, event{flush: true})
	case kind < 5:
		e.zero = true
		return p.do(ctx, wire.AioDiscard{Offset: at, Length: bytes}, e, image.IO{Kind: image.Discard, Offset: at, Length: bytes})
	case kind < 7:
		return p.compareAndWrite(ctx, e)
	case kind < 8:
		return p.changeSnapshots(ctx)
	}
	data := p.stamped(e)
	return p.do(ctx, wire.AioWrite{Offset: at, Length: bytes, Data: data}, e,
		image.IO{Kind: image.Write, Offset: at, Length: bytes, Data: data})
}

// stamped is what the next event writes.
func (p *primary) stamped(e event) []byte {
	b := make([]byte, (e.to-e.from)*sector)
	for s := e.from; s < e.to; s++ {
		p.stamp(b[(s-e.from)*sector:][:sector], p.next(), s)
	}
	return b
}

// compareAndWrite journals one that succeeds, or one that finds what an older event left.
func (p *primary) compareAndWrite(ctx context.Context, e event) error {
	e.to, e.compare = min(e.to, e.from+2), true
	if perObject := 1 << p.set.objectOrder / sector; e.from/perObject != (e.to-1)/perObject {
		e.to = e.from + 1 // it may not lie in two objects
	}
	n := p.next()
	behind := n - 1
	if p.rng.IntN(2) == 0 {
		behind = p.rng.Int32N(n)
	}
	compare, write, at := p.contents(behind, e.from, e.to), p.stamped(e), uint64(e.from*sector)
	ev := wire.AioCompareAndWrite{Offset: at, Length: uint64(len(write)), CompareData: compare, WriteData: write}
	if string(compare) != string(p.contents(n-1, e.from, e.to)) {
		e.from, e.to = 0, 0 // it fails here, and has to fail there
		return p.do(ctx, ev, e)
	}
	return p.do(ctx, ev, e, image.IO{Kind: image.Write, Offset: at, Length: uint64(len(write)), Data: write})
}

// changeSnapshots takes, renames or removes a snapshot. The names are few, so that each is
// used again.
func (p *primary) changeSnapshots(ctx context.Context) error {
	name, what := fmt.Sprintf("snap-%d", p.rng.IntN(6)), p.rng.IntN(4)
	_, there := p.snaps[name]
	switch taken := slices.Sorted(maps.Keys(p.snaps)); {
	case there && what < 2:
		delete(p.snaps, name)
		return p.unsnapshot(ctx, name)
	case !there && what == 0 && len(taken) > 0:
		old := taken[p.rng.IntN(len(taken))]
		p.snaps[name] = p.snaps[old]
		delete(p.snaps, old)
		id := p.image.Header().Snapshot(rbd.UserSnapshot{}, old).ID
		return p.operation(ctx, func(op wire.OpTID) wire.Event {
			return wire.SnapRename{Op: op, SnapID: uint64(id), OldName: old, NewName: name}
		}, func() error {
			_, err := p.image.SnapRename(ctx, old, name)
			return err
		})
	case !there:
		p.snaps[name] = p.next()
		return p.snapshot(ctx, name)
	}
	return nil
}

// operation journals an operation, does it, and journals that it is done.
func (p *primary) operation(ctx context.Context, ev func(wire.OpTID) wire.Event, do func() error) error {
	p.op++
	op := p.op
	if err := p.append(ctx, ev(op), event{}); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return p.append(ctx, wire.OpFinish{Op: op}, event{})
}

// snapshot takes a snapshot.
func (p *primary) snapshot(ctx context.Context, name string) error {
	return p.operation(ctx, func(op wire.OpTID) wire.Event { return wire.SnapCreate{Op: op, Name: name} }, func() error {
		_, _, err := p.image.SnapCreate(ctx, rbd.UserSnapshot{}, name)
		return err
	})
}

// unsnapshot removes a snapshot.
func (p *primary) unsnapshot(ctx context.Context, name string) error {
	return p.operation(ctx, func(op wire.OpTID) wire.Event { return wire.SnapRemove{Op: op, Name: name} }, func() error {
		_, err := p.image.SnapRemove(ctx, rbd.UserSnapshot{}, name)
		return err
	})
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
	return p.snapshot(context.WithoutCancel(ctx), name)
}

// Remove removes a sync point.
func (p *primary) Remove(ctx context.Context, name string) error {
	time.Sleep(librbd)
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	if p.image.Header().Snapshot(rbd.UserSnapshot{}, name) == nil {
		return syscall.ENOENT
	}
	return p.unsnapshot(context.WithoutCancel(ctx), name)
}
