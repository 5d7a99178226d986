package image

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/rados"
)

// Header is what an image's header says, all of it at one moment.
type Header struct {
	ID           string
	Size         uint64 // of the head, bytes
	Features     rbd.Features
	Incompatible rbd.Features // those that a writer must know
	OpFeatures   rbd.OpFeatures
	Flags        rbd.Flags // of the head
	Layout       Layout
	SnapContext  ceph.SnapContext
	Snapshots    []Snapshot     // oldest first
	SnapLimit    uint64         // rbd.NoSnapshotLimit if there is none
	Parent       rbd.ParentSpec // of the head and of all snapshots that are attached
	Attached     bool           // the head is a clone, even if its overlap has come down to 0
	Overlap      uint64         // bytes that the head may share with the parent
	Created      time.Time
	Metadata     map[string][]byte // "rbd image-meta"
}

// Snapshot is one snapshot of an image.
type Snapshot struct {
	rbd.SnapshotInfo
	Protection rbd.Protection
	Flags      rbd.Flags
	Attached   bool   // it is a snapshot of a clone that was not flattened for it
	Overlap    uint64 // bytes that it may share with the parent
}

// Snapshot finds a snapshot by kind and name; nil if there is none.
func (h *Header) Snapshot(ns rbd.SnapshotNamespace, name string) *Snapshot {
	for i := range h.Snapshots {
		if s := &h.Snapshots[i]; s.Name == name && sameNamespace(s.Namespace, ns) {
			return s
		}
	}
	return nil
}

// SnapshotByID finds a snapshot by id; nil if there is none.
func (h *Header) SnapshotByID(id ceph.SnapID) *Snapshot {
	for i := range h.Snapshots {
		if h.Snapshots[i].ID == id {
			return &h.Snapshots[i]
		}
	}
	return nil
}

// HasParent tells whether the head or any snapshot shares data with a parent.
func (h *Header) HasParent() bool {
	if h.Parent.Exists() {
		return true
	}
	return slices.ContainsFunc(h.Snapshots, func(s Snapshot) bool { return s.Overlap > 0 })
}

// sameNamespace compares what identifies a snapshot beside its name.
func sameNamespace(a, b rbd.SnapshotNamespace) bool {
	if a == nil {
		a = rbd.UserSnapshot{}
	}
	if b == nil {
		b = rbd.UserSnapshot{}
	}
	if a.Kind() != b.Kind() {
		return false
	}
	switch a := a.(type) {
	case rbd.GroupSnapshot:
		return a == b
	case rbd.TrashSnapshot:
		return a == b
	}
	return true // users' have nothing more; mirror snapshots have unique names
}

// headerAttempts is how often ReadHeader starts over when snapshots come and go.
const headerAttempts = 20

// ReadHeader reads an image's header, local or remote. ENOENT if there is no such
// image.
func ReadHeader(ctx context.Context, io rados.IOContext, id string) (*Header, error) {
	object := rbd.HeaderObject(id)
	var snaps []ceph.SnapID
	for range headerAttempts {
		// A read operation sees one moment, so the header is whole as soon as the
		// snapshots that were asked for are those that exist in the same answer.
		h, err := readHeader(ctx, io, object, snaps)
		if errors.Is(err, syscall.ENOENT) && len(snaps) > 0 {
			snaps = nil // one of them was removed meanwhile, or the image
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read header of image %s: %w", id, err)
		}
		if !slices.Equal(h.SnapContext.Snaps, snaps) {
			snaps = h.SnapContext.Snaps
			continue
		}
		h.ID = id
		if err := h.readRest(ctx, io, object); err != nil {
			return nil, fmt.Errorf("read header of image %s: %w", id, err)
		}
		return h, nil
	}
	return nil, fmt.Errorf("read header of image %s: its snapshots changed during each of %d attempts: %w", id, headerAttempts, syscall.EAGAIN)
}

// asker adds class queries to one read operation and decodes their replies.
type asker struct {
	op     rados.ReadOp
	decode []func() error
}

func ask[R any](a *asker, q class.Query[R], keep func(R)) {
	step := a.op.Exec(q.Call)
	a.decode = append(a.decode, func() error {
		r, err := q.Decode(step.Data)
		if err != nil {
			return fmt.Errorf("%s.%s: %w", q.Class, q.Method, err)
		}
		keep(r)
		return nil
	})
}

