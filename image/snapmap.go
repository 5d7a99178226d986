package image

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/rados"
)

// addSnapshot copies the head's map to the snapshot's and, with fast-diff, marks
// what exists in the head's as unchanged since
// (src/librbd/object_map/SnapshotCreateRequest.cc).
func (o *objectMap) addSnapshot(ctx context.Context, id ceph.SnapID) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.m == nil {
		return nil
	}
	if err := o.owned(); err != nil {
		return err
	}
	return o.tolerate(ctx, o.copyToSnapshot(ctx, id))
}

func (o *objectMap) copyToSnapshot(ctx context.Context, id ceph.SnapID) error {
	stored, err := readWhole(ctx, o.io, o.object()) // as it is, checksums and all
	if err != nil {
		return err
	}
	if err := o.io.Write(ctx, rbd.ObjectMapObject(o.id, id), new(rados.WriteOp).WriteFull(stored)); err != nil {
		return err
	}
	if !o.fastDiff {
		return nil
	}
	if err := o.io.Write(ctx, o.object(), asserted(rbd.ObjectMapSnapAdd())); err != nil {
		return err
	}
	o.m.SnapAdd()
	return nil
}

// removeSnapshot removes a snapshot's map. With fast-diff the next newer map (of
// snapshot next, or of the head) first takes over what the snapshot said had
// changed (src/librbd/object_map/SnapshotRemoveRequest.cc).
func (o *objectMap) removeSnapshot(ctx context.Context, s *Snapshot, next ceph.SnapID) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.owned(); err != nil {
		return err
	}
	name := rbd.ObjectMapObject(o.id, s.ID)
	if o.fastDiff {
		removed, err := loadObjectMap(ctx, o.io, name)
		switch {
		case errors.Is(err, syscall.ENOENT):
			return nil // an interrupted removal got as far as this
		case err != nil && rados.Classify(err) != rados.Corrupt:
			return err
		case err != nil, s.Flags.Has(rbd.FlagObjectMapInvalid):
			err = o.invalidate(ctx, next)
			if next == ceph.NoSnap {
				o.valid = false
			}
		default:
			err = o.takeOver(ctx, removed, next)
		}
		if err != nil {
			return fmt.Errorf("object map of the next newer snapshot: %w", err)
		}
	}
	return removeObject(ctx, o.io, name)
}

// takeOver folds a map that is going away into the next newer one.
func (o *objectMap) takeOver(ctx context.Context, removed *rbd.ObjectMap, next ceph.SnapID) error {
	op := new(rados.WriteOp).Exec(rbd.ObjectMapSnapRemove(removed))
	if next == ceph.NoSnap {
		if o.m == nil {
			return nil // marked invalid already
		}
		op = asserted(rbd.ObjectMapSnapRemove(removed))
	}
	err := o.io.Write(ctx, rbd.ObjectMapObject(o.id, next), op)
	switch {
	case err == nil && next == ceph.NoSnap:
		o.m.SnapRemove(removed)
	case err == nil, errors.Is(err, syscall.ENOENT):
	case rados.Classify(err) == rados.Permanent:
		return o.invalidate(ctx, next)
	}
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	return err
}

// rollBack makes m the head's map, or marks the head's invalid if there is none
// (nil).
func (o *objectMap) rollBack(ctx context.Context, m *rbd.ObjectMap) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.m == nil {
		return nil
	}
	if m == nil {
		o.valid = false
		return o.invalidate(ctx, ceph.NoSnap)
	}
	if err := o.owned(); err != nil {
		return err
	}
	err := o.io.Write(ctx, o.object(), asserted(rbd.ObjectMapSave(m)))
	if err == nil {
		o.m = m
	}
	return o.tolerate(ctx, err)
}

// copiedUp says in the maps of snapshots, oldest first, that an object exists, because
// the parent's bytes are about to be copied into it. With fast-diff it has changed in
// the first only (src/librbd/io/CopyupRequest.cc).
func (o *objectMap) copiedUp(ctx context.Context, h *Header, n ObjectNumber, snapshots []*Snapshot) error {
	if !h.Features.Has(rbd.FeatureObjectMap) {
		return nil
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for i, s := range snapshots {
		if uint64(n) >= h.Layout.ObjectCount(s.ImageSize) {
			continue // behind the snapshot's end
		}
		state := rbd.ObjectExists
		if i > 0 && o.fastDiff {
			state = rbd.ObjectExistsClean
		}
		group.Go(func() error {
			if err := o.owned(); err != nil {
				return err
			}
			call := rbd.ObjectMapUpdate(uint64(n), uint64(n)+1, state, nil)
			err := rados.Tell(ctx, o.io, rbd.ObjectMapObject(o.id, s.ID), call)
			switch {
			case err == nil:
				return nil
			case rados.Classify(err) == rados.Permanent, rados.Classify(err) == rados.Corrupt:
				return o.invalidate(ctx, s.ID)
			}
			return fmt.Errorf("update object map of snapshot %d: %w", s.ID, err)
		})
	}
	return group.Wait()
}
