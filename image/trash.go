package image

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/ceph/notify"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image/lock"
	"github.com/rbdwarden/rbdwarden/journal"
	"github.com/rbdwarden/rbdwarden/rados"
)

// MoveToTrash moves a non-primary image to the trash, from where RemoveFromTrash deletes
// it when the deferment has ended and an operator may restore it until then ("rbd
// trash restore"). Its name is free at once, and it is mirrored no more. A *PrimaryError
// says that it must not go. An image without a mirror record is none of ours and is left
// alone, without an error.
//
// Interrupted anywhere it can be called again, and goes on: the entry in the trash is
// in the state MOVING, which keeps everybody else off, until all is done, and the
// mirror record, in the state DISABLING, goes last.
//
// Steps and the contents of the entry: src/tools/rbd_mirror/image_deleter/TrashMoveRequest.cc.
// Upstream resets the journal before it enters the image in the trash; killed between
// the two it leaves an image that looks like a primary, and stays so.
func MoveToTrash(ctx context.Context, io rados.IOContext, id string, now, deferment time.Time, opts lock.Options) error {
	if err := moveToTrash(ctx, io, id, now, deferment, opts); err != nil {
		return fmt.Errorf("move image %s to the trash: %w", id, err)
	}
	return nil
}

func moveToTrash(ctx context.Context, io rados.IOContext, id string, now, deferment time.Time, opts lock.Options) error {
	record, err := rados.Ask(ctx, io, rbd.MirroringObject, mirror.ImageGet(id))
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	if record.State == mirror.ImageCreating {
		return removeHalfMade(ctx, io, id, record) // there is nothing to restore
	}
	entry, trashed, err := trashEntry(ctx, io, id)
	if err != nil {
		return err
	}
	if trashed && entry.Source != rbd.TrashMirroring {
		return fmt.Errorf("somebody else (%v) has it in the trash: %w", entry.Source, syscall.EBUSY)
	}
	var exists *IDTakenError
	if err := idIsFree(ctx, io, id); err != nil && !errors.As(err, &exists) {
		return err
	}
	if exists == nil {
		return removeRest(ctx, io, id, record)
	}
	// With the entry made, the journal is reset or about to be: it says no more who is primary.
	im, err := Open(ctx, io, id, Options{Lock: opts, AllowPrimary: trashed})
	if err != nil {
		return err
	}
	moved, err := im.moveToTrash(ctx, record, entry, trashed, now, deferment)
	err = errors.Join(err, im.closeAnyway(ctx))
	if err == nil {
		notifyTrash(ctx, io, notify.TrashAdded{ImageID: id, Spec: notify.TrashSpec{
			Source: uint8(moved.Source), Name: moved.Name, Deleted: moved.DeletionTime,
			DeferredUntil: moved.DefermentEnds, State: uint8(moved.State),
		}})
	}
	return err
}

// moveToTrash does it under the exclusive lock.
func (im *Image) moveToTrash(ctx context.Context, record mirror.Image, entry rbd.TrashSpec, trashed bool, now, deferment time.Time) (rbd.TrashSpec, error) {
	id, io := im.object.id, im.io
	err := im.exclusively(ctx, func(ctx context.Context) error {
		if err := im.owned(); err != nil {
			return err
		}
		if record.State != mirror.ImageDisabling {
			record.State = mirror.ImageDisabling
			if err := setRecord(ctx, io, id, record); err != nil {
				return err
			}
		}
		if !trashed {
			name, err := Name(ctx, io, id)
			if err != nil {
				return fmt.Errorf("find its name: %w", err)
			}
			entry = rbd.TrashSpec{
				Source: rbd.TrashMirroring, Name: name, DeletionTime: now, DefermentEnds: deferment, State: rbd.TrashMoving,
			}
			if err := rados.Tell(ctx, io, rbd.TrashObject, rbd.TrashAdd(id, entry)); err != nil {
				return err
			}
		}
		if err := im.owned(); err != nil {
			return err
		}
		if err := resetJournal(ctx, io, id); err != nil {
			return err
		}
		if err := leaveDirectory(ctx, io, entry.Name, id); err != nil {
			return err
		}
		return rados.Tell(ctx, io, rbd.TrashObject, rbd.TrashStateSet(id, rbd.TrashNormal, rbd.TrashMoving))
	})
	if err != nil {
		return entry, err
	}
	entry.State = rbd.TrashNormal
	return entry, removeRecord(ctx, io, id, record)
}

