package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/rados"
)

// Piece is a run of bytes of an image or of a data object. Bytes between pieces read
// as zeros.
type Piece struct {
	Offset uint64
	Data   []byte
}

// Flat puts pieces into one slice that holds the bytes [offset, offset+length). The
// pieces must lie within.
func Flat(pieces []Piece, offset, length uint64) []byte {
	out := make([]byte, length)
	for _, p := range pieces {
		copy(out[p.Offset-offset:], p.Data)
	}
	return out
}

// Reader reads an image at one snapshot, or at its head. Where the image has no
// object of its own it reads the parent, at the parent's snapshot, and so on through
// all generations (src/librbd/io/ObjectRequest.cc, ObjectReadRequest). It takes no
// lock: a head that is written meanwhile may be read in pieces of different age.
//
// A Reader is safe for use by many goroutines.
type Reader struct {
	header  *Header
	snap    ceph.SnapID
	size    uint64
	overlap uint64  // bytes of this image that may come from the parent
	parent  *Reader // nil if overlap is 0
	io      rados.IOContext
	data    rados.IOContext
	owns    []rados.IOContext // to be closed
}

// maxGenerations ends the search for parents of parents; a chain that long is a
// circle, which only damaged headers can make.
const maxGenerations = 256

// OpenReader opens an image by id for reading at a snapshot, or at the head
// (ceph.NoSnap): ENOENT if there is no such image or snapshot. io must stay open as
// long as the Reader is. Images and snapshots in the trash can be read as any other.
// If an ancestor is missing, the error is a *ParentError.
func OpenReader(ctx context.Context, io rados.IOContext, id string, snap ceph.SnapID) (*Reader, error) {
	return openReader(ctx, io, id, snap, maxGenerations)
}

