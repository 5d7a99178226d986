package image

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph/notify"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/rados"
)

// Flatten makes a clone independent: every object that shows bytes of the parent gets
// them, then the image leaves the parent. Snapshots of an image without deep flatten
// stay attached, and with them the image stays noted as the parent's child. AlreadyDone
// if the head is no clone (any more). progress, if not nil, hears how many of the
// objects have been looked at.
//
// It may be interrupted anywhere and repeated. Other calls get their turn in between,
// as between calls of FlattenStep.
func (im *Image) Flatten(ctx context.Context, progress func(done, total uint64)) (Outcome, error) {
	out := AlreadyDone
	for next := ObjectNumber(0); ; {
		step, err := im.FlattenStep(ctx, next)
		if err != nil {
			return 0, err
		}
		if !step.Finished || step.Outcome == Done {
			out = Done
		}
		if progress != nil {
			progress(uint64(step.Next), uint64(step.Objects))
		}
		if step.Finished {
			return out, nil
		}
		next = step.Next
	}
}

// FlattenProgress is how far a flatten has come.
type FlattenProgress struct {
	Next     ObjectNumber // the next step begins here
	Objects  ObjectNumber // objects that the image shared with the parent
	Finished bool         // the image has left the parent
	Outcome  Outcome      // of the last step
}

// A step of a flatten looks at so many objects, or ends earlier when it has copied so
// many times the bytes that may be in flight.
const (
	flattenObjects = 1024
	flattenRounds  = 4
)

// FlattenStep does a part of a flatten that takes about a second: the objects from
// start on. The step that finds none left detaches the image from its parent.
//
// Steps, as src/librbd/operation/FlattenRequest.cc: copy up what does not exist,
// detach the child, detach the parent. Upstream believes an object map that says that
// an object exists; here the object is asked, for the map may be ahead of it.
func (im *Image) FlattenStep(ctx context.Context, start ObjectNumber) (FlattenProgress, error) {
	var step FlattenProgress
	out, err := im.operate(ctx, "flatten", func(ctx context.Context, h *Header) (Outcome, error) {
		step.Objects = ObjectNumber(h.Layout.ObjectCount(h.Overlap))
		gone, err := im.parentGone(ctx, h)
		if err != nil {
			return 0, err
		}
		if gone {
			start = max(start, step.Objects)
		}
		if start < step.Objects {
			step.Next, err = im.flattenObjects(ctx, h, start, step.Objects)
			return AlreadyDone, err // nothing in the header has changed
		}
		step.Next, step.Finished = step.Objects, true
		return im.leaveParent(ctx, h)
	})
	step.Outcome = out
	return step, err
}

// parentGone tells whether the snapshot that the head is a clone of has been removed.
// A snapshot with clones cannot be, so a flatten that was interrupted had copied
// everything, and had taken the clone off the parent's list.
func (im *Image) parentGone(ctx context.Context, h *Header) (bool, error) {
	if !h.Attached || h.Overlap == 0 {
		return false, nil
	}
	_, err := im.parentOf(ctx, h)
	var missing *ParentError
	if errors.As(err, &missing) && missing.ImageID == h.ID && !missing.NoPool && errors.Is(err, syscall.ENOENT) {
		return true, nil
	}
	return false, err
}

// flattenObjects copies up objects from start on, and tells where it stopped.
func (im *Image) flattenObjects(ctx context.Context, h *Header, start, end ObjectNumber) (ObjectNumber, error) {
	end = min(end, start+flattenObjects)
	var copied atomic.Int64
	flight := newFlight(ctx, im.limits)
	for ; start < end && flight.ctx.Err() == nil && copied.Load() < flattenRounds*im.limits.Bytes; start++ {
		n := start
		flight.start(int64(h.Layout.ObjectSize()), func(ctx context.Context) error {
			bytes, err := im.flattenObject(ctx, h, n)
			copied.Add(bytes)
			return err
		})
	}
	return start, errors.Join(flight.wait(), ctx.Err())
}

