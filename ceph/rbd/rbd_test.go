package rbd

import (
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

func TestNames(t *testing.T) {
	for _, c := range [][2]string{
		{IDObject("a"), "rbd_id.a"},
		{HeaderObject("1f"), "rbd_header.1f"},
		{ObjectMapObject("1f", ceph.NoSnap), "rbd_object_map.1f"},
		{ObjectMapObject("1f", 26), "rbd_object_map.1f.000000000000001a"},
		{ObjectPrefix("1f", NoDataPool), "rbd_data.1f"},
		{ObjectPrefix("1f", 12), "rbd_data.12.1f"},
		{DataObject("rbd_data.1f", 0x2a), "rbd_data.1f.000000000000002a"},
		{SnapshotKey(255), "snapshot_00000000000000ff"},
	} {
		if c[0] != c[1] {
			t.Errorf("%q, want %q", c[0], c[1])
		}
	}
	if n, ok := DataObjectNumber("rbd_data.1f", "rbd_data.1f.000000000000002a"); !ok || n != 0x2a {
		t.Errorf("%d, %v", n, ok)
	}
	for _, name := range []string{"rbd_data.1f.2a", "rbd_data.2f.000000000000002a", "rbd_data.1f.00000000000000zz"} {
		if _, ok := DataObjectNumber("rbd_data.1f", name); ok {
			t.Errorf("%q passes for a data object", name)
		}
	}
}

// TestFeatureNames checks the words that "rbd info" showed for the captured images.
func TestFeatureNames(t *testing.T) {
	objects := captured(t)
	for id, want := range map[string]string{
		fullID:         "layering, exclusive-lock, object-map, fast-diff, deep-flatten, journaling, operations",
		"1037e4c5d6e4": "layering, striping, exclusive-lock",
	} {
		d := encoding.NewDecoder("features", unhex(t, objects[HeaderObject(id)].Omap["features"]))
		if got := Features(d.U64()).String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := OpFeatures(1 | 8).String(); got != "clone-parent, snap-trash" {
		t.Error(got)
	}
	if got := Features(1<<40 | 1).String(); got != "layering, unknown (0x10000000000)" {
		t.Error(got)
	}
	for i, name := range featureNames {
		if f, err := ParseFeature(name); err != nil || f != 1<<i {
			t.Errorf("%s: %v, %v", name, f, err)
		}
	}
	if _, err := ParseFeature("nonsense"); err == nil {
		t.Error("no error for an unknown name")
	}
}

// TestCallInputs compares inputs with bytes written out by hand from the layouts.
func TestCallInputs(t *testing.T) {
	exists := ObjectExists
	m := NewObjectMap(5)
	m.Set(0, ObjectExists)
	m.Set(4, ObjectExistsClean)
	for _, c := range []struct {
		call class.Call
		want string
	}{
		{Create(1<<20, 22, FeatureLayering, "p", NoDataPool),
			"create 0000100000000000" + "16" + "0100000000000000" + "0100000070" + "ffffffffffffffff"},
		{GetSize(ceph.NoSnap).Call, "get_size feffffffffffffff"},
		{GetFeatures(true).Call, "get_features feffffffffffffff01"},
		{SetFlags(3, FlagObjectMapInvalid, FlagObjectMapInvalid), "set_flags 010000000000000001000000000000000300000000000000"},
		{SnapshotAdd(3, "s", UserSnapshot{}), "snapshot_add 0100000073" + "0300000000000000" + "010104000000" + "00000000"},
		{SnapshotAdd(3, "s", nil), "snapshot_add 0100000073" + "0300000000000000" + "010104000000" + "00000000"},
		{SnapshotRename(3, "s"), "snapshot_rename 0300000000000000" + "0100000073"},
		{ParentAttach(ParentSpec{Pool: 1, ImageID: "i", Snap: 2}, 9, true),
			"parent_attach 010119000000" + "0100000000000000" + "00000000" + "0100000069" + "0200000000000000" + "0900000000000000" + "01"},
		{AddChild(ParentSpec{Pool: 1, ImageID: "i", Snap: 2}, "c"),
			"add_child 0100000000000000" + "0100000069" + "0200000000000000" + "0100000063"},
		{ObjectMapUpdate(1, 2, ObjectPending, &exists), "object_map_update 0100000000000000" + "0200000000000000" + "02" + "0101"},
		{ObjectMapUpdate(1, 2, ObjectPending, nil), "object_map_update 0100000000000000" + "0200000000000000" + "02" + "00"},
		{ObjectMapSave(m), "object_map_save 0e000000" + "010108000000" + "0500000000000000" + "40c0" + "00000000"},
		{MetadataSet(map[string][]byte{"b": {2}, "a": {1}}),
			"metadata_set 02000000" + "0100000061" + "0100000001" + "0100000062" + "0100000002"},
		{TrashStateSet("i", TrashRestoring, TrashNormal), "trash_state_set 0100000069" + "0300"},
		{AssertSnapSeq(7, SnapSeqNotAbove), "assert_snapc_seq 0700000000000000" + "01"},
		{SparseCopyUp(map[uint64]uint64{8: 1, 0: 1}, []byte{1, 2}),
			"sparse_copyup 02000000" + "00000000000000000100000000000000" + "08000000000000000100000000000000" + "020000000102"},
		{CopyUp([]byte{5}), "copyup 05"},
	} {
		if got := c.call.Method + " " + hex.EncodeToString(c.call.In); got != c.want || c.call.Class != "rbd" {
			t.Errorf("%s.%s,\nwant %s", c.call.Class, got, c.want)
		}
	}
}

// replies encodes an image's header as the OSD answers HeaderCalls.
func replies(size uint64, order uint8, snaps ...uint64) [][]byte {
	list := make([][]byte, 0, 12)
	reply := func(fill func(e *encoding.Encoder)) {
		var e encoding.Encoder
		fill(&e)
		list = append(list, e.Bytes())
	}
	reply(func(e *encoding.Encoder) { e.U8(order); e.U64(size) })
	reply(func(e *encoding.Encoder) { e.U64(61); e.U64(1) })
	reply(func(e *encoding.Encoder) { e.String("rbd_data.1") })
	reply(func(e *encoding.Encoder) { e.I64(-1) })
	reply(func(e *encoding.Encoder) { e.U64(1) })
	reply(func(e *encoding.Encoder) { e.U64(0) })
	reply(func(e *encoding.Encoder) {
		e.U64(snaps[0])
		e.U32(uint32(len(snaps)))
		for _, s := range snaps {
			e.U64(s)
		}
	})
	reply(NoParent.Encode)
	reply(func(e *encoding.Encoder) { e.Bool(false) })
	for range 3 {
		reply(func(e *encoding.Encoder) { e.Time(time.Unix(1700000000, 5)) })
	}
	return list
}

func TestDecodeHeader(t *testing.T) {
	if len(HeaderCalls(true)) != len(replies(1, 22, 1)) {
		t.Fatal("the test's replies do not belong to the calls")
	}
	at := time.Unix(1700000000, 5)
	got, err := DecodeHeader(replies(10<<20+1, 22, 9, 4))
	want := Header{Size: 10<<20 + 1, Order: 22, Features: 61, Incompatible: FeatureLayering, ObjectPrefix: "rbd_data.1",
		DataPool: NoDataPool, Flags: FlagObjectMapInvalid, SnapContext: ceph.SnapContext{Seq: 9, Snaps: []ceph.SnapID{9, 4}},
		Parent: NoParent, Created: at, Accessed: at, Modified: at}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v; -want +got\n%s", err, d)
	}
	if n := got.ObjectCount(got.Size); n != 3 {
		t.Errorf("%d objects, want 3", n)
	}
}

func TestDecodeHeaderRefusesDamage(t *testing.T) {
	var corrupt *encoding.CorruptError
	for name, list := range map[string][][]byte{
		"order 60":                 replies(1, 60, 1),
		"order 3":                  replies(1, 3, 1),
		"snapshots ascending":      replies(1, 22, 4, 9),
		"the same snapshot twice":  replies(1, 22, 4, 4),
		"snapshot above the newst": replies(1, 22, 4, 3, 5),
	} {
		if _, err := DecodeHeader(list); !errors.As(err, &corrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := DecodeHeader(replies(1, 22, 1)[:11]); err == nil {
		t.Error("a reply is missing and nobody minds")
	}
}

// TestStripedObjects compares with a count of the objects that the last byte of
// every stripe unit is in.
func TestStripedObjects(t *testing.T) {
	const objectSize = 16
	for _, s := range []Striping{{Unit: 16, Count: 1}, {Unit: 4, Count: 1}, {Unit: 4, Count: 3}, {Unit: 8, Count: 5}, {Unit: 16, Count: 2}} {
		if !s.Valid(objectSize) {
			t.Fatalf("%+v should be valid", s)
		}
		for size := uint64(0); size < 400; size++ {
			var highest uint64
			for at := uint64(0); at < size; at++ {
				unit := at / s.Unit
				stripe, pos := unit/s.Count, unit%s.Count
				set := stripe / (objectSize / s.Unit)
				highest = max(highest, set*s.Count+pos+1)
			}
			if got := StripedObjects(size, objectSize, s); got != highest {
				t.Fatalf("%d bytes striped %+v: %d objects, want %d", size, s, got, highest)
			}
		}
	}
	for _, s := range []Striping{{}, {Unit: 3, Count: 1}, {Unit: 32, Count: 1}, {Unit: 4}, {Unit: 4, Count: 1 << 33}} {
		if s.Valid(objectSize) {
			t.Errorf("%+v should not be valid", s)
		}
	}
	if got := StripedObjects(33, objectSize, Striping{}); got != 3 {
		t.Errorf("%d objects without striping, want 3", got)
	}
}
