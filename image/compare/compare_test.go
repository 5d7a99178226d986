package compare

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/mem"
)

func open(t *testing.T) rados.IOContext {
	t.Helper()
	store := mem.New(mem.Options{})
	store.AddPool("rbd")
	io, err := store.Connect().Open(t.Context(), "rbd", "")
	if err != nil {
		t.Fatal(err)
	}
	return io
}

// put makes an object of the bytes; nil makes none.
func put(t *testing.T, io rados.IOContext, name string, b []byte) Object {
	t.Helper()
	o := Object{IO: io, Name: name, Size: uint64(len(b))}
	if b == nil {
		return o
	}
	if err := io.Write(t.Context(), name, new(rados.WriteOp).Create(false).WriteFull(b)); err != nil {
		t.Fatal(err)
	}
	return o
}

// differing is the oracle: the fine chunks in which padded contents differ.
func differing(a, b []byte) []rados.Extent {
	size := max(len(a), len(b))
	pad := func(x []byte) []byte { return append(slices.Clone(x), make([]byte, size-len(x))...) }
	a, b = pad(a), pad(b)
	var out []rados.Extent
	for at := 0; at < size; at += Fine {
		end := min(at+Fine, size)
		if !bytes.Equal(a[at:end], b[at:end]) {
			out = join(out, rados.Extent{Offset: uint64(at), Length: uint64(end - at)})
		}
	}
	return out
}

// TestObjectsAgainstBytes compares random pairs of objects: equal but for a few bytes,
// of other lengths, with zeros where the other has nothing.
func TestObjectsAgainstBytes(t *testing.T) {
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 7))
		a, b := open(t), open(t)
		size := []int{0, 1, 511, 4096, 5000, 65536, 65537, 200000, 262144}[rng.IntN(9)]
		x := make([]byte, size)
		for i := range x {
			if i/8192%3 != 1 { // holes
				x[i] = byte(rng.Uint32())
			}
		}
		y := slices.Clone(x)
		for range rng.IntN(4) {
			if len(y) > 0 {
				y[rng.IntN(len(y))] ^= 1 << rng.IntN(8)
			}
		}
		switch rng.IntN(4) {
		case 0:
			y = y[:rng.IntN(len(y)+1)]
		case 1:
			y = append(y, make([]byte, rng.IntN(100000))...)
		}
		if len(y) == 0 && rng.IntN(2) == 0 {
			y = nil
		}
		if rng.IntN(2) == 0 {
			x, y = y, x
		}
		want := differing(x, y)
		got, err := New().Objects(t.Context(), put(t, a, "o", x), put(t, b, "o", y))
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("seed %d, %d and %d bytes: -want +got\n%s", seed, len(x), len(y), d)
		}
	}
}

// What moves is checksums: of equal objects a thousandth, and little more where one fine
// chunk differs.
func TestObjectsMovesChecksums(t *testing.T) {
	x := make([]byte, 4<<20)
	for i := range x {
		x[i] = byte(i * 7 / 3)
	}
	y := slices.Clone(x)
	a, b := open(t), open(t)
	c := New()
	if got, err := c.Objects(t.Context(), put(t, a, "o", x), put(t, b, "o", y)); err != nil || len(got) != 0 {
		t.Fatalf("%v, %v", got, err)
	}
	sums, data := c.Moved()
	if sums != 2*(4+64*8) || data != 0 {
		t.Errorf("%d bytes of checksums and %d of data for equal objects", sums, data)
	}
	y[3<<20] ^= 1
	got, err := c.Objects(t.Context(), put(t, a, "o", x), put(t, b, "o", y))
	want := []rados.Extent{{Offset: 3 << 20, Length: Fine}}
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("%v, %v", got, err)
	}
	if sums2, data := c.Moved(); sums2 != 2*sums+2*(4+16*8) || data != 0 {
		t.Errorf("%d bytes of checksums and %d of data", sums2, data)
	}
}

