package image

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image/lock"
	"github.com/rbdwarden/rbdwarden/journal"
	"github.com/rbdwarden/rbdwarden/rados"
)

// InUseError says that somebody has the image open.
type InUseError struct {
	ImageID  string
	Watchers []rados.Watcher
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("image %s is in use by %d clients, the first is client.%d at %s", e.ImageID, len(e.Watchers), e.Watchers[0].ClientID, e.Watchers[0].Address)
}

// Unwrap is EBUSY: they may go away.
func (e *InUseError) Unwrap() error { return syscall.EBUSY }

// Remove removes a non-primary image for good: snapshots, data, header, journal,
// name and mirror record; a clone leaves its parent. A *PrimaryError, *InUseError or
// *ChildrenError says why that cannot be. Interrupted anywhere it can be called
// again; the mirror record, in the state DISABLING, goes last. It is no error if
// there is nothing.
//
// Steps, as src/librbd/image/RemoveRequest.cc and
// src/tools/rbd_mirror/image_deleter/*.cc, without the stay in the trash.
func Remove(ctx context.Context, io rados.IOContext, id string, opts lock.Options) error {
	if err := remove(ctx, io, id, opts); err != nil {
		return fmt.Errorf("remove image %s: %w", id, err)
	}
	return nil
}

func remove(ctx context.Context, io rados.IOContext, id string, opts lock.Options) error {
	var record *mirror.Image
	switch r, err := rados.Ask(ctx, io, rbd.MirroringObject, mirror.ImageGet(id)); {
	case err == nil:
		record = &r
	case !errors.Is(err, syscall.ENOENT):
		return err
	}
	if record != nil && record.State == mirror.ImageCreating {
		return removeHalfMade(ctx, io, id, *record)
	}
	if err := idIsFree(ctx, io, id); err != nil {
		var exists *IDTakenError
		if !errors.As(err, &exists) {
			return err
		}
		if err := removeContents(ctx, io, id, Options{Lock: opts}, record); err != nil {
			return err
		}
	}
	name, err := Name(ctx, io, id)
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		return err
	}
	return removeParts(ctx, io, id, name, record)
}

// removeContents removes snapshots and data under the exclusive lock, and marks
// the image as one that is going.
func removeContents(ctx context.Context, io rados.IOContext, id string, opts Options, record *mirror.Image) (err error) {
	im, err := Open(ctx, io, id, opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, im.closeAnyway(ctx)) }()
	if err := im.checkUnused(ctx); err != nil {
		return err
	}
	if record != nil && record.State != mirror.ImageDisabling {
		going := *record
		going.State = mirror.ImageDisabling
		if err := setRecord(ctx, io, id, going); err != nil {
			return err
		}
	}
	for _, s := range im.Header().Snapshots {
		if s.Protection != rbd.Unprotected {
			if _, err := im.SnapUnprotect(ctx, s.Namespace, s.Name); err != nil {
				return err
			}
			s.Protection = rbd.Unprotected
		}
		_, err := im.operate(ctx, fmt.Sprintf("remove snapshot %q", s.Name), func(ctx context.Context, h *Header) (Outcome, error) {
			return Done, im.removeSnapshot(ctx, h, &s)
		})
		if err != nil {
			return err
		}
		if left := im.Header().SnapshotByID(s.ID); left != nil {
			return &ChildrenError{Snapshot: s.Name}
		}
	}
	return im.exclusively(ctx, func(ctx context.Context) error {
		h := im.Header()
		if err := im.removeRange(ctx, h, 0, ObjectNumber(h.Layout.ObjectCount(h.Size))); err != nil {
			return err
		}
		if !h.Attached {
			return nil
		}
		return DetachChild(ctx, im.io, h)
	})
}

// closeAnyway closes the image although ctx may have ended: a lock that was left behind
// would have to be broken, and this client fenced.
func (im *Image) closeAnyway(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := im.Close(ctx); err != nil {
		return errors.Join(err, im.Abandon(ctx))
	}
	return nil
}