// flattenObject copies up one object, if it does not exist and the parent has more
// than zeros for it. With snapshots an empty write follows, as librbd has it: it makes
// the OSD keep the copied state for them, and the head counts as changed since.
func (im *Image) flattenObject(ctx context.Context, h *Header, n ObjectNumber) (copied int64, err error) {
	if !h.underParent(n) {
		return 0, nil
	}
	if im.object.mayExist(n) {
		var op rados.ReadOp
		op.Stat()
		name := h.Layout.ObjectName(n)
		switch err := im.data.Read(ctx, name, &op); {
		case err == nil:
			return 0, nil
		case !errors.Is(err, syscall.ENOENT):
			return 0, fmt.Errorf("object %s: %w", name, err)
		}
	}
	in, err := im.inherit(ctx, h, n)
	if err != nil || in.zero() {
		return 0, err
	}
	if err := im.object.set(ctx, []ObjectNumber{n}, rbd.ObjectExists); err != nil {
		return 0, err
	}
	op := new(rados.WriteOp)
	if len(in.snapshots) > 0 {
		op.Write(0, nil)
	}
	for _, p := range in.pieces {
		copied += int64(len(p.Data))
	}
	return copied, im.writeInherited(ctx, h, n, in, []*rados.WriteOp{op})
}

// leaveParent takes the head off the parent, and with it the snapshots if the image has
// the feature deep flatten.
func (im *Image) leaveParent(ctx context.Context, h *Header) (Outcome, error) {
	if !h.Attached {
		return AlreadyDone, nil
	}
	im.closeParent()
	attached := false
	for i := range h.Snapshots {
		attached = attached || h.Snapshots[i].Attached
	}
	if !attached || h.Features.Has(rbd.FeatureDeepFlatten) {
		if err := im.owned(); err != nil {
			return 0, err
		}
		if err := DetachChild(ctx, im.io, h); err != nil {
			return 0, err
		}
	}
	if err := im.tellHeader(ctx, rbd.ParentDetach()); err != nil && !errors.Is(err, syscall.ENOENT) {
		return 0, fmt.Errorf("detach from parent: %w", err)
	}
	return Done, nil
}

// DetachChild takes an image off its parent's list of clones, so that the parent's
// snapshot may be removed: the last but one step of an image's or snapshot's being a
// clone. It is no error if it is not there, or if the parent is gone. A parent's
// snapshot in the trash that has no clone left is for the parent's owner to remove; it
// is told that its header has changed.
//
// src/librbd/image/DetachChildRequest.cc.
func DetachChild(ctx context.Context, io rados.IOContext, h *Header) error {
	if !h.Parent.Exists() {
		return nil
	}
	if !h.OpFeatures.Has(rbd.OpFeatureCloneChild) { // format 1
		err := rados.Tell(ctx, io, rbd.ChildrenObject, rbd.RemoveChild(h.Parent, h.ID))
		if err != nil && !errors.Is(err, syscall.ENOENT) {
			return fmt.Errorf("take image %s off its pool's list of clones: %w", h.ID, err)
		}
		return nil
	}
	parent, err := io.Cluster().OpenID(ctx, h.Parent.Pool, h.Parent.Namespace)
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open pool %d of the parent of image %s: %w", h.Parent.Pool, h.ID, err)
	}
	defer parent.Close()
	header := rbd.HeaderObject(h.Parent.ImageID)
	child := rbd.ChildSpec{Pool: io.Pool().ID, Namespace: io.Namespace(), ImageID: h.ID}
	err = rados.Tell(ctx, parent, header, rbd.ChildDetach(h.Parent.Snap, child))
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("take image %s off the list of clones of image %s: %w", h.ID, h.Parent.ImageID, err)
	}
	// Nobody has to listen.
	_, _ = parent.Notify(ctx, header, notify.Encode(notify.HeaderUpdate{}), notifyTimeout)
	return nil
}
