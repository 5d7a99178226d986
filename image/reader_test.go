package image

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/rados"
)

func randomBytes(rng *rand.Rand, n uint64) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(1 + rng.Uint32N(255)) // never zero, which may stand for "nothing"
	}
	return b
}

func (s *memSite) apply(im *Image, ios ...IO) {
	s.t.Helper()
	_, err := im.Apply(context.Background(), ios)
	s.check(err)
}

func (s *memSite) close(im *Image) {
	s.t.Helper()
	s.check(im.Close(context.Background()))
}

// TestReaderGoesToParents reads a chain of three images, of different object sizes
// and striping and in different pools, at a snapshot and at the head.
func TestReaderGoesToParents(t *testing.T) {
	s := newMemSite(t, nil, "rbd", "other", "data")
	rng := rand.New(rand.NewPCG(1, 2))
	ctx := context.Background()

	// The oldest: 100000 bytes with a hole in it.
	base := s.create("other", memSpec("base", 100000, 14))
	want := make([]byte, 100000)
	copy(want, randomBytes(rng, 40000))
	copy(want[70000:], randomBytes(rng, 30000))
	s.apply(base, IO{Kind: Write, Length: 40000, Data: want[:40000]}, IO{Kind: Write, Offset: 70000, Length: 30000, Data: want[70000:]})
	baseSnap := s.snap(base, "s")
	s.apply(base, IO{Kind: Write, Length: 100000, Data: randomBytes(rng, 100000)}) // not the clone's business
	s.close(base)

	// Its clone: striped over small objects in a data pool, with an object of its own,
	// then shrunk so that the overlap ends within an object.
	middle := memSpec("middle", 100000, 12)
	middle.StripeUnit, middle.StripeCount, middle.DataPool = 1024, 3, "data"
	s.close(s.create("rbd", middle))
	s.attach("rbd", "middle", "other", "base", baseSnap, 2)
	h, err := ReadHeader(ctx, s.io, "middle")
	s.check(err)
	own := randomBytes(rng, 4096)
	s.check(s.pools["data"].Write(ctx, h.Layout.ObjectName(4), new(rados.WriteOp).WriteFull(own)))
	for i, b := range own {
		want[h.Layout.ImageSpans(4, uint64(i), 1)[0].Offset] = b
	}
	middleSnap := ceph.SnapID(7)
	s.check(rados.Tell(ctx, s.io, rbd.HeaderObject("middle"), rbd.SetSize(90001)))
	s.check(rados.Tell(ctx, s.io, rbd.HeaderObject("middle"), rbd.SnapshotAdd(middleSnap, "s", nil)))
	s.check(rados.Tell(ctx, s.io, rbd.HeaderObject("middle"), rbd.SetSize(50000)))

	// The youngest has large objects and grew.
	s.close(s.create("rbd", memSpec("child", 90001, 16)))
	s.attach("rbd", "child", "rbd", "middle", middleSnap, 1)
	s.check(rados.Tell(ctx, s.io, rbd.HeaderObject("child"), rbd.SetSize(200000)))

	child := make([]byte, 200000)
	copy(child, want[:90001])
	for name, c := range map[string]struct {
		io   rados.IOContext
		id   string
		snap ceph.SnapID
		want []byte
	}{
		"clone of a clone": {s.io, "child", ceph.NoSnap, child},
		"clone, snapshot":  {s.io, "middle", middleSnap, want[:90001]},
		"clone, shrunk":    {s.io, "middle", ceph.NoSnap, want[:50000]},
	} {
		if got := s.read(c.io, c.id, c.snap); !bytes.Equal(got, c.want) {
			t.Errorf("%s: differs at %d", name, firstDifference(got, c.want))
		}
	}

	// Any range, and the objects by themselves.
	r, err := OpenReader(ctx, s.io, "child", ceph.NoSnap)
	s.check(err)
	defer r.Close()
	for range 100 {
		from := rng.Uint64N(200000)
		length := rng.Uint64N(200000 - from)
		pieces, err := r.Read(ctx, from, length)
		s.check(err)
		if got := Flat(pieces, from, length); !bytes.Equal(got, child[from:][:length]) {
			t.Fatalf("%d bytes at %d differ", length, from)
		}
	}
	pieces, err := r.ReadObject(ctx, 1, 100, 30000)
	s.check(err)
	if got := Flat(pieces, 100, 30000); !bytes.Equal(got, child[1<<16+100:][:30000]) {
		t.Errorf("object differs")
	}
}

func TestReaderNamesTheMissingParent(t *testing.T) {
	s := newMemSite(t, nil, "rbd")
	ctx := context.Background()
	base := s.create("rbd", memSpec("base", 1<<16, 12))
	snap := s.snap(base, "s")
	s.close(base)
	s.close(s.create("rbd", memSpec("child", 1<<16, 12)))
	s.attach("rbd", "child", "rbd", "base", snap, 2)
	if _, err := OpenReader(ctx, s.io, "child", 99); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("a snapshot that there is not: %v", err)
	}
	s.check(s.io.Write(ctx, rbd.HeaderObject("base"), new(rados.WriteOp).Remove()))
	_, err := OpenReader(ctx, s.io, "child", ceph.NoSnap)
	var missing *ParentError
	if !errors.As(err, &missing) || missing.ImageID != "child" || missing.Parent.ImageID != "base" || missing.NoPool {
		t.Errorf("parent's header gone: %v", err)
	}
}

func TestObjectOverlap(t *testing.T) {
	l := Layout{Order: 12, StripeUnit: 1024, StripeCount: 2}
	for overlap, want := range map[uint64][3]uint64{
		0: {0, 0, 0}, 1: {1, 0, 0}, 1024: {1024, 0, 0}, 1500: {1024, 476, 0}, 2500: {1476, 1024, 0},
		8192: {4096, 4096, 0}, 8200: {4096, 4096, 8}, 1 << 30: {4096, 4096, 4096},
	} {
		for n, w := range want {
			if got := l.objectOverlap(ObjectNumber(n), overlap); got != w {
				t.Errorf("overlap %d, object %d: %d, want %d", overlap, n, got, w)
			}
		}
	}
}