// A state that is gone is not taken for zeros.
func TestObjectsThatChange(t *testing.T) {
	a, b := open(t), open(t)
	x := put(t, a, "o", bytes.Repeat([]byte("x"), 8192))
	for name, y := range map[string]Object{
		"gone":   {IO: b, Name: "none", Size: 8192},
		"shrunk": {IO: b, Name: put(t, b, "short", make([]byte, 100)).Name, Size: 8192},
	} {
		_, err := New().Objects(t.Context(), x, y)
		var changed *ChangedError
		if !errors.As(err, &changed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVisible(t *testing.T) {
	for _, l := range []image.Layout{{Order: 12}, {Order: 16, StripeUnit: 4096, StripeCount: 3}, {Order: 14, StripeUnit: 16384, StripeCount: 2}} {
		for _, size := range []uint64{0, 1, 4096, 5000, 70000, 196608, 200001, 1 << 20} {
			want := map[image.ObjectNumber]uint64{}
			if size > 0 {
				for _, e := range l.Extents(0, size) {
					want[e.Object] = max(want[e.Object], e.Offset+e.Length)
				}
			}
			for n := range image.ObjectNumber(300) {
				if got := visible(l, n, size); got != want[n] {
					t.Fatalf("%+v, %d bytes, object %d: %d, want %d", l, size, n, got, want[n])
				}
			}
		}
	}
}

func side(io rados.IOContext, size uint64) Side {
	return Side{IO: io, Snap: ceph.NoSnap, Header: &image.Header{ID: "i", Size: size,
		Layout: image.Layout{Order: 16, ObjectPrefix: "rbd_data.i", DataPool: -1}}}
}

// TestImages compares heads of images with objects that differ, that only one side
// has, and that differ only behind the end.
func TestImages(t *testing.T) {
	a, b := open(t), open(t)
	const size = 10<<16 + 1000
	same, zeros := bytes.Repeat([]byte("same"), 1<<14), make([]byte, 1<<16)
	name := func(n image.ObjectNumber) string { return side(a, 0).Header.Layout.ObjectName(n) }
	for n, data := range map[image.ObjectNumber][2][]byte{
		1: {same, same}, 2: {zeros, nil}, 3: {same, nil}, 4: {nil, zeros[:10]}, 5: {same[:5000], same[:4096]},
		10: {append(slices.Clone(same[:1000]), 'x'), append(slices.Clone(same[:1000]), 'y')}, // behind the end
	} {
		put(t, a, name(n), data[0])
		put(t, b, name(n), data[1])
	}
	var last Progress
	r, err := Images(t.Context(), Job{A: side(a, size), B: side(b, size), Objects: 1, Progress: func(p Progress) { last = p }})
	if err != nil {
		t.Fatal(err)
	}
	want := []Difference{{3, []rados.Extent{{Length: 1 << 16}}}, {5, []rados.Extent{{Offset: 4096, Length: 904}}}}
	if d := cmp.Diff(want, r.Differences); d != "" || r.Equal() || r.ObjectsDiffering != 2 || r.ObjectsCompared != 6 {
		t.Errorf("%+v\n%s", r, d)
	}
	if last != (Progress{11, 11}) {
		t.Errorf("progress ends at %+v", last)
	}
	if r, err := Images(t.Context(), Job{A: side(a, size), B: side(a, size)}); err != nil || !r.Equal() {
		t.Errorf("an image differs from itself: %+v, %v", r, err)
	}
	if r, err := Images(t.Context(), Job{A: side(a, size), B: side(a, size+1)}); err != nil || r.Equal() {
		t.Errorf("a size that differs is not seen: %+v, %v", r, err)
	}
	other := side(b, size)
	other.Header.Layout.Order = 17
	if _, err := Images(t.Context(), Job{A: side(a, size), B: other}); !errors.Is(err, syscall.EOPNOTSUPP) {
		t.Errorf("other layout: %v", err)
	}
}

func TestImagesEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a := open(t)
	if _, err := Images(ctx, Job{A: side(a, 1<<30), B: side(a, 1<<30)}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestCommon(t *testing.T) {
	header := func(names ...string) *image.Header {
		h := &image.Header{}
		for i, n := range names {
			s := image.Snapshot{}
			s.ID, s.Name = ceph.SnapID(i+1), n
			h.Snapshots = append(h.Snapshots, s)
		}
		return h
	}
	got := Common(header("a", "b", ".rbd-mirror.u.1", "c"), header("x", "c", ".rbd-mirror.u.1", "a"))
	var text string
	for _, p := range got {
		text += fmt.Sprint(p.A.Name, p.A.ID, p.B.ID, " ")
	}
	if text != "c4 2 a1 4 " {
		t.Error(text)
	}
}
