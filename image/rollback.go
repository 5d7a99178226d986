package image

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/rados"
)

// SnapRollback sets the head to what it was at a snapshot, size included. ENOENT
// if there is no such snapshot.
//
// Steps: the size; the object map gets what the snapshot has; every object that
// the head or the snapshot may have; the object map as it is then. Upstream
// (src/librbd/operation/SnapshotRollbackRequest.cc) rolls the map back before the
// objects. Interrupted there it cannot be done again: the map has forgotten which
// objects are to go.
func (im *Image) SnapRollback(ctx context.Context, ns rbd.SnapshotNamespace, name string) (Outcome, error) {
	return im.operate(ctx, fmt.Sprintf("roll back to snapshot %q", name), func(ctx context.Context, h *Header) (Outcome, error) {
		s := h.Snapshot(ns, name)
		if s == nil {
			return 0, syscall.ENOENT
		}
		if _, err := im.resize(ctx, h, s.ImageSize); err != nil {
			return 0, err
		}
		if err := im.refresh(ctx); err != nil {
			return 0, err
		}
		h = im.Header()

		after, err := im.mapAfterRollback(ctx, h, s)
		if err != nil {
			return 0, err
		}
		var exist []ObjectNumber
		for n := range h.Layout.ObjectCount(h.Size) {
			if after == nil || after.At(n) == rbd.ObjectExists {
				exist = append(exist, ObjectNumber(n))
			}
		}
		if err := im.object.set(ctx, exist, rbd.ObjectExists); err != nil {
			return 0, err
		}
		if err := im.rollBackObjects(ctx, h, s); err != nil {
			return 0, err
		}
		return Done, im.object.rollBack(ctx, after)
	})
}

// mapAfterRollback is what the head's map will be; nil if the snapshot's does not
// tell.
//
// Upstream takes the snapshot's map as it is. But "unchanged" in it means since the
// snapshot before; in the head's it means since the newest one, and fast-diff would
// miss objects. Here every object counts as changed, as it does for the OSDs: a
// rollback makes a new state of the object even if the bytes are the same.
func (im *Image) mapAfterRollback(ctx context.Context, h *Header, s *Snapshot) (*rbd.ObjectMap, error) {
	m, err := im.snapshotMap(ctx, h, s)
	if m == nil || err != nil {
		return nil, err
	}
	for n := range m.Size() {
		if m.At(n) != rbd.ObjectNonexistent {
			m.Set(n, rbd.ObjectExists)
		}
	}
	return m, nil
}

// snapshotMap is the map of a snapshot; nil if there is none to be believed.
func (im *Image) snapshotMap(ctx context.Context, h *Header, s *Snapshot) (*rbd.ObjectMap, error) {
	if !im.object.enabled() || s.Flags.Has(rbd.FlagObjectMapInvalid) {
		return nil, nil
	}
	m, err := loadObjectMap(ctx, im.io, rbd.ObjectMapObject(h.ID, s.ID))
	switch {
	case errors.Is(err, syscall.ENOENT), err != nil && rados.Classify(err) == rados.Corrupt:
		return nil, nil
	case err != nil:
		return nil, err
	case m.Size() != h.Layout.ObjectCount(s.ImageSize):
		return nil, nil
	}
	return m, nil
}

// rollBackObjects rolls back each object that the head's map, which also has what
// the snapshot has, does not rule out.
func (im *Image) rollBackObjects(ctx context.Context, h *Header, s *Snapshot) error {
	flight := newFlight(ctx, im.limits)
	for n := range h.Layout.ObjectCount(h.Size) {
		object := ObjectNumber(n)
		if flight.ctx.Err() != nil {
			break
		}
		if !im.object.mayExist(object) {
			continue
		}
		flight.start(0, func(ctx context.Context) error {
			err := im.writeData(ctx, h, object, new(rados.WriteOp).Rollback(s.ID))
			if errors.Is(err, syscall.ENOENT) {
				return nil
			}
			return err
		})
	}
	return errors.Join(flight.wait(), ctx.Err())
}
