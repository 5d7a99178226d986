package image

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/class"
	cls "github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image/lock"
	"github.com/rbdwarden/rbdwarden/rados"
)

// objectMap keeps the head's object map in memory and on disk in step: the disk
// first, so that a call that fails may be made again. Its methods may be used by
// several goroutines.
//
// The object has an exclusive lock of its own, without cookie and tag, which every
// write asserts (src/librbd/object_map/UpdateRequest.cc).
type objectMap struct {
	io       rados.IOContext
	id       string       // of the image
	owned    func() error // nil while the exclusive lock holds
	fastDiff bool

	mu longLock // held across writes of the map
	// m is nil if the image has no object map, or one that cannot be written: then
	// nothing is known, and the flags on the header say so.
	m      *rbd.ObjectMap
	locked bool // we have the object's lock
	// valid is false if the map's flags say that it may be wrong. It is kept up
	// nevertheless, as librbd does, but not believed.
	valid bool
}

func (o *objectMap) object() string { return rbd.ObjectMapObject(o.id, ceph.NoSnap) }

// asserted begins a write to the head's map.
func asserted(calls ...class.Call) *rados.WriteOp {
	op := new(rados.WriteOp).Exec(cls.Assert(rbd.LockName, cls.Exclusive, "", ""))
	for _, c := range calls {
		op.Exec(c)
	}
	return op
}

// mayExist is false if the map knows that the object does not exist.
func (o *objectMap) mayExist(n ObjectNumber) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.m == nil || !o.valid || uint64(n) >= o.m.Size() || o.m.At(uint64(n)) != rbd.ObjectNonexistent
}

// enabled tells whether there is a map to keep up.
func (o *objectMap) enabled() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.m != nil
}

// set brings objects, in ascending order, into a state, as far as they need it.
func (o *objectMap) set(ctx context.Context, objects []ObjectNumber, state rbd.ObjectState) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.m == nil {
		return nil
	}
	ranges := planMapChanges(o.m, objects, state)
	return o.tolerate(ctx, o.write(ctx, ranges))
}

// setRange brings a range of objects into a state, as far as it changes them.
func (o *objectMap) setRange(ctx context.Context, r mapRange) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.m == nil {
		return nil
	}
	pieces := slices.DeleteFunc(r.split(o.m.Size()), func(p mapRange) bool { return !p.changes(o.m) })
	return o.tolerate(ctx, o.write(ctx, pieces))
}

// write makes the changes on disk, then in memory.
func (o *objectMap) write(ctx context.Context, ranges []mapRange) error {
	if len(ranges) == 0 {
		return nil
	}
	if err := o.owned(); err != nil {
		return err
	}
	if saveWhole(o.m, len(ranges)) {
		next := o.m.Clone()
		for _, r := range ranges {
			next.Update(r.start, r.end, r.state, r.current)
		}
		if err := o.io.Write(ctx, o.object(), asserted(rbd.ObjectMapSave(next))); err != nil {
			return err
		}
		o.m = next
		return nil
	}
	// Disjoint ranges: their order does not matter.
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for _, r := range ranges {
		group.Go(func() error {
			return o.io.Write(groupCtx, o.object(), asserted(rbd.ObjectMapUpdate(r.start, r.end, r.state, r.current)))
		})
	}
	if err := group.Wait(); err != nil {
		return err // what did succeed is written again the next time
	}
	for _, r := range ranges {
		o.m.Update(r.start, r.end, r.state, r.current)
	}
	return nil
}

// tolerate decides about a failed write of the map. Where trying again cannot help
// (the map is missing, damaged or too small) the map is marked invalid, as librbd
// does, and the image goes on without: data matter more than an index that "rbd
// object-map rebuild" can make again.
func (o *objectMap) tolerate(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	switch class := rados.Classify(err); class {
	case rados.Permanent, rados.Corrupt:
		if flagErr := o.invalidate(ctx, ceph.NoSnap); flagErr != nil {
			return fmt.Errorf("object map failed (%w), and could not be marked invalid: %w", err, flagErr)
		}
		o.m, o.valid = nil, false
		return nil
	}
	return fmt.Errorf("update object map: %w", err)
}

// invalidate marks the map of the head or of a snapshot as not to be believed.
func (o *objectMap) invalidate(ctx context.Context, snap ceph.SnapID) error {
	if err := o.owned(); err != nil {
		return err
	}
	flags := rbd.FlagObjectMapInvalid
	if o.fastDiff {
		flags |= rbd.FlagFastDiffInvalid
	}
	return rados.Tell(ctx, o.io, rbd.HeaderObject(o.id), rbd.SetFlags(snap, flags, flags))
}

