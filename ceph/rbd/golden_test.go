package rbd

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// capturedObject is an object of a real cluster, see testdata/README.md.
type capturedObject struct {
	Object string            `json:"object"`
	Data   string            `json:"data"`
	Omap   map[string]string `json:"omap"`
}

// captured reads the objects of testdata/pacific.json by name.
func captured(t testing.TB) map[string]capturedObject {
	t.Helper()
	b, err := os.ReadFile("testdata/pacific.json")
	if err != nil {
		t.Fatal(err)
	}
	var list []capturedObject
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatal(err)
	}
	objects := make(map[string]capturedObject, len(list))
	for _, o := range list {
		objects[o.Object] = o
	}
	return objects
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	fullID   = "10356d2c2838" // snapshots one (protected) and three (in the trash)
	clone2ID = "104d999f024a" // flattened, its snapshot c was not
	clone3ID = "106ae0e72396" // a clone of full@three
)

// TestCapturedRecordsRoundTrip takes every snapshot, parent and trash record and
// every object map.
func TestCapturedRecordsRoundTrip(t *testing.T) {
	seen := map[string]int{}
	check := func(kind, name string, b []byte, decode func([]byte) (encoder, error)) {
		seen[kind]++
		roundTrip(t, name, b, decode)
	}
	for name, o := range captured(t) {
		for key, value := range o.Omap {
			b := unhex(t, value)
			switch {
			case strings.HasPrefix(key, "snapshot_"):
				check("snapshot", name+" "+key, b, records["cls_rbd_snap"])
			case key == "parent":
				check("parent", name+" "+key, b, records["cls_rbd_parent"])
			case name == TrashObject:
				check("trash", name+" "+key, b, func(b []byte) (encoder, error) { return DecodeTrashSpec(b) })
			}
		}
		if strings.HasPrefix(name, "rbd_object_map.") {
			check("object map", name, unhex(t, o.Data), func(b []byte) (encoder, error) { return DecodeObjectMap(b) })
		}
	}
	for kind, least := range map[string]int{"snapshot": 4, "parent": 2, "trash": 1, "object map": 8} {
		if seen[kind] < least {
			t.Errorf("%d records of kind %q, want at least %d", seen[kind], kind, least)
		}
	}
}

func TestCapturedSnapshots(t *testing.T) {
	objects := captured(t)
	overlap := uint64(100 << 20)
	for _, c := range []struct {
		image string
		want  HeaderSnapshot
	}{
		{fullID, HeaderSnapshot{ID: 4, Name: "one", ImageSize: 100 << 20, Protection: Protected, Namespace: UserSnapshot{}}},
		{fullID, HeaderSnapshot{ID: 8, ImageSize: 100 << 20, ChildCount: 1,
			Namespace: TrashSnapshot{OriginalName: "three", OriginalKind: SnapshotUser}}},
		{clone3ID, HeaderSnapshot{ID: 9, Name: "k", ImageSize: 100 << 20, Namespace: UserSnapshot{}, ParentOverlap: &overlap}},
	} {
		got, err := DecodeHeaderSnapshot(unhex(t, objects[HeaderObject(c.image)].Omap[SnapshotKey(c.want.ID)]))
		if err != nil {
			t.Fatal(err)
		}
		if got.Timestamp.Before(time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)) {
			t.Errorf("snapshot %d was made at %v", got.ID, got.Timestamp)
		}
		got.Timestamp = time.Time{}
		if c.want.Name == "" { // a random one
			c.want.Name = got.Name
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("snapshot %d: -want +got\n%s", c.want.ID, d)
		}
	}
}

func TestCapturedParents(t *testing.T) {
	objects := captured(t)
	overlap := uint64(100 << 20)
	got, err := DecodeHeaderParent(unhex(t, objects[HeaderObject(clone3ID)].Omap["parent"]))
	want := HeaderParent{Spec: ParentSpec{Pool: 2, ImageID: fullID, Snap: 8}, HeadOverlap: &overlap}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v; -want +got\n%s", err, d)
	}
	if !got.Spec.Exists() || NoParent.Exists() {
		t.Error("Exists is wrong")
	}
}

