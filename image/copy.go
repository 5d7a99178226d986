package image

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/rados"
)

// What the initial sync of an image needs beyond replay: it rebuilds the remote's
// history from its oldest snapshot on. The order is that of src/librbd/deep_copy/:
//
//  1. SnapCreateWithSize for each of the remote's snapshots that is not here yet,
//     oldest first: each is empty so far and has its remote size.
//  2. SetHead with the size of the snapshot that is the sync point, and its share of
//     the parent if the image is a clone.
//  3. For each object, from the oldest state to the newest, WriteObject with the
//     snapshot context that makes the bytes land in the right snapshot; then
//     SetObjectMapState for each snapshot and the head.

// SnapCreateWithSize makes a snapshot of the given size in bytes and share of the
// parent, whose objects are to be filled in: its object map says that there are none.
// The head's size and share are the same afterwards; SetHead ends that. The id is that of the snapshot that now
// exists, also if it did before (AlreadyDone).
//
// Steps, as src/librbd/deep_copy/SnapshotCreateRequest.cc.
func (im *Image) SnapCreateWithSize(ctx context.Context, ns rbd.SnapshotNamespace, name string, size uint64, share Sharing) (ceph.SnapID, Outcome, error) {
	var id ceph.SnapID
	out, err := im.operate(ctx, fmt.Sprintf("create snapshot %q of %d bytes", name, size), func(ctx context.Context, h *Header) (Outcome, error) {
		out := AlreadyDone
		if s := h.Snapshot(ns, name); s != nil {
			if s.ImageSize != size {
				return 0, fmt.Errorf("it exists with %d bytes: %w", s.ImageSize, syscall.EEXIST)
			}
			id = s.ID
		} else {
			if _, err := im.shape(ctx, h, size, share); err != nil {
				return 0, err
			}
			var err error
			if id, err = im.addSnapshot(ctx, ns, name); err != nil {
				return 0, err
			}
			out = Done
		}
		if !h.Features.Has(rbd.FeatureObjectMap) {
			return out, nil
		}
		if err := im.owned(); err != nil {
			return 0, err
		}
		// Does nothing to a map that has been filled in already.
		call := rbd.ObjectMapResize(h.Layout.ObjectCount(size), rbd.ObjectNonexistent)
		if err := rados.Tell(ctx, im.io, rbd.ObjectMapObject(h.ID, id), call); err != nil && !errors.Is(err, syscall.ESTALE) {
			return 0, fmt.Errorf("object map: %w", err)
		}
		return out, nil
	})
	if err != nil {
		return 0, 0, err
	}
	return id, out, nil
}

// SetHead sets the head's size in bytes and its share of the parent without looking at
// its data, and makes the object map as long as that takes. Objects beyond the end must not exist
// (src/librbd/deep_copy/SetHeadRequest.cc, SnapshotCopyRequest.cc).
func (im *Image) SetHead(ctx context.Context, size uint64, share Sharing) (Outcome, error) {
	return im.operate(ctx, fmt.Sprintf("set size to %d bytes", size), func(ctx context.Context, h *Header) (Outcome, error) {
		out, err := im.shape(ctx, h, size, share)
		if err != nil {
			return 0, err
		}
		return out, im.object.resize(ctx, h.Layout.ObjectCount(size))
	})
}

// WriteObject sends one operation to a data object, whatever the object map says,
// with the operation's own snapshot context: an older one than the header's makes
// the bytes part of the snapshots that it leaves out. ENOENT, which a removal of
// what is not there gives, is an error like any other.
//
// Operations on the same object must not be under way at the same time.
func (im *Image) WriteObject(ctx context.Context, n ObjectNumber, op *rados.WriteOp) error {
	if err := im.owned(); err != nil {
		return err
	}
	name := im.Header().Layout.ObjectName(n)
	if err := im.data.Write(ctx, name, op); err != nil {
		return fmt.Errorf("image %s: object %s: %w", im.object.id, name, err)
	}
	return nil
}

// SetObjectMapState gives objects [start, end) a state in the object map of a
// snapshot, or of the head (ceph.NoSnap). It does nothing if the image has no object
// map, and leaves out what is beyond the map's end.
func (im *Image) SetObjectMapState(ctx context.Context, snap ceph.SnapID, start, end ObjectNumber, state rbd.ObjectState) error {
	h := im.Header()
	if start >= end || !h.Features.Has(rbd.FeatureObjectMap) {
		return nil
	}
	r := mapRange{start: uint64(start), end: uint64(end), state: state}
	if snap == ceph.NoSnap {
		if err := im.object.setRange(ctx, r); err != nil {
			return fmt.Errorf("image %s: %w", im.object.id, err)
		}
		return nil
	}
	s := h.SnapshotByID(snap)
	if s == nil {
		return fmt.Errorf("image %s: snapshot %d: %w", im.object.id, snap, syscall.ENOENT)
	}
	for _, piece := range r.split(h.Layout.ObjectCount(s.ImageSize)) {
		if err := im.owned(); err != nil {
			return err
		}
		call := rbd.ObjectMapUpdate(piece.start, piece.end, piece.state, nil)
		if err := rados.Tell(ctx, im.io, rbd.ObjectMapObject(h.ID, snap), call); err != nil {
			return fmt.Errorf("image %s: object map of snapshot %d: %w", im.object.id, snap, err)
		}
	}
	return nil
}

// DataPool is where the data objects are; it must not be closed.
func (im *Image) DataPool() rados.IOContext { return im.data }
