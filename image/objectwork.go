package image

import (
	"context"
	"errors"
	"sync"
	"syscall"

	"github.com/rbdwarden/rbdwarden/rados"
)

// objectWork is what is to be done to one data object.
type objectWork struct {
	object ObjectNumber
	ops    []*rados.WriteOp // in order
	remove bool             // ops remove the object
	absent bool             // the object map knows that the object does not exist
	copyUp bool             // if the object does not exist, it gets the parent's bytes first
}

// doAll does works, which are of different objects, at the same time: first on
// objects that may exist, then with copy-up on those that do not. The bytes that are
// copied count as bytes in flight.
func (im *Image) doAll(ctx context.Context, h *Header, works []*objectWork) error {
	var mu sync.Mutex
	var missing []*objectWork
	flight := newFlight(ctx, im.limits)
	for _, w := range works {
		if w.copyUp && w.absent {
			missing = append(missing, w)
		}
	}
	for _, w := range works {
		if w.copyUp && w.absent {
			continue
		}
		flight.start(payload(w.ops), func(ctx context.Context) error {
			if w.copyUp {
				prefixed(w.ops[0], stepExists)
			}
			err := im.writeAll(ctx, h, w.object, w.ops)
			switch {
			case !errors.Is(err, syscall.ENOENT):
				return err
			case w.copyUp:
				w.ops[0] = &rados.WriteOp{Steps: w.ops[0].Steps[1:]}
				mu.Lock()
				defer mu.Unlock()
				missing = append(missing, w)
				return nil
			case w.remove:
				return nil // as good
			}
			return err
		})
	}
	if err := errors.Join(flight.wait(), ctx.Err()); err != nil {
		return err
	}
	if len(missing) == 0 {
		return nil
	}
	flight = newFlight(ctx, im.limits)
	for _, w := range missing {
		flight.start(payload(w.ops)+int64(h.Layout.ObjectSize()), func(ctx context.Context) error { return im.doCopiedUp(ctx, h, w) })
	}
	return errors.Join(flight.wait(), ctx.Err())
}

// doCopiedUp does a work to an object that does not exist.
func (im *Image) doCopiedUp(ctx context.Context, h *Header, w *objectWork) error {
	in, err := im.inherit(ctx, h, w.object)
	if err != nil {
		return err
	}
	if w.remove && in.zero() {
		return nil // neither the head nor a snapshot needs the object
	}
	return im.writeInherited(ctx, h, w.object, in, w.ops)
}

// writeAll sends operations to a data object, one after the other.
func (im *Image) writeAll(ctx context.Context, h *Header, n ObjectNumber, ops []*rados.WriteOp) error {
	for _, op := range ops {
		if err := im.writeData(ctx, h, n, op); err != nil {
			return err
		}
	}
	return nil
}
