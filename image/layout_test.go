package image

import (
	"testing"

	"pgregory.net/rapid"
)

// drawLayout makes a small layout of any shape.
func drawLayout(t *rapid.T) Layout {
	order := uint8(rapid.IntRange(MinOrder, MinOrder+2).Draw(t, "order"))
	l := Layout{Order: order, ObjectPrefix: "rbd_data.x", DataPool: -1}
	if rapid.Bool().Draw(t, "fancy") {
		l.StripeUnit = l.ObjectSize() >> rapid.IntRange(0, 4).Draw(t, "unit")
		l.StripeCount = uint64(rapid.IntRange(1, 5).Draw(t, "count"))
	}
	return l
}

// Every byte of an image extent is in exactly one object extent, the object
// extents lead back to where they came from, and no object is at or beyond
// ObjectCount.
func TestExtentsCoverEveryByteOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLayout(t)
		offset := uint64(rapid.IntRange(0, 1<<17).Draw(t, "offset"))
		length := uint64(rapid.IntRange(1, 1<<16).Draw(t, "length"))
		seen := make([]int, length)
		var before ObjectExtent
		for i, e := range l.Extents(offset, length) {
			if i > 0 && (e.Object < before.Object || e.Object == before.Object && e.Offset <= before.Offset+before.Length) {
				t.Fatalf("extent %+v is not behind and apart from %+v", e, before)
			}
			before = e
			if e.Offset+e.Length > l.ObjectSize() {
				t.Fatalf("extent %+v leaves its object", e)
			}
			if uint64(e.Object) >= l.ObjectCount(offset+length) {
				t.Fatalf("object %d of an image with %d", e.Object, l.ObjectCount(offset+length))
			}
			at := e.Offset
			for _, b := range e.Buffer {
				back := l.ImageSpans(e.Object, at, b.Length)
				if len(back) != 1 || back[0].Offset != offset+b.Offset || back[0].Length != b.Length {
					t.Fatalf("piece %+v at %d of object %d comes back as %+v", b, at, e.Object, back)
				}
				for i := range b.Length {
					seen[b.Offset+i]++
				}
				at += b.Length
			}
			if at != e.Offset+e.Length {
				t.Fatalf("pieces of %+v add up to %d bytes", e, at-e.Offset)
			}
		}
		for i, n := range seen {
			if n != 1 {
				t.Fatalf("byte %d is in %d extents", i, n)
			}
		}
	})
}

// The number of objects is one more than the highest object of any byte.
func TestObjectCountIsHighestObject(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLayout(t)
		size := uint64(rapid.IntRange(1, 1<<18).Draw(t, "size"))
		var highest ObjectNumber
		for _, e := range l.Extents(0, size) {
			highest = max(highest, e.Object)
		}
		if got := l.ObjectCount(size); got != uint64(highest)+1 {
			t.Fatalf("%d objects for %d bytes, the highest is %d", got, size, highest)
		}
	})
}

func TestLayoutKnownPlaces(t *testing.T) {
	// 16 KiB objects, 4 KiB units over 3 objects: worked out by hand from the
	// drawing at Layout.
	l := Layout{Order: 14, StripeUnit: 4096, StripeCount: 3}
	for _, c := range []struct {
		image  uint64
		object ObjectNumber
		offset uint64
	}{
		{0, 0, 0}, {4096, 1, 0}, {8192, 2, 0}, {12288, 0, 4096}, {12289, 0, 4097},
		{3*16384 - 1, 2, 16383}, {3 * 16384, 3, 0}, {3*16384 + 4096, 4, 0},
	} {
		e := l.Extents(c.image, 1)
		if len(e) != 1 || e[0].Object != c.object || e[0].Offset != c.offset {
			t.Errorf("byte %d is at %+v, want object %d offset %d", c.image, e, c.object, c.offset)
		}
	}
	for size, want := range map[uint64]uint64{0: 0, 1: 1, 4096: 1, 4097: 2, 3 * 4096: 3, 3*16384 + 1: 4, 6 * 16384: 6} {
		if got := l.ObjectCount(size); got != want {
			t.Errorf("%d bytes have %d objects, want %d", size, got, want)
		}
	}
	if got := l.ObjectName(255); got != ".00000000000000ff" {
		t.Errorf("object name %q", got)
	}
}

func TestLayoutValidate(t *testing.T) {
	for name, l := range map[string]Layout{
		"order too small":      {Order: 11},
		"order too large":      {Order: 26},
		"unit without count":   {Order: 22, StripeUnit: 4096},
		"count without unit":   {Order: 22, StripeCount: 2},
		"unit no divisor":      {Order: 22, StripeUnit: 5000, StripeCount: 2},
		"unit above an object": {Order: 12, StripeUnit: 8192, StripeCount: 2},
	} {
		if l.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for name, l := range map[string]Layout{
		"plain": {Order: 22}, "fancy": {Order: 22, StripeUnit: 65536, StripeCount: 7},
	} {
		if err := l.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