func (a *asker) run(ctx context.Context, io rados.IOContext, object string) error {
	if err := io.Read(ctx, object, &a.op); err != nil {
		return err
	}
	for _, decode := range a.decode {
		if err := decode(); err != nil {
			return fmt.Errorf("object %s: %w", object, err)
		}
	}
	return nil
}

func readHeader(ctx context.Context, io rados.IOContext, object string, snaps []ceph.SnapID) (*Header, error) {
	h := &Header{Snapshots: make([]Snapshot, len(snaps))}
	var a asker
	ask(&a, rbd.GetSize(ceph.NoSnap), func(s rbd.Size) { h.Size, h.Layout.Order = s.Bytes, s.Order })
	ask(&a, rbd.GetFeatures(false), func(f rbd.FeatureSet) { h.Features, h.Incompatible = f.Features, f.Incompatible })
	ask(&a, rbd.GetOpFeatures(), func(f rbd.OpFeatures) { h.OpFeatures = f })
	ask(&a, rbd.GetFlags(ceph.NoSnap), func(f rbd.Flags) { h.Flags = f })
	ask(&a, rbd.GetSnapContext(), func(c ceph.SnapContext) { h.SnapContext = c })
	ask(&a, rbd.SnapshotGetLimit(), func(n uint64) { h.SnapLimit = n })
	ask(&a, rbd.GetObjectPrefix(), func(s string) { h.Layout.ObjectPrefix = s })
	ask(&a, rbd.GetDataPool(), func(p int64) { h.Layout.DataPool = p })
	ask(&a, rbd.ParentGet(), func(p rbd.ParentSpec) { h.Parent = p })
	ask(&a, rbd.ParentOverlapGet(ceph.NoSnap), func(n *uint64) { h.Attached, h.Overlap = n != nil, deref(n) })
	ask(&a, rbd.GetCreateTimestamp(), func(t time.Time) { h.Created = t })
	for i, id := range snaps { // newest first, as in the snapshot context
		s := &h.Snapshots[len(snaps)-1-i]
		ask(&a, rbd.SnapshotGet(id), func(info rbd.SnapshotInfo) { s.SnapshotInfo = info })
		ask(&a, rbd.GetProtection(id), func(p rbd.Protection) { s.Protection = p })
		ask(&a, rbd.GetFlags(id), func(f rbd.Flags) { s.Flags = f })
		ask(&a, rbd.ParentOverlapGet(id), func(n *uint64) { s.Attached, s.Overlap = n != nil, deref(n) })
	}
	if err := a.run(ctx, io, object); err != nil {
		return nil, err
	}
	return h, nil
}

// readRest reads what never changes or needs no moment in common with the rest.
func (h *Header) readRest(ctx context.Context, io rados.IOContext, object string) error {
	if h.Features.Has(rbd.FeatureStriping) {
		s, err := rados.Ask(ctx, io, object, rbd.GetStriping())
		if err != nil {
			return err
		}
		h.Layout.StripeUnit, h.Layout.StripeCount = s.Unit, s.Count
	}
	if err := h.Layout.Validate(); err != nil {
		return fmt.Errorf("object %s: %w", object, err)
	}
	h.Metadata = make(map[string][]byte)
	const page = 64
	for after := ""; ; {
		pairs, err := rados.Ask(ctx, io, object, rbd.MetadataList(after, page))
		if err != nil {
			return err
		}
		maps.Copy(h.Metadata, pairs)
		if len(pairs) < page {
			return nil
		}
		after = slices.Max(slices.Collect(maps.Keys(pairs)))
	}
}

func deref(n *uint64) uint64 {
	if n == nil {
		return 0
	}
	return *n
}

// ID finds an image's id by name; ENOENT if there is none.
func ID(ctx context.Context, io rados.IOContext, name string) (string, error) {
	return rados.Ask(ctx, io, rbd.IDObject(name), rbd.GetID())
}

// Name finds an image's name by id; ENOENT if the directory does not have it (no
// such image, or it is in the trash).
func Name(ctx context.Context, io rados.IOContext, id string) (string, error) {
	return rados.Ask(ctx, io, rbd.DirectoryObject, rbd.DirGetName(id))
}
