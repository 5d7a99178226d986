package image

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

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

// carryOut does what the plans say, in three steps: the object map says which
// objects will exist or may be going; the objects; the map forgets those that are
// gone.
func (im *Image) carryOut(ctx context.Context, h *Header, plans []*objectPlan) error {
	var writes, removes []*objectPlan
	var exist, pending []ObjectNumber
	isNew := make(map[ObjectNumber]bool)
	for _, p := range plans {
		mayExist := im.object.mayExist(p.object)
		switch p.action(mayExist) {
		case actionWrite:
			writes = append(writes, p)
			exist = append(exist, p.object)
			isNew[p.object] = !mayExist
		case actionRemove:
			removes = append(removes, p)
			pending = append(pending, p.object)
		}
	}
	hintAll := !im.object.enabled()
	if err := im.object.set(ctx, exist, rbd.ObjectExists); err != nil {
		return err
	}
	if err := im.object.set(ctx, pending, rbd.ObjectPending); err != nil {
		return err
	}

	flight := newFlight(ctx, im.limits)
	for _, p := range writes {
		ops := p.ops(h.Layout, !isNew[p.object], hintAll || isNew[p.object])
		flight.start(payload(ops), func(ctx context.Context) error {
			for _, op := range ops {
				if err := im.writeData(ctx, h, p.object, op); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for _, p := range removes {
		flight.start(0, func(ctx context.Context) error { return im.removeData(ctx, h, p.object) })
	}
	if err := flight.wait(); err != nil {
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

// removeData removes a data object; one that is not there is as good.
func (im *Image) removeData(ctx context.Context, h *Header, n ObjectNumber) error {
	err := im.writeData(ctx, h, n, new(rados.WriteOp).Remove())
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	return err
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

	mayExist := im.object.mayExist(e.Object)
	if !mayExist {
		// All zeros. Deciding it here leaves no object-map entry for an object that
		// is not written.
		if i := slices.IndexFunc(compare, func(b byte) bool { return b != 0 }); i >= 0 {
			return imageOffset(e.Offset + uint64(i)), true, nil
		}
	}
	if err := im.object.set(ctx, []ObjectNumber{e.Object}, rbd.ObjectExists); err != nil {
		return 0, false, err
	}
	op := new(rados.WriteOp)
	if mayExist {
		op.CmpExt(e.Offset, compare)
	}
	if !mayExist || !im.object.enabled() {
		op.AllocHint(h.Layout.ObjectSize(), h.Layout.ObjectSize())
	}
	op.Write(e.Offset, data)
	err = im.writeData(ctx, h, e.Object, op)
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

// flight runs functions at the same time, bounded by count and by bytes.
type flight struct {
	ctx   context.Context
	group *errgroup.Group
	bytes *semaphore.Weighted
	limit int64
}

func newFlight(ctx context.Context, l Limits) *flight {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(l.Operations)
	return &flight{ctx: ctx, group: group, bytes: semaphore.NewWeighted(l.Bytes), limit: l.Bytes}
}

// start runs fn as soon as there is room; it does nothing after a failure, which
// wait reports.
func (f *flight) start(bytes int64, fn func(ctx context.Context) error) {
	bytes = min(bytes, f.limit)
	if err := f.bytes.Acquire(f.ctx, bytes); err != nil {
		f.group.Go(func() error { return err })
		return
	}
	f.group.Go(func() error {
		defer f.bytes.Release(bytes)
		if err := f.ctx.Err(); err != nil {
			return err
		}
		return fn(f.ctx)
	})
}

// wait returns the first error when everything that was started is over.
func (f *flight) wait() error { return f.group.Wait() }