func TestCapturedObjectMaps(t *testing.T) {
	objects := captured(t)
	head, err := DecodeObjectMap(unhex(t, objects[ObjectMapObject(fullID, ceph.NoSnap)].Data))
	if err != nil {
		t.Fatal(err)
	}
	snap, err := DecodeObjectMap(unhex(t, objects[ObjectMapObject(fullID, 4)].Data))
	if err != nil {
		t.Fatal(err)
	}
	if head.Size() != 25 || snap.Size() != 25 {
		t.Fatalf("maps of %d and %d objects, not 25", head.Size(), snap.Size())
	}
	count := map[ObjectState]int{}
	for i := range head.Size() {
		count[head.At(i)]++
		if snap.At(i) != ObjectNonexistent && head.At(i) == ObjectNonexistent {
			t.Errorf("object %d was at the snapshot and is gone, though nobody removed any", i)
		}
	}
	if count[ObjectExists] == 0 && count[ObjectExistsClean] == 0 || count[ObjectNonexistent] == 0 {
		t.Errorf("states of the head: %v", count)
	}
}

func TestCapturedTrash(t *testing.T) {
	for _, value := range captured(t)[TrashObject].Omap {
		got, err := DecodeTrashSpec(unhex(t, value))
		if err != nil || got.Source != TrashUser || got.Name != "gone" || got.State != TrashNormal ||
			!got.DefermentEnds.After(got.DeletionTime) {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

// TestEveryCutIsCorrupt cuts every captured record short at every byte.
func TestEveryCutIsCorrupt(t *testing.T) {
	objects := captured(t)
	samples := map[string][]byte{
		"cls_rbd_snap":   unhex(t, objects[HeaderObject(clone3ID)].Omap[SnapshotKey(9)]),
		"cls_rbd_parent": unhex(t, objects[HeaderObject(clone3ID)].Omap["parent"]),
	}
	for name, b := range samples {
		for n := range b {
			_, err := records[name](b[:n])
			var corrupt *encoding.CorruptError
			if !errors.As(err, &corrupt) {
				t.Fatalf("%s cut to %d of %d bytes: %v", name, n, len(b), err)
			}
		}
	}
}

// TestLegacySnapshot reads a record in the form before Nautilus, with its parent.
func TestLegacySnapshot(t *testing.T) {
	overlap := uint64(77)
	want := HeaderSnapshot{ID: 3, Name: "old", ImageSize: 5, Protection: Unprotecting, Flags: FlagFastDiffInvalid,
		Namespace: GroupSnapshot{Pool: 2, GroupID: "g", SnapshotID: "s"}, ChildCount: 4,
		LegacyParent: &HeaderParent{Spec: ParentSpec{Pool: 1, ImageID: "p", Snap: 9}, HeadOverlap: &overlap}}
	var e encoding.Encoder
	e.Struct(8, 1, func(e *encoding.Encoder) {
		e.U64(3)
		e.String("old")
		e.U64(5)
		e.U64(61) // features
		e.Struct(1, 1, func(e *encoding.Encoder) {
			e.I64(1)
			e.String("p")
			e.U64(9)
			e.U64(overlap)
		})
		e.U8(uint8(Unprotecting))
		e.U64(uint64(FlagFastDiffInvalid))
		EncodeSnapshotNamespace(e, want.Namespace)
		e.Time(time.Time{})
		e.U32(4)
		e.Bool(false)
	})
	got, err := DecodeHeaderSnapshot(e.Bytes())
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v; -want +got\n%s", err, d)
	}
}

// TestUnknownNamespaceKeepsItsBytes: a kind of a newer release survives.
func TestUnknownNamespaceKeepsItsBytes(t *testing.T) {
	var e encoding.Encoder
	e.Struct(1, 1, func(e *encoding.Encoder) {
		e.U32(99)
		e.Raw([]byte("new"))
	})
	ns, err := DecodeSnapshotNamespace(e.Bytes())
	if d := cmp.Diff(SnapshotNamespace(UnknownSnapshot{Type: 99, Raw: []byte("new")}), ns); d != "" || err != nil {
		t.Fatalf("%v; -want +got\n%s", err, d)
	}
	var again encoding.Encoder
	EncodeSnapshotNamespace(&again, ns)
	if !bytes.Equal(again.Bytes(), e.Bytes()) {
		t.Errorf("encodes to %x, not %x", again.Bytes(), e.Bytes())
	}
}
