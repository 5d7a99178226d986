package image

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/rados"
)

// parentOf makes an image with a protected snapshot in a pool.
func (s *memSite) parentOf(pool, id string, size uint64) (rados.IOContext, ceph.SnapID) {
	s.t.Helper()
	ctx := context.Background()
	im := s.create(pool, memSpec(id, size, 14))
	snap := s.snap(im, "s")
	_, err := im.SnapProtect(ctx, nil, "s")
	s.check(err)
	s.check(im.Close(ctx))
	return s.pools[pool], snap
}

// children lists who is noted as a clone of a snapshot, in either way.
func (s *memSite) children(of CloneOf, pool string) []string {
	s.t.Helper()
	ctx := context.Background()
	var out []string
	v1, err := rados.Ask(ctx, s.pools[pool], rbd.ChildrenObject, rbd.GetChildren(of.Spec()))
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		s.t.Fatal(err)
	}
	out = append(out, v1...)
	v2, err := rados.Ask(ctx, of.IO, rbd.HeaderObject(of.ImageID), rbd.ChildrenList(of.Snap))
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		s.t.Fatal(err)
	}
	for _, c := range v2 {
		out = append(out, c.ImageID)
	}
	return out
}

// A Create of a clone that is killed after any number of writes, on either side of the
// link, is made good by the next one, and nobody stays in the parent's list but what is.
func TestCreateCloneKilled(t *testing.T) {
	for _, format := range []uint8{1, 2} {
		for writes := int64(0); ; writes++ {
			s := newMemSite(t, nil, "rbd", "other")
			io, snap := s.parentOf("other", "parent", 1<<20)
			ctx := context.Background()
			first := memSpec("one", 1<<20, 14)
			life := newMortal(s.io, writes)
			first.Clone = &CloneOf{IO: mortal{io, life.left}, ImageID: "parent", Snap: snap, Overlap: 1 << 20, Format: format}
			_, err := Create(ctx, life, first)
			killed := err != nil
			second := first
			second.Clone = &CloneOf{IO: io, ImageID: "parent", Snap: snap, Overlap: 1 << 20, Format: format}
			if writes%2 == 0 && killed {
				second.ID = "two"
			}
			if _, err := Create(ctx, s.io, second); err != nil {
				t.Fatalf("format %d, killed after %d writes, then: %v", format, writes, err)
			}
			if got := s.children(*second.Clone, "rbd"); !slices.Equal(got, []string{second.ID}) {
				t.Fatalf("format %d, killed after %d writes: clones %q, want %s", format, writes, got, second.ID)
			}
			h, err := ReadHeader(ctx, s.io, second.ID)
			s.check(err)
			if h.Parent != second.Clone.Spec() || h.Overlap != 1<<20 || h.OpFeatures.Has(rbd.OpFeatureCloneChild) != (format == 2) {
				t.Fatalf("format %d: header %+v", format, h)
			}
			s.check(Remove(ctx, s.io, second.ID, s.lockOptions()))
			if got := s.children(*second.Clone, "rbd"); len(got) > 0 {
				t.Fatalf("format %d: clones %q after the removal", format, got)
			}
			if !killed {
				break
			}
		}
	}
}

// A snapshot that is not there, in the trash or not protected is told, and nothing is left.
func TestCreateCloneOfNothing(t *testing.T) {
	ctx := context.Background()
	s := newMemSite(t, nil, "rbd", "other")
	io, snap := s.parentOf("other", "parent", 1<<20)
	im := s.open(io, "parent")
	_, err := im.SnapUnprotect(ctx, nil, "s")
	s.check(err)
	s.check(im.Close(ctx))
	for name, of := range map[string]CloneOf{
		"no snapshot":   {IO: io, ImageID: "parent", Snap: snap + 1, Format: 2},
		"no image":      {IO: io, ImageID: "nobody", Snap: snap, Format: 2},
		"not protected": {IO: io, ImageID: "parent", Snap: snap, Format: 1},
		"no image, v1":  {IO: io, ImageID: "nobody", Snap: snap, Format: 1},
	} {
		spec := memSpec("child", 1<<20, 14)
		spec.Clone = &of
		var parent *ParentError
		if _, err := Create(ctx, s.io, spec); !errors.As(err, &parent) || parent.Parent != of.Spec() {
			t.Errorf("%s: %v", name, err)
		}
		if err := idIsFree(ctx, s.io, "child"); err != nil {
			t.Errorf("%s: a header is left: %v", name, err)
		}
		if got := s.children(of, "rbd"); len(got) > 0 {
			t.Errorf("%s: clones %q", name, got)
		}
	}
}

// Snapshots and head get exactly the size and share that are asked for, whatever was
// before, and also after all of them were removed.
func TestShape(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			ctx := context.Background()
			rng := rand.New(rand.NewPCG(seed, 4))
			s := newMemSite(t, nil, "rbd", "other")
			io, snap := s.parentOf("other", "parent", 1<<20)
			of := CloneOf{IO: io, ImageID: "parent", Snap: snap, Overlap: 1 << 20, Format: uint8(1 + rng.IntN(2))}
			spec := memSpec("child", 1<<20, 14)
			spec.Features &^= rbd.FeatureDeepFlatten
			spec.Clone = &of
			im := s.create("rbd", spec)
			draw := func(attached bool) (uint64, Sharing) {
				size := rng.Uint64N(1 << 20)
				if !attached {
					return size, Sharing{}
				}
				return size, Sharing{Attached: true, Overlap: rng.Uint64N(2) * rng.Uint64N(size+1)}
			}
			for round := range 2 {
				names := map[string]Snapshot{}
				flattened := rng.IntN(6) // from which snapshot on
				for i := range 5 {
					name := fmt.Sprint(round, "-", i)
					size, share := draw(i < flattened)
					if share.Attached {
						_, err := im.AttachParent(ctx, of)
						s.check(err)
					}
					_, _, err := im.SnapCreateWithSize(ctx, nil, name, size, share)
					s.check(err)
					names[name] = Snapshot{Attached: share.Attached, Overlap: share.Overlap, SnapshotInfo: rbd.SnapshotInfo{ImageSize: size}}
				}
				size, share := draw(flattened > 4)
				_, err := im.SetHead(ctx, size, share)
				s.check(err)
				h := im.Header()
				if h.Size != size || h.Attached != share.Attached || h.Overlap != share.Overlap {
					t.Errorf("head has %d bytes, %v, %d shared; want %d, %+v", h.Size, h.Attached, h.Overlap, size, share)
				}
				for name, want := range names {
					got := h.Snapshot(nil, name)
					if got == nil || got.ImageSize != want.ImageSize || got.Attached != want.Attached || got.Overlap != want.Overlap {
						t.Errorf("%s is %+v, want %+v", name, got, want)
					}
				}
				linked := flattened > 0
				if got := len(s.children(of, "rbd")) == 1; got != linked || h.Parent.Exists() != linked {
					t.Errorf("%d snapshots attached: in the list %v, header %+v", flattened, got, h.Parent)
				}
				for name := range names {
					_, err := im.SnapRemove(ctx, nil, name)
					s.check(err)
				}
			}
		})
	}
}