// checkUnused is an *InUseError if another client watches the header.
func (im *Image) checkUnused(ctx context.Context) error {
	var op rados.ReadOp
	watchers := op.ListWatchers()
	if err := im.io.Read(ctx, rbd.HeaderObject(im.object.id), &op); err != nil {
		return err
	}
	var others []rados.Watcher
	for _, w := range watchers.Watchers {
		if w.ClientID != im.io.Cluster().InstanceID() {
			others = append(others, w)
		}
	}
	if len(others) > 0 {
		return &InUseError{ImageID: im.object.id, Watchers: others}
	}
	return nil
}

// removeHalfMade removes what a Create left behind, its entry in the parent's list of
// clones before the header that names the parent. It has no data: nobody opens an
// image before its mirror record is ENABLED.
func removeHalfMade(ctx context.Context, io rados.IOContext, id string, record mirror.Image) error {
	name, err := Name(ctx, io, id)
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		return err
	}
	if err := unlinkParent(ctx, io, id); err != nil {
		return err
	}
	return removeParts(ctx, io, id, name, &record)
}

// removeParts removes everything of an image but snapshots and data, as far as it
// is there. name is empty if the directory does not know the image; record is nil
// if it has no mirror record.
func removeParts(ctx context.Context, io rados.IOContext, id, name string, record *mirror.Image) error {
	if err := removeObject(ctx, io, rbd.HeaderObject(id)); err != nil {
		return err
	}
	if err := journal.Remove(ctx, io, id); err != nil {
		return err
	}
	if err := removeObject(ctx, io, objectMapName(id)); err != nil {
		return err
	}
	if name != "" {
		if err := leaveDirectory(ctx, io, name, id); err != nil {
			return err
		}
	}
	if record == nil {
		return nil
	}
	return removeRecord(ctx, io, id, *record)
}

// leaveDirectory frees an image's name.
func leaveDirectory(ctx context.Context, io rados.IOContext, name, id string) error {
	if err := releaseName(ctx, io, name, id); err != nil {
		return err
	}
	err := rados.Tell(ctx, io, rbd.DirectoryObject, rbd.DirRemoveImage(name, id))
	// ESTALE: the name is another image's, with which we have nothing to do.
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ESTALE) {
		return nil
	}
	return err
}

// removeObject removes an object of metadata, if it is there.
func removeObject(ctx context.Context, io rados.IOContext, object string) error {
	err := io.Write(ctx, object, new(rados.WriteOp).Remove())
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	return err
}

func objectMapName(id string) string { return rbd.ObjectMapObject(id, ceph.NoSnap) }

// setRecord stores a mirror record and tells those who watch the pool's mirroring
// (src/librbd/mirror/ImageStateUpdateRequest.cc).
func setRecord(ctx context.Context, io rados.IOContext, id string, r mirror.Image) error {
	if err := rados.Tell(ctx, io, rbd.MirroringObject, mirror.ImageSet(id, r)); err != nil {
		return fmt.Errorf("set mirror record to %v: %w", r.State, err)
	}
	notifyMirroring(ctx, io, mirror.ImageUpdated{State: r.State, ImageID: id, GlobalID: r.GlobalID})
	return nil
}

// removeRecord removes a mirror record, which must be DISABLING for that
// (src/librbd/mirror/ImageRemoveRequest.cc).
func removeRecord(ctx context.Context, io rados.IOContext, id string, r mirror.Image) error {
	if r.State != mirror.ImageDisabling {
		r.State = mirror.ImageDisabling
		if err := rados.Tell(ctx, io, rbd.MirroringObject, mirror.ImageSet(id, r)); err != nil {
			return fmt.Errorf("set mirror record to %v: %w", r.State, err)
		}
	}
	if err := rados.Tell(ctx, io, rbd.MirroringObject, mirror.ImageRemove(id)); err != nil && !errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("remove mirror record: %w", err)
	}
	notifyMirroring(ctx, io, mirror.ImageUpdated{State: mirror.ImageDisabled, ImageID: id, GlobalID: r.GlobalID})
	return nil
}

// notifyMirroring tells the pool's mirroring daemons what has changed. They find it
// out by themselves when they do not hear of it.
func notifyMirroring(ctx context.Context, io rados.IOContext, ev mirror.Event) {
	_, _ = io.Notify(ctx, rbd.MirroringObject, mirror.EncodeEvent(ev), notifyTimeout)
}