// open takes the map's lock and loads the map for an image of that many
// objects. What cannot be used is marked invalid on the header; see
// src/librbd/object_map/RefreshRequest.cc.
func (o *objectMap) open(ctx context.Context, objects uint64, flags rbd.Flags) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.take(ctx, objects, flags)
}

func (o *objectMap) take(ctx context.Context, objects uint64, flags rbd.Flags) error {
	if objects > rbd.MaxObjects {
		return o.invalidate(ctx, ceph.NoSnap)
	}
	if err := o.owned(); err != nil {
		return err
	}
	err := lock.LockObjectMap(ctx, o.io, o.id)
	if errors.Is(err, syscall.ENOENT) {
		return o.startOver(ctx, objects)
	}
	if err != nil {
		return err
	}
	o.locked = true
	return o.load(ctx, objects, flags)
}

// load reads the map, or makes one that knows nothing if that is not possible.
func (o *objectMap) load(ctx context.Context, objects uint64, flags rbd.Flags) error {
	m, err := loadObjectMap(ctx, o.io, o.object())
	o.m, o.valid = m, !flags.Has(rbd.FlagObjectMapInvalid)
	switch {
	case err != nil && (errors.Is(err, syscall.ENOENT) || rados.Classify(err) == rados.Corrupt):
		o.m = nil
	case err != nil:
		return fmt.Errorf("load object map: %w", err)
	case m.Size() >= objects: // larger: a resize was interrupted, which is harmless
		return nil
	}
	return o.startOver(ctx, objects)
}

// startOver replaces a map that is missing, damaged or too small by one that knows
// nothing, so that it can be kept up from here on, and marks it invalid.
func (o *objectMap) startOver(ctx context.Context, objects uint64) error {
	if err := o.invalidate(ctx, ceph.NoSnap); err != nil {
		return fmt.Errorf("mark object map invalid: %w", err)
	}
	next := rbd.NewObjectMap(objects)
	next.Update(0, objects, rbd.ObjectExists, nil)
	if !o.locked {
		if err := o.io.Write(ctx, o.object(), new(rados.WriteOp).Create(false)); err != nil {
			return fmt.Errorf("create object map: %w", err)
		}
		if err := lock.LockObjectMap(ctx, o.io, o.id); err != nil {
			return err
		}
		o.locked = true
	}
	if err := o.io.Write(ctx, o.object(), asserted(rbd.ObjectMapSave(next))); err != nil {
		return fmt.Errorf("replace object map: %w", err)
	}
	o.m, o.valid = next, false
	return nil
}

// close gives the map's lock up, if it was taken. Somebody who was fenced has lost
// it anyway.
func (o *objectMap) close(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.locked {
		return nil
	}
	if err := lock.UnlockObjectMap(ctx, o.io, o.id); err != nil && rados.Classify(err) != rados.Fenced {
		return err
	}
	o.m, o.locked = nil, false
	return nil
}

// resize changes the number of objects; new ones do not exist, and those cut off
// must not.
func (o *objectMap) resize(ctx context.Context, objects uint64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.m == nil || o.m.Size() == objects {
		return nil
	}
	if err := o.owned(); err != nil {
		return err
	}
	err := o.io.Write(ctx, o.object(), asserted(rbd.ObjectMapResize(objects, rbd.ObjectNonexistent)))
	if err == nil {
		o.m.Resize(objects, rbd.ObjectNonexistent)
	}
	return o.tolerate(ctx, err)
}

// grow makes the map long enough for that many objects, if it is not.
func (o *objectMap) grow(ctx context.Context, objects uint64) error {
	o.mu.Lock()
	enough := o.m == nil || o.m.Size() >= objects
	o.mu.Unlock()
	if enough {
		return nil
	}
	return o.resize(ctx, objects)
}

// loadObjectMap reads a stored map as the bytes of the object. The class method
// would answer EINVAL for damage and not say where.
func loadObjectMap(ctx context.Context, io rados.IOContext, object string) (*rbd.ObjectMap, error) {
	b, err := readWhole(ctx, io, object)
	if err != nil {
		return nil, err
	}
	m, err := rbd.DecodeObjectMap(b)
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", object, err)
	}
	return m, nil
}

// readWhole reads all bytes of an object of metadata, which nobody else changes
// meanwhile.
func readWhole(ctx context.Context, io rados.IOContext, object string) ([]byte, error) {
	var stat rados.ReadOp
	size := stat.Stat()
	if err := io.Read(ctx, object, &stat); err != nil {
		return nil, err
	}
	if size.Size == 0 {
		return nil, nil
	}
	var op rados.ReadOp
	data := op.Read(0, size.Size)
	if err := io.Read(ctx, object, &op); err != nil {
		return nil, err
	}
	return data.Data, nil
}
