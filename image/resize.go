package image

import (
	"context"
	"fmt"

	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/rados"
)

// Resize changes the head's size, in bytes. Snapshots keep theirs. The caller has
// brought earlier I/O to an end. What a smaller image loses is removed, so that it
// reads as zeros when the image grows again.
//
// Steps, as src/librbd/operation/ResizeRequest.cc. To grow: object map, header. To
// shrink: the data, header, object map. Interrupted anywhere, it can be done again.
func (im *Image) Resize(ctx context.Context, size uint64) (Outcome, error) {
	return im.operate(ctx, fmt.Sprintf("resize to %d bytes", size), func(ctx context.Context, h *Header) (Outcome, error) {
		return im.resize(ctx, h, size)
	})
}

func (im *Image) resize(ctx context.Context, h *Header, size uint64) (Outcome, error) {
	objects := h.Layout.ObjectCount(size)
	switch {
	case size == h.Size:
		// An interrupted shrink may have left the map too large.
		return AlreadyDone, im.object.resize(ctx, objects)
	case size > h.Size:
		if err := im.object.resize(ctx, objects); err != nil {
			return 0, err
		}
		return Done, im.tellHeader(ctx, rbd.SetSize(size))
	}
	if err := im.trim(ctx, h, size); err != nil {
		return 0, fmt.Errorf("trim: %w", err)
	}
	if err := im.tellHeader(ctx, rbd.SetSize(size)); err != nil {
		return 0, err
	}
	return Done, im.object.resize(ctx, objects)
}

// trim removes the head's data beyond size: whole object sets, then what is left
// in the set that size falls into (src/librbd/operation/TrimRequest.cc).
func (im *Image) trim(ctx context.Context, h *Header, size uint64) error {
	sets := (size + h.Layout.Period() - 1) / h.Layout.Period()
	_, perSet := h.Layout.units()
	if err := im.removeRange(ctx, h, ObjectNumber(sets*perSet), ObjectNumber(h.Layout.ObjectCount(h.Size))); err != nil {
		return err
	}
	return im.carryOut(ctx, h, planTail(h.Layout, size, min(sets*h.Layout.Period(), h.Size)))
}

// planTail discards the image's bytes [size, end), which lie in one object set. An
// object that begins in the range is removed.
func planTail(l Layout, size, end uint64) []*objectPlan {
	if size >= end {
		return nil
	}
	var plans []*objectPlan
	for _, e := range l.Extents(size, end-size) {
		if k := len(plans); k == 0 || plans[k-1].object != e.Object {
			plans = append(plans, &objectPlan{object: e.Object, behind: true})
		}
		if e.Offset == 0 {
			e.Length = l.ObjectSize()
		}
		plans[len(plans)-1].add(IO{Kind: Discard}, e, l.ObjectSize())
	}
	return plans
}

// removeRange removes the data objects from start up to but not including end. What
// the snapshots of a clone share with the parent is copied first: a later flatten
// looks at the head's share only (src/librbd/operation/TrimRequest.cc,
// send_copyup_objects).
func (im *Image) removeRange(ctx context.Context, h *Header, start, end ObjectNumber) error {
	if start >= end {
		return nil
	}
	exists, pending := rbd.ObjectExists, rbd.ObjectPending
	if err := im.object.setRange(ctx, mapRange{start: uint64(start), end: uint64(end), state: rbd.ObjectPending, current: &exists}); err != nil {
		return err
	}
	if err := im.removeObjects(ctx, h, start, end); err != nil {
		return err
	}
	return im.object.setRange(ctx, mapRange{start: uint64(start), end: uint64(end), state: rbd.ObjectNonexistent, current: &pending})
}

func (im *Image) removeObjects(ctx context.Context, h *Header, start, end ObjectNumber) error {
	for start < end {
		var works []*objectWork
		for ; start < end && len(works) < maxWorks; start++ {
			w := &objectWork{
				object: start, remove: true, ops: []*rados.WriteOp{new(rados.WriteOp).Remove()},
				absent: !im.object.mayExist(start), copyUp: hasSnapshots(h) && h.underParent(start),
			}
			if w.copyUp || !w.absent {
				works = append(works, w)
			}
		}
		if err := im.doAll(ctx, h, works); err != nil {
			return err
		}
	}
	return nil
}

// maxWorks is how many objects a long operation looks at together.
const maxWorks = 1024
