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
// Steps, as src/librbd/operation/SnapshotRollbackRequest.cc: the size, the object
// map, then every object that the head or the snapshot may have. Interrupted
// anywhere, it has to be done again.
func (im *Image) SnapRollback(ctx context.Context, ns rbd.SnapshotNamespace, name string) (Outcome, error) {
	return im.operate(ctx, fmt.Sprintf("roll back to snapshot %q", name), func(ctx context.Context, h *Header) (Outcome, error) {
		s := h.Snapshot(ns, name)
		if s == nil {
			return 0, syscall.ENOENT
		}
		headObjects := h.Layout.ObjectCount(h.Size)
		if _, err := im.resize(ctx, h, s.ImageSize); err != nil {
			return 0, err
		}
		if err := im.refresh(ctx); err != nil {
			return 0, err
		}
		h = im.Header()

		old := im.object.copied()
		if err := im.object.rollBack(ctx, s.ID); err != nil {
			return 0, err
		}
		if err := im.rollBackObjects(ctx, h, s, headObjects, old); err != nil {
			return 0, err
		}
		return Done, im.object.reload(ctx, h.Layout.ObjectCount(h.Size), h.Flags)
	})
}

// rollBackObjects rolls back each object of the head as it is now. Left out are
// those that neither the head (of headObjects, with the map old) nor the snapshot
// had.
func (im *Image) rollBackObjects(ctx context.Context, h *Header, s *Snapshot, headObjects uint64, old *rbd.ObjectMap) error {
	var then *rbd.ObjectMap
	if old != nil && !s.Flags.Has(rbd.FlagObjectMapInvalid) {
		m, err := loadObjectMap(ctx, im.io, rbd.ObjectMapObject(h.ID, s.ID))
		if err != nil && !errors.Is(err, syscall.ENOENT) && rados.Classify(err) != rados.Corrupt {
			return err
		}
		then = m
	}
	absent := func(m *rbd.ObjectMap, n uint64) bool {
		return m != nil && n < m.Size() && m.At(n) == rbd.ObjectNonexistent
	}
	flight := newFlight(ctx, im.limits)
	for n := range h.Layout.ObjectCount(h.Size) {
		if flight.ctx.Err() != nil {
			break
		}
		if n < headObjects && absent(old, n) && absent(then, n) {
			continue
		}
		flight.start(0, func(ctx context.Context) error {
			err := im.writeData(ctx, h, ObjectNumber(n), new(rados.WriteOp).Rollback(s.ID))
			if errors.Is(err, syscall.ENOENT) {
				return nil
			}
			return err
		})
	}
	return errors.Join(flight.wait(), ctx.Err())
}

// copied is a copy of the head's map if it may be believed, else nil.
func (o *objectMap) copied() *rbd.ObjectMap {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.m == nil || !o.valid {
		return nil
	}
	return o.m.Clone()
}
