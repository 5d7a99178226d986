package image

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/rados"
)

// Apply carries out I/Os, given in the order of the journal, that lie between two
// flushes: where they overlap the later one wins, and else they may land in any
// order, as on the primary's disk. Everything is durable when it returns nil.
//
// The I/Os of one object go as one operation. A CompareAndWrite is an epoch of
// its own: what is before it is durable first, what is after it starts when its
// result is known. What it found different is in the result and is no error.
//
// After an error any part may have been done; doing all of it again gives the
// right bytes, except that a CompareAndWrite may decide differently.
func (im *Image) Apply(ctx context.Context, ios []IO) ([]Mismatch, error) {
	for i, io := range ios {
		reason := io.check()
		if reason == "" && io.Kind == CompareAndWrite && len(im.Header().Layout.Extents(io.Offset, io.Length)) > 1 {
			// librbd refuses these before they get into a journal
			// (src/librbd/io/ImageRequest.cc).
			reason = "it lies in several objects"
		}
		if reason != "" {
			return nil, &InvalidIOError{Index: i, IO: io, Reason: reason}
		}
	}
	var mismatches []Mismatch
	err := im.exclusively(ctx, func(ctx context.Context) error {
		h := im.Header()
		for start := 0; start < len(ios); {
			if ios[start].Kind == CompareAndWrite {
				at, differs, err := im.compareAndWrite(ctx, h, ios[start])
				if err != nil {
					return err
				}
				if differs {
					mismatches = append(mismatches, Mismatch{Index: start, Offset: at})
				}
				start++
				continue
			}
			end := start
			for end < len(ios) && ios[end].Kind != CompareAndWrite {
				end++
			}
			if err := im.carryOut(ctx, h, planBatch(h.Layout, h.Size, ios[start:end])); err != nil {
				return err
			}
			start = end
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("write to image %s: %w", im.object.id, err)
	}
	return mismatches, nil
}

// carryOut does what the plans say. The object map is ahead of the objects, as
// librbd has it (objectAction): it says first that objects exist that will exist or
// may be going; the objects; the map forgets those that are gone.
//
// Objects of a clone that may need the parent's bytes and that the map knows are
// tried with an assertion that they exist: a map that says so may be ahead of the
// objects, after a crash. Those that fail it are copied up.
func (im *Image) carryOut(ctx context.Context, h *Header, plans []*objectPlan) error {
	var works []*objectWork
	var exist, pending []ObjectNumber
	hintAll := !im.object.enabled()
	for _, p := range plans {
		mayExist := im.object.mayExist(p.object)
		parent := h.underParent(p.object)
		w := &objectWork{object: p.object, copyUp: parent && p.needsParent(hasSnapshots(h), h.Layout.ObjectSize())}
		switch p.action(mayExist, parent, w.copyUp) {
		case actionNone:
			continue
		case actionWrite:
			exist = append(exist, p.object)
			w.ops = p.ops(h.Layout, mayExist || parent, hintAll || !mayExist)
			if parent && !w.copyUp {
				prefixed(w.ops[0], stepCreate) // truncating what is not there would not hide the parent
			}
		case actionRemove:
			pending = append(pending, p.object)
			w.remove = true
			w.ops = []*rados.WriteOp{new(rados.WriteOp).Remove()}
		}
		w.absent = !mayExist
		works = append(works, w)
	}
	if err := im.object.set(ctx, exist, rbd.ObjectExists); err != nil {
		return err
	}
	if err := im.object.set(ctx, pending, rbd.ObjectPending); err != nil {
		return err
	}
	if err := im.doAll(ctx, h, works); err != nil {
		return err
	}
	return im.object.set(ctx, pending, rbd.ObjectNonexistent)
}

// writeData sends one operation to a data object under the image's snapshot
// context, if the lock holds.
func (im *Image) writeData(ctx context.Context, h *Header, n ObjectNumber, op *rados.WriteOp) error {
	if err := im.owned(); err != nil {
		return err
	}
	op.SnapContext = h.SnapContext
	name := h.Layout.ObjectName(n)
	if err := im.data.Write(ctx, name, op); err != nil {
		return fmt.Errorf("object %s: %w", name, err)
	}
	return nil
}

// compareAndWrite does one CompareAndWrite. at is the image's first byte that
// differs, if any does.
func (im *Image) compareAndWrite(ctx context.Context, h *Header, io IO) (at uint64, differs bool, err error) {
	io, ok := io.clip(h.Size)
	if !ok {
		return 0, false, nil
	}
	e := h.Layout.Extents(io.Offset, io.Length)[0] // Apply has seen that it is the only one
	compare, data := gather(io.Compare, e), gather(io.Data, e)
	imageOffset := func(inObject uint64) uint64 { return h.Layout.ImageSpans(e.Object, inObject, 1)[0].Offset }

	mayExist, parent := im.object.mayExist(e.Object), h.underParent(e.Object)
	if !mayExist && !parent {
		// All zeros. Deciding it here leaves no object-map entry for an object that
		// is not written.
		if i := slices.IndexFunc(compare, func(b byte) bool { return b != 0 }); i >= 0 {
			return imageOffset(e.Offset + uint64(i)), true, nil
		}
	}
	if err := im.object.set(ctx, []ObjectNumber{e.Object}, rbd.ObjectExists); err != nil {
		return 0, false, err
	}
	newOp := func() *rados.WriteOp {
		op := new(rados.WriteOp)
		if mayExist || parent {
			op.CmpExt(e.Offset, compare)
		}
		if !mayExist || !im.object.enabled() {
			op.AllocHint(h.Layout.ObjectSize(), h.Layout.ObjectSize())
		}
		return op.Write(e.Offset, data)
	}
	err = syscall.ENOENT
	switch {
	case !parent:
		err = im.writeData(ctx, h, e.Object, newOp())
	case mayExist:
		err = im.writeData(ctx, h, e.Object, prefixed(newOp(), stepExists))
	}
	if parent && errors.Is(err, syscall.ENOENT) {
		// The comparison would not see what its own operation copies up.
		if err = im.copyUp(ctx, h, e.Object, nil); err == nil {
			err = im.writeData(ctx, h, e.Object, newOp())
		}
	}
	var mismatch *rados.MismatchError
	if errors.As(err, &mismatch) {
		return imageOffset(e.Offset + mismatch.Offset), true, nil
	}
	return 0, false, err
}

// gather puts the bytes of an image extent into the order of the object's.
func gather(b []byte, e ObjectExtent) []byte {
	if len(e.Buffer) == 1 {
		return b
	}
	out := make([]byte, 0, e.Length)
	for _, s := range e.Buffer {
		out = append(out, b[s.Offset:s.Offset+s.Length]...)
	}
	return out
}