// removeRest removes what is left of an image that has lost its header: a removal that
// was interrupted.
func removeRest(ctx context.Context, io rados.IOContext, id string, record mirror.Image) error {
	name, err := Name(ctx, io, id)
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		return err
	}
	if err := leaveTrash(ctx, io, id); err != nil {
		return err
	}
	return removeParts(ctx, io, id, name, &record)
}

// resetJournal gives the image a new journal in which this cluster is primary: who
// restores the image may write it, and a peer that meets it sees a split brain
// (src/librbd/journal/ResetRequest.cc). It is no error if that was done before.
func resetJournal(ctx context.Context, io rados.IOContext, id string) error {
	j, err := journal.Open(ctx, io, id)
	if errors.Is(err, syscall.ENOENT) { // interrupted in the middle
		return createJournal(ctx, io, id, wire.LocalMirrorUUID)
	}
	if err != nil {
		return err
	}
	m := j.Metadata()
	j.Close()
	if err := checkNonPrimary(ctx, io, id); err != nil {
		var primary *PrimaryError
		if errors.As(err, &primary) {
			return nil
		}
		if !errors.Is(err, syscall.ENOENT) { // a journal whose creation was interrupted
			return err
		}
	}
	if err := journal.Remove(ctx, io, id); err != nil {
		return err
	}
	return journal.Create(ctx, io, id, journal.CreateOptions{
		Order: m.Order, SplayWidth: m.SplayWidth, Pool: m.PoolID, TagData: wire.TagData{MirrorUUID: wire.LocalMirrorUUID},
	})
}

// TrashedCopies lists the images in the trash that mirroring put there, by id.
func TrashedCopies(ctx context.Context, io rados.IOContext) (map[string]rbd.TrashSpec, error) {
	const page = 1024
	copies := map[string]rbd.TrashSpec{}
	for after := ""; ; {
		entries, err := rados.Ask(ctx, io, rbd.TrashObject, rbd.TrashList(after, page))
		if errors.Is(err, syscall.ENOENT) {
			return copies, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list the trash: %w", err)
		}
		for id, e := range entries {
			after = max(after, id)
			if e.Source == rbd.TrashMirroring {
				copies[id] = e
			}
		}
		if len(entries) < page {
			return copies, nil
		}
	}
}

// IsTrashed tells whether mirroring has entered the image in the trash.
func IsTrashed(ctx context.Context, io rados.IOContext, id string) (bool, error) {
	e, ok, err := trashEntry(ctx, io, id)
	return ok && e.Source == rbd.TrashMirroring, err
}

func trashEntry(ctx context.Context, io rados.IOContext, id string) (_ rbd.TrashSpec, ok bool, _ error) {
	e, err := rados.Ask(ctx, io, rbd.TrashObject, rbd.TrashGet(id))
	if errors.Is(err, syscall.ENOENT) {
		return rbd.TrashSpec{}, false, nil
	}
	return e, err == nil, err
}

// leaveTrash removes an image's entry, if there is one.
func leaveTrash(ctx context.Context, io rados.IOContext, id string) error {
	err := rados.Tell(ctx, io, rbd.TrashObject, rbd.TrashRemove(id))
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	return err
}

// notifyTrash tells the trash's watchers. They find it out by themselves when they do
// not hear of it.
func notifyTrash(ctx context.Context, io rados.IOContext, p notify.TrashPayload) {
	_, _ = io.Notify(ctx, rbd.TrashObject, notify.TrashMessage{Payload: p}.Encode(), notifyTimeout)
}
