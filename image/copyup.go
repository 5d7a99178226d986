package image

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/rados"
)

// Copy-up: an object of a clone that does not exist yet shows the parent's bytes, so
// before it is written it gets them. The invariant, on which flattening and rolling
// back rely: where the parent has any byte other than zero, an object exists for every
// snapshot that is older than a state of it that exists.
//
// If there are snapshots the bytes are written first, by an operation with an empty
// snapshot context, so that they belong to all snapshots that do not know the object;
// then comes what was to be written, with the image's context, and the OSD keeps the
// former state for them. Parents' zeros are not copied: snapshots see them through
// the parent. Steps, as src/librbd/io/CopyupRequest.cc; the snapshots that get the
// bytes are found out here from the object (upstream marks all in the object maps).

// hasSnapshots tells whether a write to an object leaves a former state behind.
func hasSnapshots(h *Header) bool { return len(h.SnapContext.Snaps) > 0 }

// underParent tells whether the head's object shows bytes of the parent if it does
// not exist.
func (h *Header) underParent(n ObjectNumber) bool {
	if h.Overlap == 0 || !h.Parent.Exists() {
		return false
	}
	return h.Layout.ImageSpans(n, 0, 1)[0].Offset < h.Overlap
}

// parentOf gives the Reader of the parent, which stays open until the image is
// closed or has another parent.
func (im *Image) parentOf(ctx context.Context, h *Header) (*Reader, error) {
	im.parentMu.Lock()
	defer im.parentMu.Unlock()
	if im.parent != nil && im.parentSpec == h.Parent {
		return im.parent, nil
	}
	im.closeParentLocked()
	r, err := openParent(ctx, im.io, h, maxGenerations)
	if err != nil {
		return nil, err
	}
	im.parent, im.parentSpec = r, h.Parent
	return r, nil
}

func (im *Image) closeParent() {
	im.parentMu.Lock()
	defer im.parentMu.Unlock()
	im.closeParentLocked()
}

func (im *Image) closeParentLocked() {
	if im.parent != nil {
		im.parent.Close()
	}
	im.parent, im.parentSpec = nil, rbd.NoParent
}

// inheritance is what an object that does not exist gets from the parent.
type inheritance struct {
	pieces []Piece // none if it is all zeros
	head   uint64  // bytes from the object's start that the head shares with the parent
	length uint64  // bytes that any snapshot which gets pieces shares; never less
	// snapshots will see the copied bytes, oldest first: those that are newer than
	// anything that happened to the object.
	snapshots []*Snapshot
	exists    bool // the object exists after all
}

// zero tells whether nothing has to be copied.
func (in *inheritance) zero() bool { return len(in.pieces) == 0 }

// inherit reads what an object gets from the parent.
func (im *Image) inherit(ctx context.Context, h *Header, n ObjectNumber) (*inheritance, error) {
	in := &inheritance{head: h.Layout.objectOverlap(n, h.Overlap)}
	in.length = in.head
	overlap := h.Overlap
	for i := range h.Snapshots {
		overlap = max(overlap, h.Snapshots[i].Overlap)
	}
	parent, err := im.parentOf(ctx, h)
	if err != nil {
		return nil, err
	}
	if in.pieces, err = parent.readFor(ctx, h.Layout, n, 0, h.Layout.ObjectSize(), overlap); err != nil {
		return nil, fmt.Errorf("read parent of image %s: %w", h.ID, err)
	}
	if in.pieces = significant(in.pieces); in.zero() || !hasSnapshots(h) {
		return in, nil
	}
	seen, exists, err := im.history(ctx, h, n)
	if err != nil {
		return nil, err
	}
	in.exists = exists
	for i := range h.Snapshots {
		if s := &h.Snapshots[i]; s.ID > seen {
			in.snapshots = append(in.snapshots, s)
			in.length = max(in.length, h.Layout.objectOverlap(n, s.Overlap))
		}
	}
	in.pieces = significant(cutPieces(in.pieces, in.length))
	return in, nil
}

// history is the newest snapshot of which an object knows: what is written with an
// empty snapshot context belongs to all newer ones.
func (im *Image) history(ctx context.Context, h *Header, n ObjectNumber) (seen ceph.SnapID, exists bool, err error) {
	var op rados.ReadOp
	list := op.ListSnaps()
	name := h.Layout.ObjectName(n)
	err = im.data.Read(ctx, name, &op)
	if errors.Is(err, syscall.ENOENT) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("object %s: %w", name, err)
	}
	exists = slices.ContainsFunc(list.Clones, func(c rados.Clone) bool { return c.ID == ceph.NoSnap })
	return list.Seq, exists, nil
}

