package rbd

import (
	"bytes"
	"testing"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// FuzzRecords feeds arbitrary bytes to every decoder. What decodes must encode, and
// decode again to the same bytes; nothing may panic.
func FuzzRecords(f *testing.F) {
	for _, o := range captured(f) {
		for _, value := range o.Omap {
			f.Add(unhex(f, value))
		}
		f.Add(unhex(f, o.Data))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, decode := range records {
			stable(t, name, b, decode)
		}
		stable(t, "trash", b, func(b []byte) (encoder, error) { return DecodeTrashSpec(b) })
		stable(t, "object map", b, func(b []byte) (encoder, error) { return DecodeObjectMap(b) })
	})
}

// stable decodes, encodes, decodes and encodes: both encodings must be equal.
func stable(t *testing.T, name string, b []byte, decode func([]byte) (encoder, error)) {
	t.Helper()
	r, err := decode(b)
	if err != nil {
		return
	}
	var first, second encoding.Encoder
	r.Encode(&first)
	again, err := decode(first.Bytes())
	if err != nil {
		t.Fatalf("%s: %+v encodes to %x: %v", name, r, first.Bytes(), err)
	}
	again.Encode(&second)
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Fatalf("%s: %x, then %x", name, first.Bytes(), second.Bytes())
	}
}

// FuzzReplies feeds arbitrary bytes to the decoders of replies. They may only give
// a value or an error.
func FuzzReplies(f *testing.F) {
	for _, b := range replies(5, 22, 3, 1) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = DirList("", 1).Decode(b)
		_, _ = MetadataList("", 1).Decode(b)
		_, _ = TrashList("", 1).Decode(b)
		_, _ = NamespaceList("", 1).Decode(b)
		_, _ = GetChildren(NoParent).Decode(b)
		_, _ = ChildrenList(1).Decode(b)
		_, _ = GetParent(1).Decode(b)
		_, _ = GetStriping().Decode(b)
		_, _ = SnapshotGet(1).Decode(b)
		_, _ = ObjectMapLoad().Decode(b)
		if c, err := GetSnapContext().Decode(b); err == nil && len(c.Snaps) > 0 && c.Snaps[0] > c.Seq {
			t.Fatalf("invalid snapshot context %v", c)
		}
		if o, err := ParentOverlapGet(ceph.NoSnap).Decode(b); err == nil && o == nil && b[0] != 0 {
			t.Fatal("an overlap was lost")
		}
		list := replies(5, 22, 3, 1)
		for i := range list {
			damaged := append([][]byte(nil), list...)
			damaged[i] = b
			_, _ = DecodeHeader(damaged)
		}
	})
}
