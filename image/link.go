package image

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/rados"
)

// CloneOf says which snapshot an image is to be a clone of.
type CloneOf struct {
	IO      rados.IOContext // the parent's pool and namespace, in the cluster of the clone
	ImageID string          // the parent's
	Snap    ceph.SnapID     // of the parent
	Overlap uint64          // bytes from the start that the head shares with the parent; at least 1
	// Format 1 keeps the list of a snapshot's clones in the clones' pool, and needs a
	// protected snapshot; format 2 keeps it in the parent's header ("clone v1", "clone v2").
	Format uint8
}

// Spec names the parent's snapshot.
func (c CloneOf) Spec() rbd.ParentSpec {
	return rbd.ParentSpec{Pool: c.IO.Pool().ID, Namespace: c.IO.Namespace(), ImageID: c.ImageID, Snap: c.Snap}
}

// errNotProtected says that a clone of format 1 was to be made of a snapshot that is
// not protected from removal.
var errNotProtected = fmt.Errorf("the snapshot is not protected, and clones of format 1 need that: %w", syscall.EINVAL)

// linkParent makes an image a clone: tell changes the image's header. It may be
// repeated. A *ParentError says that the snapshot is not there, or not fit for it.
//
// Invariant: whoever finds the image in the list of a snapshot's clones, finds the
// parent in the image's header, also after a crash anywhere; so what an interrupted
// attempt has left can be taken back by unlinkParent. Therefore the image's header comes
// first; of a clone of format 2 that it is one, too, for that decides where the list is.
//
// Steps: src/librbd/image/AttachParentRequest.cc, AttachChildRequest.cc.
func linkParent(ctx context.Context, io rados.IOContext, id string, c CloneOf, tell func(...class.Call) error) error {
	parent := c.Spec()
	if err := tell(rbd.ParentAttach(parent, max(1, c.Overlap), true)); err != nil {
		return fmt.Errorf("attach to parent: %w", err)
	}
	failed := func(err error) error { return &ParentError{ImageID: id, Parent: parent, Err: err} }
	header := rbd.HeaderObject(c.ImageID)
	if c.Format == 1 {
		err := rados.Tell(ctx, io, rbd.ChildrenObject, rbd.AddChild(parent, id))
		if err != nil && !errors.Is(err, syscall.EEXIST) {
			return fmt.Errorf("enter it in its pool's list of clones: %w", err)
		}
		// Who ends the protection looks into the list after saying that it ends.
		protection, err := rados.Ask(ctx, c.IO, header, rbd.GetProtection(c.Snap))
		if err == nil && protection != rbd.Protected {
			err = errNotProtected
		}
		if err != nil {
			return failed(err)
		}
		return nil
	}
	if err := tell(rbd.SetOpFeatures(rbd.OpFeatureCloneChild, rbd.OpFeatureCloneChild)); err != nil {
		return fmt.Errorf("mark as clone: %w", err)
	}
	child := rbd.ChildSpec{Pool: io.Pool().ID, Namespace: io.Namespace(), ImageID: id}
	err := rados.Tell(ctx, c.IO, header, rbd.ChildAttach(c.Snap, child))
	if err != nil && !errors.Is(err, syscall.EEXIST) {
		return failed(err) // ENOENT also where the snapshot is in the trash
	}
	return nil
}

// unlinkParent takes an image that nobody uses off its parent's list of clones. It is
// no error if it is no clone or has no header.
func unlinkParent(ctx context.Context, io rados.IOContext, id string) error {
	h := &Header{ID: id}
	var a asker
	ask(&a, rbd.ParentGet(), func(p rbd.ParentSpec) { h.Parent = p })
	ask(&a, rbd.GetOpFeatures(), func(f rbd.OpFeatures) { h.OpFeatures = f })
	err := a.run(ctx, io, rbd.HeaderObject(id))
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for a parent: %w", err)
	}
	return DetachChild(ctx, io, h)
}

// AttachParent makes the image a clone that lost its parent when the last state that
// shared bytes with it was removed, so that such states can be made again.
func (im *Image) AttachParent(ctx context.Context, c CloneOf) (Outcome, error) {
	return im.operate(ctx, "attach parent", func(ctx context.Context, h *Header) (Outcome, error) {
		if h.Parent.Exists() {
			return AlreadyDone, nil
		}
		return Done, linkParent(ctx, im.io, h.ID, c, func(calls ...class.Call) error { return im.tellHeader(ctx, calls...) })
	})
}

// Sharing says whether a state of an image, the head or a snapshot, is a clone, and how
// many bytes from the start it shares with the parent.
type Sharing struct {
	Attached bool
	Overlap  uint64 // bytes; 0 where the image was once shrunk to nothing
}

// shape gives the head a size in bytes and a share of the parent, without looking at
// data (src/librbd/deep_copy/SetHeadRequest.cc). The parent stays the one in the header.
//
// The object map is never shorter than the head, or whoever opens the image next, when we died meanwhile, gives it up as
// invalid.
//
// The class has no call for the overlap alone: attaching again sets it, never beyond the
// size, and a smaller size cuts it. Upstream detaches first, which, with deep flatten,
// detaches the snapshots, too.
func (im *Image) shape(ctx context.Context, h *Header, size uint64, share Sharing) (Outcome, error) {
	out := AlreadyDone
	if err := im.object.grow(ctx, h.Layout.ObjectCount(size)); err != nil {
		return 0, err
	}
	if h.Attached && !share.Attached {
		var err error
		if out, err = im.leaveParent(ctx, h); err != nil {
			return 0, err
		}
	}
	attach := share.Attached && (!h.Attached || h.Overlap != share.Overlap)
	if attach && !h.Parent.Exists() {
		return 0, fmt.Errorf("no parent to share %d bytes with: %w", share.Overlap, syscall.EINVAL)
	}
	if attach && share.Overlap == 0 {
		if err := im.tellHeader(ctx, rbd.SetSize(0)); err != nil {
			return 0, err
		}
		if err := im.tellHeader(ctx, rbd.ParentAttach(h.Parent, 1, true)); err != nil {
			return 0, err
		}
	}
	if h.Size != size || attach && share.Overlap == 0 {
		if err := im.tellHeader(ctx, rbd.SetSize(size)); err != nil {
			return 0, err
		}
		out = Done
	}
	if attach && share.Overlap > 0 {
		if err := im.tellHeader(ctx, rbd.ParentAttach(h.Parent, share.Overlap, true)); err != nil {
			return 0, err
		}
		out = Done
	}
	return out, nil
}