// significant gives the pieces, or none if all are zeros. Zeros beside other bytes are
// copied, as librbd does: they make the object as long as librbd's.
func significant(pieces []Piece) []Piece {
	for _, p := range pieces {
		if slices.ContainsFunc(p.Data, func(b byte) bool { return b != 0 }) {
			return pieces
		}
	}
	return nil
}

// cutPieces drops what is not within the first end bytes.
func cutPieces(pieces []Piece, end uint64) []Piece {
	var out []Piece
	for _, p := range pieces {
		if p.Offset < end {
			p.Data = p.Data[:min(uint64(len(p.Data)), end-p.Offset)]
			out = append(out, p)
		}
	}
	return out
}

// copyUpCall fills an object that does not exist with pieces, which are in order.
func copyUpCall(pieces []Piece) rados.WriteStep {
	extents := make(map[uint64]uint64, len(pieces))
	var data []byte
	if len(pieces) == 1 {
		data = pieces[0].Data
	}
	for _, p := range pieces {
		extents[p.Offset] = uint64(len(p.Data))
		if len(pieces) > 1 {
			data = append(data, p.Data...)
		}
	}
	return rados.WriteStep{Kind: rados.WriteExec, Call: rbd.SparseCopyUp(extents, data)}
}

// prefixed puts steps in front of an operation's.
func prefixed(op *rados.WriteOp, steps ...rados.WriteStep) *rados.WriteOp {
	op.Steps = append(steps, op.Steps...)
	return op
}

var (
	stepCreate = rados.WriteStep{Kind: rados.WriteCreate}
	stepExists = rados.WriteStep{Kind: rados.WriteAssertExists}
)

func stepHint(l Layout) rados.WriteStep {
	return rados.WriteStep{Kind: rados.WriteAllocHint, Offset: l.ObjectSize(), Length: l.ObjectSize()}
}

// copyUp does ops, of which there may be none, to an object that does not exist: with
// the parent's bytes below. The head's object map says already what is to come. The
// object exists afterwards, unless ops remove it.
func (im *Image) copyUp(ctx context.Context, h *Header, n ObjectNumber, ops []*rados.WriteOp) error {
	in, err := im.inherit(ctx, h, n)
	if err != nil {
		return err
	}
	return im.writeInherited(ctx, h, n, in, ops)
}

func (im *Image) writeInherited(ctx context.Context, h *Header, n ObjectNumber, in *inheritance, ops []*rados.WriteOp) error {
	if len(ops) == 0 {
		ops = []*rados.WriteOp{{}}
	}
	switch {
	case in.exists: // a former attempt got as far as this
	case in.zero():
		prefixed(ops[0], stepCreate)
	case len(in.snapshots) == 0:
		prefixed(ops[0], copyUpCall(cutPieces(in.pieces, in.head)), stepHint(h.Layout))
	default:
		if err := im.copyForSnapshots(ctx, h, n, in); err != nil {
			return err
		}
	}
	if in.length > in.head && !in.zero() {
		// The snapshots' share of the parent is larger than the head's.
		prefixed(ops[0], rados.WriteStep{Kind: rados.WriteTruncate, Offset: in.head})
	}
	if len(ops[0].Steps) == 0 {
		return nil
	}
	return im.writeAll(ctx, h, n, ops)
}

// copyForSnapshots copies the parent's bytes into the snapshots and the head.
func (im *Image) copyForSnapshots(ctx context.Context, h *Header, n ObjectNumber, in *inheritance) error {
	if err := im.object.copiedUp(ctx, h, n, in.snapshots); err != nil {
		return err
	}
	op := prefixed(new(rados.WriteOp), copyUpCall(in.pieces), stepHint(h.Layout))
	return im.writeOlder(ctx, h, n, op)
}

// writeOlder sends one operation to a data object under an empty snapshot context.
func (im *Image) writeOlder(ctx context.Context, h *Header, n ObjectNumber, op *rados.WriteOp) error {
	if err := im.owned(); err != nil {
		return err
	}
	name := h.Layout.ObjectName(n)
	if err := im.data.Write(ctx, name, op); err != nil {
		return fmt.Errorf("object %s: %w", name, err)
	}
	return nil
}
