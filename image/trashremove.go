package image

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/ceph/notify"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image/lock"
	"github.com/rbdwarden/rbdwarden/rados"
)

// RemoveFromTrash deletes an image for good that mirroring put into the trash, and whose
// deferment has ended. One that is not there (any more), that somebody else put
// there, or whose time has not come is left alone, without an error. While it has
// clones or is in use the error is a *ChildrenError or *InUseError. Interrupted
// anywhere it can be called again.
//
// Invariant: nothing is deleted before the entry is in the state REMOVING, which only
// one who saw it NORMAL can bring about; a restore works the same way, so of a restore
// and a removal one does nothing.
//
// Steps: src/tools/rbd_mirror/image_deleter/TrashRemoveRequest.cc,
// src/librbd/trash/RemoveRequest.cc.
func RemoveFromTrash(ctx context.Context, io rados.IOContext, id string, now time.Time, opts lock.Options) error {
	if err := removeFromTrash(ctx, io, id, now, opts); err != nil {
		return fmt.Errorf("remove image %s from the trash: %w", id, err)
	}
	return nil
}

func removeFromTrash(ctx context.Context, io rados.IOContext, id string, now time.Time, opts lock.Options) error {
	entry, ok, err := trashEntry(ctx, io, id)
	if err != nil || !ok || entry.Source != rbd.TrashMirroring || entry.DefermentEnds.After(now) {
		return err
	}
	record, err := rados.Ask(ctx, io, rbd.MirroringObject, mirror.ImageGet(id))
	switch {
	case errors.Is(err, syscall.ENOENT):
	case err != nil:
		return err
	default:
		// Its move has not ended, or its restore has just begun: not our turn.
		return fmt.Errorf("its mirroring is still %v: %w", record.State, syscall.EBUSY)
	}
	switch entry.State {
	case rbd.TrashNormal:
		err := rados.Tell(ctx, io, rbd.TrashObject, rbd.TrashStateSet(id, rbd.TrashBeingGone, rbd.TrashNormal))
		if errors.Is(err, syscall.ENOENT) {
			return nil
		}
		if err != nil {
			return err
		}
	case rbd.TrashBeingGone:
	default:
		return fmt.Errorf("somebody is moving or restoring it: %w", syscall.EBUSY)
	}
	if err := idIsFree(ctx, io, id); err != nil {
		var exists *IDTakenError
		if !errors.As(err, &exists) {
			return err
		}
		// Its journal was reset when it was trashed, so it counts as primary.
		if err := removeContents(ctx, io, id, Options{Lock: opts, AllowPrimary: true}, nil); err != nil {
			return err
		}
	}
	if err := removeParts(ctx, io, id, "", nil); err != nil {
		return err
	}
	if err := leaveTrash(ctx, io, id); err != nil {
		return err
	}
	notifyTrash(ctx, io, notify.TrashRemoved{ImageID: id})
	return nil
}
