package compare

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/rados"
)

// LayoutError says that two images, or an image and its parent, cut their bytes into
// objects in different ways, so that their objects cannot be compared one by one.
type LayoutError struct {
	Image, Other string // ids
	Here, There  image.Layout
}

func (e *LayoutError) Error() string {
	text := func(l image.Layout) string {
		if !l.Fancy() {
			return fmt.Sprintf("objects of %d bytes", l.ObjectSize())
		}
		return fmt.Sprintf("objects of %d bytes in stripes of %d over %d", l.ObjectSize(), l.StripeUnit, l.StripeCount)
	}
	return fmt.Sprintf("image %s has %s and image %s %s: their checksums say nothing about each other",
		e.Image, text(e.Here), e.Other, text(e.There))
}

// Unwrap is EOPNOTSUPP.
func (e *LayoutError) Unwrap() error { return syscall.EOPNOTSUPP }

// SameLayout tells whether objects of the same number hold the same bytes of the image.
func SameLayout(a, b image.Layout) bool {
	return a.Order == b.Order && a.Fancy() == b.Fancy() &&
		(!a.Fancy() || a.StripeUnit == b.StripeUnit && a.StripeCount == b.StripeCount)
}

// maxParents bounds how deep a chain of parents may be: a loop of damaged records must
// come to an end.
const maxParents = 64

// state is an image at a snapshot, or its head, with the parents that it reads through.
type state struct {
	data    rados.IOContext
	layout  image.Layout
	snap    ceph.SnapID
	size    uint64         // bytes of the image
	known   *rbd.ObjectMap // nil: nothing is known
	overlap uint64         // bytes shared with the parent
	parent  *state
	close   []func()
}

// openState prepares to look at an image's objects. A parent is opened in the same
// cluster; its layout must be the image's.
func openState(ctx context.Context, side Side) (*state, error) {
	s, err := openLayer(ctx, side.IO, side.Header, side.Snap, maxParents)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", side.Header.ID, err)
	}
	return s, nil
}

func openLayer(ctx context.Context, io rados.IOContext, h *image.Header, snap ceph.SnapID, depth int) (_ *state, err error) {
	s := &state{data: io, layout: h.Layout, snap: snap, size: h.Size, overlap: h.Overlap}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	flags := h.Flags
	if snap != ceph.NoSnap {
		at := h.SnapshotByID(snap)
		if at == nil {
			return nil, fmt.Errorf("snapshot %d: %w", snap, syscall.ENOENT)
		}
		s.size, s.overlap, flags = at.ImageSize, at.Overlap, at.Flags
	}
	if pool := h.Layout.DataPool; pool >= 0 && pool != io.Pool().ID {
		if s.data, err = io.Cluster().OpenID(ctx, pool, io.Namespace()); err != nil {
			return nil, fmt.Errorf("data pool %d: %w", pool, err)
		}
		s.close = append(s.close, s.data.Close)
	}
	if s.known, err = loadMap(ctx, io, h, snap, flags, h.Layout.ObjectCount(s.size)); err != nil {
		return nil, err
	}
	if s.overlap == 0 || !h.Parent.Exists() {
		return s, nil
	}
	if depth == 0 {
		return nil, fmt.Errorf("more than %d parents: %w", maxParents, syscall.ELOOP)
	}
	parentIO, err := io.Cluster().OpenID(ctx, h.Parent.Pool, h.Parent.Namespace)
	if err != nil {
		return nil, fmt.Errorf("pool %d of the parent: %w", h.Parent.Pool, err)
	}
	s.close = append(s.close, parentIO.Close)
	parent, err := image.ReadHeader(ctx, parentIO, h.Parent.ImageID)
	if err != nil {
		return nil, fmt.Errorf("parent: %w", err)
	}
	if !SameLayout(h.Layout, parent.Layout) {
		return nil, &LayoutError{Image: h.ID, Here: h.Layout, Other: parent.ID, There: parent.Layout}
	}
	s.parent, err = openLayer(ctx, parentIO, parent, h.Parent.Snap, depth-1)
	return s, err
}

// Close lets the pools go.
func (s *state) Close() {
	if s.parent != nil {
		s.parent.Close()
	}
	for i := len(s.close) - 1; i >= 0; i-- {
		s.close[i]()
	}
	s.close = nil
}

// loadMap loads a snapshot's object map; nil if it cannot be believed. The head's is not
// asked for: its owner may be about to change it.
func loadMap(ctx context.Context, io rados.IOContext, h *image.Header, snap ceph.SnapID, flags rbd.Flags, objects uint64) (*rbd.ObjectMap, error) {
	if snap == ceph.NoSnap || !h.Features.Has(rbd.FeatureObjectMap) || flags.Has(rbd.FlagObjectMapInvalid) {
		return nil, nil
	}
	m, err := rados.Ask(ctx, io, rbd.ObjectMapObject(h.ID, snap), rbd.ObjectMapLoad())
	switch {
	case err == nil && m.Size() >= objects:
		return m, nil
	case err == nil, errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.EINVAL), rados.Classify(err) == rados.Corrupt:
		return nil, nil
	}
	return nil, fmt.Errorf("object map of snapshot %d: %w", snap, err)
}

// absent tells that the object is known to exist neither here nor in a parent.
func (s *state) absent(n image.ObjectNumber) bool {
	if visible(s.layout, n, s.size) == 0 {
		return true
	}
	if s.known == nil || uint64(n) < s.known.Size() && s.known.At(uint64(n)) != rbd.ObjectNonexistent {
		return false
	}
	return s.parent == nil || visible(s.layout, n, s.overlap) == 0 || s.parent.absent(n)
}

// find looks where a reader's bytes of an object come from: the object itself, or that
// of the nearest parent that has it.
func (s *state) find(ctx context.Context, n image.ObjectNumber) (Object, error) {
	limit := visible(s.layout, n, s.size)
	if limit == 0 {
		return Object{}, nil
	}
	o := Object{IO: s.data, Name: s.layout.ObjectName(n), Snap: s.snap}
	op := rados.ReadOp{Snap: s.snap}
	stat := op.Stat()
	err := s.data.Read(ctx, o.Name, &op)
	switch {
	case err == nil:
		o.Size = min(stat.Size, limit)
		return o, nil
	case !errors.Is(err, syscall.ENOENT):
		return Object{}, err
	case s.parent == nil:
		return Object{}, nil
	}
	shared := min(limit, visible(s.layout, n, s.overlap))
	if shared == 0 {
		return Object{}, nil
	}
	if o, err = s.parent.find(ctx, n); err != nil {
		return Object{}, err
	}
	o.Size = min(o.Size, shared)
	return o, nil
}

// visible is how many bytes of an object, from its start, belong to an image of size
// bytes. Striping fills a set's objects row by row, so they are always its first ones.
func visible(l image.Layout, n image.ObjectNumber, size uint64) uint64 {
	unit, count := l.ObjectSize(), uint64(1)
	if l.Fancy() {
		unit, count = l.StripeUnit, l.StripeCount
	}
	set, place := uint64(n)/count, uint64(n)%count
	before := set * l.Period()
	if size <= before {
		return 0
	}
	left := size - before
	if left >= l.Period() {
		return l.ObjectSize()
	}
	row := unit * count
	out := left / row * unit
	if rest := left % row; rest > place*unit {
		out += min(rest-place*unit, unit)
	}
	return out
}
