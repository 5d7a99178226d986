package journal

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/rados"
)

// CreateOptions says what a new journal is like.
type CreateOptions struct {
	Order      uint8        // data objects are 1<<Order bytes: 12 to 26, rbd_journal_order
	SplayWidth uint8        // 1 at least, rbd_journal_splay_width
	Pool       int64        // pool of the data objects, -1 for the header's own
	TagData    wire.TagData // data of the first tag: who is primary
}

// Create makes the journal of an image: header, first tag in a new class, and the
// image's own client "". EEXIST if there is a header; nothing is touched then.
// When a later step fails, what was made is removed again.
//
// Source of the steps: ceph/ceph src/librbd/journal/CreateRequest.cc. (Upstream
// rolls back on EEXIST too, which removes the journal that was there.)
func Create(ctx context.Context, io rados.IOContext, imageID string, o CreateOptions) error {
	if o.Order < 12 || o.Order > 26 || o.SplayWidth == 0 {
		return fmt.Errorf("create journal: order %d, splay width %d: %w", o.Order, o.SplayWidth, syscall.EDOM)
	}
	header := wire.HeaderObject(imageID)
	if err := rados.Tell(ctx, io, header, wire.Create(o.Order, o.SplayWidth, o.Pool)); err != nil {
		return fmt.Errorf("create journal: %w", err)
	}
	if err := fill(ctx, io, header, o.TagData); err != nil {
		if undo := Remove(ctx, io, imageID); undo != nil {
			return errors.Join(err, fmt.Errorf("undo: %w", undo))
		}
		return err
	}
	return nil
}

func fill(ctx context.Context, io rados.IOContext, header string, data wire.TagData) error {
	tid, err := allocateTag(ctx, io, header, wire.NewTagClass, data, always)
	if err != nil {
		return err
	}
	tag, err := rados.Ask(ctx, io, header, wire.GetTag(tid))
	if err != nil {
		return fmt.Errorf("get journal tag %d: %w", tid, err)
	}
	meta := wire.EncodeClientData(wire.ImageClientMeta{TagClass: tag.Class})
	if err := rados.Tell(ctx, io, header, wire.ClientRegister(wire.MasterClientID, meta)); err != nil {
		return fmt.Errorf("register journal client %q: %w", wire.MasterClientID, err)
	}
	return nil
}

// Remove removes the journal of an image whatever its clients have committed: the
// data objects, oldest set first, then the header. It is no error if there is no
// journal, so a removal that was interrupted can be repeated.
//
// Source of the steps: ceph/ceph src/librbd/journal/RemoveRequest.cc,
// src/journal/JournalTrimmer.cc.
func Remove(ctx context.Context, io rados.IOContext, imageID string) error {
	j, err := Open(ctx, io, imageID)
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer j.Close()
	m := j.Metadata()
	for s := m.MinimumSet; s <= m.ActiveSet; s++ {
		if err := j.removeSet(ctx, s); err != nil {
			return err
		}
		// The minimum set cannot pass the active one.
		if s < m.ActiveSet {
			if err := j.setMinimumSet(ctx, s+1); err != nil {
				return err
			}
		}
	}
	var op rados.WriteOp
	op.Remove()
	if err := io.Write(ctx, j.HeaderObject(), &op); err != nil && !errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("remove journal: %w", err)
	}
	return nil
}