func openReader(ctx context.Context, io rados.IOContext, id string, snap ceph.SnapID, generations int) (*Reader, error) {
	h, err := ReadHeader(ctx, io, id)
	if err != nil {
		return nil, err
	}
	r := &Reader{header: h, snap: snap, size: h.Size, overlap: h.Overlap, io: io}
	if snap != ceph.NoSnap {
		s := h.SnapshotByID(snap)
		if s == nil {
			return nil, fmt.Errorf("image %s: snapshot %d: %w", id, snap, syscall.ENOENT)
		}
		r.size, r.overlap = s.ImageSize, s.Overlap
	}
	r.overlap = min(r.overlap, r.size)
	if r.data, err = openData(ctx, io, h); err != nil {
		return nil, err
	}
	if r.data != io {
		r.owns = append(r.owns, r.data)
	}
	if r.overlap == 0 || !h.Parent.Exists() {
		return r, nil
	}
	if r.parent, err = openParent(ctx, io, h, generations-1); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// openParent opens the snapshot that an image is a clone of. The Reader owns what it
// needs.
func openParent(ctx context.Context, io rados.IOContext, h *Header, generations int) (*Reader, error) {
	if generations < 0 {
		return nil, &ParentError{ImageID: h.ID, Parent: h.Parent, Err: syscall.ELOOP}
	}
	parentIO, err := io.Cluster().OpenID(ctx, h.Parent.Pool, h.Parent.Namespace)
	if err != nil {
		return nil, &ParentError{ImageID: h.ID, Parent: h.Parent, NoPool: errors.Is(err, syscall.ENOENT), Err: err}
	}
	r, err := openReader(ctx, parentIO, h.Parent.ImageID, h.Parent.Snap, generations)
	if err != nil {
		parentIO.Close()
		var grandparent *ParentError
		if errors.As(err, &grandparent) {
			return nil, err
		}
		return nil, &ParentError{ImageID: h.ID, Parent: h.Parent, Err: err}
	}
	r.owns = append(r.owns, parentIO)
	return r, nil
}

// Close gives up what OpenReader opened.
func (r *Reader) Close() {
	if r.parent != nil {
		r.parent.Close()
	}
	for _, io := range r.owns {
		io.Close()
	}
	r.owns, r.parent = nil, nil
}

// Header is what the image's header said when the Reader was opened.
func (r *Reader) Header() *Header { return r.header }

// Size is the image's size in bytes at the Reader's snapshot.
func (r *Reader) Size() uint64 { return r.size }

// Overlap is how many bytes from the start may come from the parent; 0 if the image
// is not a clone at the Reader's snapshot.
func (r *Reader) Overlap() uint64 { return r.overlap }

// Parent reads the parent; nil if the image is not a clone at the Reader's snapshot.
func (r *Reader) Parent() *Reader { return r.parent }

// readerLimit is how many objects one Read has under way.
const readerLimit = 8

// Read reads the image's bytes [offset, offset+length), as far as the image has
// them. The pieces are in ascending order and do not touch what they do not cover.
func (r *Reader) Read(ctx context.Context, offset, length uint64) ([]Piece, error) {
	if offset >= r.size {
		return nil, nil
	}
	length = min(length, r.size-offset)
	extents := r.header.Layout.Extents(offset, length)
	var mu sync.Mutex
	var out []Piece
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(readerLimit)
	for _, e := range extents {
		group.Go(func() error {
			pieces, err := r.ReadObject(ctx, e.Object, e.Offset, e.Length)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			out = append(out, toImage(pieces, e, offset)...)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b Piece) int { return cmp.Compare(a.Offset, b.Offset) })
	return out, nil
}

// toImage moves pieces of an object to the image extent at base that e is part of.
func toImage(pieces []Piece, e ObjectExtent, base uint64) []Piece {
	var out []Piece
	at := e.Offset // in the object, of the span
	for _, s := range e.Buffer {
		for _, p := range pieces {
			from, to := max(at, p.Offset), min(at+s.Length, p.Offset+uint64(len(p.Data)))
			if from < to {
				out = append(out, Piece{Offset: base + s.Offset + from - at, Data: p.Data[from-p.Offset : to-p.Offset]})
			}
		}
		at += s.Length
	}
	return out
}

// ReadObject reads bytes [offset, offset+length) of what a data object holds, or
// would hold if it had been copied up from the parent. The pieces' offsets are the
// object's.
func (r *Reader) ReadObject(ctx context.Context, n ObjectNumber, offset, length uint64) ([]Piece, error) {
	op := rados.ReadOp{Snap: r.snap}
	step := op.SparseRead(offset, length)
	name := r.header.Layout.ObjectName(n)
	err := r.data.Read(ctx, name, &op)
	switch {
	case errors.Is(err, syscall.ENOENT):
		return r.readParent(ctx, n, offset, length)
	case err != nil:
		return nil, fmt.Errorf("object %s: %w", name, err)
	}
	pieces, err := sparsePieces(step, offset, length)
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", name, err)
	}
	return pieces, nil
}

// sparsePieces cuts the answer to a sparse read into pieces.
func sparsePieces(step *rados.ReadStep, offset, length uint64) ([]Piece, error) {
	var out []Piece
	data, at := step.Data, offset
	for _, x := range step.Extents {
		if x.Offset < at || x.Length > uint64(len(data)) || x.Offset+x.Length > offset+length {
			return nil, fmt.Errorf("sparse read of %d bytes at %d: answer has %d bytes at %d: %w", length, offset, x.Length, x.Offset, syscall.EIO)
		}
		if x.Length > 0 {
			out = append(out, Piece{Offset: x.Offset, Data: data[:x.Length:x.Length]})
		}
		data, at = data[x.Length:], x.Offset+x.Length
	}
	if len(data) > 0 {
		return nil, fmt.Errorf("sparse read of %d bytes at %d: answer has %d bytes too many: %w", length, offset, len(data), syscall.EIO)
	}
	return out, nil
}

func (r *Reader) readParent(ctx context.Context, n ObjectNumber, offset, length uint64) ([]Piece, error) {
	if r.parent == nil {
		return nil, nil
	}
	return r.parent.readFor(ctx, r.header.Layout, n, offset, length, r.overlap)
}

// readFor reads, from the parent, what a range of a child's object would have; the
// child shares its first overlap bytes with the parent.
func (r *Reader) readFor(ctx context.Context, child Layout, n ObjectNumber, offset, length, overlap uint64) ([]Piece, error) {
	var out []Piece
	at := offset
	for _, s := range child.ImageSpans(n, offset, length) {
		if s.Offset < overlap {
			pieces, err := r.Read(ctx, s.Offset, min(s.Length, overlap-s.Offset))
			if err != nil {
				return nil, err
			}
			for _, p := range pieces {
				out = append(out, Piece{Offset: at + p.Offset - s.Offset, Data: p.Data})
			}
		}
		at += s.Length
	}
	return out, nil
}

// objectOverlap is how many bytes of a data object lie within the first overlap
// bytes of the image. They are the object's first, for an object's bytes are in the
// order of the image's.
func (l Layout) objectOverlap(n ObjectNumber, overlap uint64) uint64 {
	var sum uint64
	for _, s := range l.ImageSpans(n, 0, l.ObjectSize()) {
		if s.Offset >= overlap {
			break
		}
		sum += min(s.Length, overlap-s.Offset)
	}
	return sum
}
