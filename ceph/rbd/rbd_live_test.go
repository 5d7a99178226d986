//go:build live

package rbd_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/librados"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// pool makes a pool of the test's own.
func pool(t *testing.T) (*lab.Cluster, rados.IOContext) {
	t.Helper()
	cluster := harness.SharedPair(t).Secondary
	name := strings.ToLower(t.Name())
	if err := cluster.CreatePool(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	conn, err := librados.Connect(t.Context(), librados.Config{ConfFile: cluster.Conf()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	if err := conn.WaitForLatestMap(t.Context()); err != nil {
		t.Fatal(err)
	}
	io, err := conn.Open(t.Context(), name, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(io.Close)
	return cluster, io
}

// show reads a command's JSON.
func show[T any](t *testing.T, c *lab.Cluster, args ...string) (v T) {
	t.Helper()
	out := harness.Run(t, c, "rbd", append(args, "--format", "json")...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("rbd %v: %v\n%s", args, err, out)
	}
	return v
}

func tell(t *testing.T, io rados.IOContext, object string, op *rados.WriteOp) {
	t.Helper()
	if err := io.Write(t.Context(), object, op); err != nil {
		t.Fatal(err)
	}
}

func ask[R any](t *testing.T, io rados.IOContext, object string, q class.Query[R]) R {
	t.Helper()
	r, err := rados.Ask(t.Context(), io, object, q)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func header(t *testing.T, io rados.IOContext, id string) rbd.Header {
	t.Helper()
	var op rados.ReadOp
	var steps []*rados.ReadStep
	for _, c := range rbd.HeaderCalls(false) {
		steps = append(steps, op.Exec(c))
	}
	if err := io.Read(t.Context(), rbd.HeaderObject(id), &op); err != nil {
		t.Fatal(err)
	}
	var replies [][]byte
	for _, s := range steps {
		replies = append(replies, s.Data)
	}
	h, err := rbd.DecodeHeader(replies)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

type info struct {
	ID          string
	Size        uint64
	Objects     uint64
	Order       uint8
	SnapCount   int    `json:"snapshot_count"`
	Prefix      string `json:"block_name_prefix"`
	DataPool    string `json:"data_pool"`
	Features    []string
	OpFeatures  []string `json:"op_features"`
	Flags       []string
	Created     string `json:"create_timestamp"`
	StripeUnit  uint64 `json:"stripe_unit"`
	StripeCount uint64 `json:"stripe_count"`
	Parent      *struct{ Image, Snapshot string }
}

// TestLiveHeadersAreRead compares headers of rbd's images with what rbd says of them.
func TestLiveHeadersAreRead(t *testing.T) {
	cluster, io := pool(t)
	p := io.Pool().Name
	run := func(args ...string) { t.Helper(); harness.Run(t, cluster, "rbd", args...) }
	run("create", p+"/plain", "--size", "9M", "--object-size", "1M", "--image-feature", "layering")
	run("create", p+"/striped", "--size", "64M", "--stripe-unit", "64K", "--stripe-count", "4")
	run("create", p+"/full", "--size", "100M", "--image-feature", "layering,exclusive-lock,object-map,fast-diff,deep-flatten,journaling")
	run("create", p+"/split", "--size", "8M", "--data-pool", p)
	run("snap", "create", p+"/full@one")
	run("snap", "create", p+"/full@two")
	run("snap", "protect", p+"/full@one")
	run("clone", "--rbd-default-clone-format", "2", p+"/full@two", p+"/clone")
	run("clone", "--rbd-default-clone-format", "1", p+"/full@one", p+"/old-clone")
	run("snap", "rm", p+"/full@two") // to the trash of snapshots

	names := ask(t, io, rbd.DirectoryObject, rbd.DirList("", 100))
	if len(names) != 6 {
		t.Errorf("images: %v", names)
	}
	for name, id := range names {
		want := show[info](t, cluster, "info", p+"/"+name)
		h := header(t, io, id)
		if id != want.ID || ask(t, io, rbd.IDObject(name), rbd.GetID()) != id || ask(t, io, rbd.DirectoryObject, rbd.DirGetID(name)) != id ||
			ask(t, io, rbd.DirectoryObject, rbd.DirGetName(id)) != name {
			t.Errorf("%s: id %s, want %s", name, id, want.ID)
		}
		if h.Size != want.Size || h.Order != want.Order || h.ObjectPrefix != want.Prefix || len(h.SnapContext.Snaps) != want.SnapCount ||
			h.Features.String() != strings.Join(want.Features, ", ") || h.OpFeatures.String() != strings.Join(want.OpFeatures, ", ") ||
			h.Flags.String() != strings.Join(want.Flags, ", ") || h.Created.UTC().Format(time.ANSIC) != want.Created && h.Created.Local().Format(time.ANSIC) != want.Created {
			t.Errorf("%s: %+v,\nwant %+v", name, h, want)
		}
		if (h.DataPool != rbd.NoDataPool) != (want.DataPool != "") || h.Parent.Exists() != (want.Parent != nil) || (h.ParentOverlap != nil) != (want.Parent != nil) {
			t.Errorf("%s: %+v,\nwant %+v", name, h, want)
		}
		var s rbd.Striping
		if h.Features.Has(rbd.FeatureStriping) {
			s = ask(t, io, rbd.HeaderObject(id), rbd.GetStriping())
		} else if _, err := rados.Ask(t.Context(), io, rbd.HeaderObject(id), rbd.GetStriping()); !errors.Is(err, syscall.ENOEXEC) {
			t.Errorf("%s: striping: %v", name, err)
		}
		if s.Unit != want.StripeUnit || s.Count != want.StripeCount || rbd.StripedObjects(h.Size, h.ObjectSize(), s) != want.Objects {
			t.Errorf("%s: %+v, %d objects, want %+v", name, s, rbd.StripedObjects(h.Size, h.ObjectSize(), s), want)
		}
		if h.Features.Has(rbd.FeatureObjectMap) {
			m := ask(t, io, rbd.ObjectMapObject(id, ceph.NoSnap), rbd.ObjectMapLoad())
			if m.Size() != want.Objects {
				t.Errorf("%s: an object map of %d objects, want %d", name, m.Size(), want.Objects)
			}
		}
	}

	full := rbd.HeaderObject(names["full"])
	h := header(t, io, names["full"])
	one, two := h.SnapContext.Snaps[1], h.SnapContext.Snaps[0]
	if s := ask(t, io, full, rbd.SnapshotGet(one)); s.Name != "one" || s.Namespace != (rbd.UserSnapshot{}) || s.ImageSize != 100<<20 ||
		ask(t, io, full, rbd.SnapshotName(one)) != "one" || !ask(t, io, full, rbd.SnapshotTimestamp(one)).Equal(s.Timestamp) ||
		ask(t, io, full, rbd.GetProtection(one)) != rbd.Protected || ask(t, io, full, rbd.GetFlags(one)) != 0 || ask(t, io, full, rbd.GetSize(one)).Bytes != 100<<20 {
		t.Errorf("%+v", s)
	}
	if s := ask(t, io, full, rbd.SnapshotGet(two)); s.Namespace != (rbd.TrashSnapshot{OriginalName: "two"}) || s.ChildCount != 1 {
		t.Errorf("%+v", s)
	}
	clone := rbd.ChildSpec{Pool: io.Pool().ID, ImageID: names["clone"]}
	if c := ask(t, io, full, rbd.ChildrenList(two)); !slices.Equal(c, []rbd.ChildSpec{clone}) {
		t.Errorf("children %+v, want %+v", c, clone)
	}
	parent := rbd.ParentSpec{Pool: io.Pool().ID, ImageID: names["full"], Snap: one}
	if c := ask(t, io, rbd.ChildrenObject, rbd.GetChildren(parent)); !slices.Equal(c, []string{names["old-clone"]}) {
		t.Errorf("old children %v, want %s", c, names["old-clone"])
	}
	if got := ask(t, io, rbd.HeaderObject(names["old-clone"]), rbd.GetParent(ceph.NoSnap)); got.Spec != parent || got.Overlap != 100<<20 {
		t.Errorf("%+v, want %+v", got, parent)
	}
	if _, err := rados.Ask(t.Context(), io, full, rbd.SnapshotGet(two+50)); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("a snapshot that does not exist: %v", err)
	}
}

// TestLiveImageByCalls makes an image with our calls alone; rbd must find it whole, and
// find each change in it.
func TestLiveImageByCalls(t *testing.T) {
	cluster, io := pool(t)
	ctx := t.Context()
	const id, name, size = "5ca1ab1e0001", "handmade", 10<<20 + 5
	spec := io.Pool().Name + "/" + name
	features := rbd.FeatureLayering | rbd.FeatureExclusiveLock | rbd.FeatureObjectMap | rbd.FeatureFastDiff
	head := rbd.HeaderObject(id)

	tell(t, io, rbd.IDObject(name), new(rados.WriteOp).Create(true).Exec(rbd.SetID(id)))
	if err := rados.Tell(ctx, io, rbd.IDObject(name), rbd.SetID("other")); !errors.Is(err, syscall.EEXIST) {
		t.Errorf("a second id: %v", err)
	}
	tell(t, io, rbd.DirectoryObject, new(rados.WriteOp).Exec(rbd.DirAddImage(name, id)))
	if err := rados.Tell(ctx, io, rbd.DirectoryObject, rbd.DirAddImage(name, "other")); !errors.Is(err, syscall.EEXIST) {
		t.Errorf("a second image of the name: %v", err)
	}
	tell(t, io, head, new(rados.WriteOp).Create(true).
		Exec(rbd.Create(size, 22, features, rbd.ObjectPrefix(id, rbd.NoDataPool), rbd.NoDataPool)))
	tell(t, io, rbd.ObjectMapObject(id, ceph.NoSnap), new(rados.WriteOp).Exec(rbd.ObjectMapResize(3, rbd.ObjectNonexistent)))
	if got := show[info](t, cluster, "info", spec); got.ID != id || got.Size != size || got.Objects != 3 || strings.Join(got.Features, ", ") != features.String() {
		t.Fatalf("%+v", got)
	}

	// One data object, its map entry, and a snapshot.
	tell(t, io, rbd.DataObject(rbd.ObjectPrefix(id, rbd.NoDataPool), 1), new(rados.WriteOp).Write(0, []byte("hello")))
	nonexistent := rbd.ObjectNonexistent
	tell(t, io, rbd.ObjectMapObject(id, ceph.NoSnap), new(rados.WriteOp).Exec(rbd.ObjectMapUpdate(1, 2, rbd.ObjectExists, &nonexistent)))
	harness.Run(t, cluster, "rbd", "object-map", "check", spec)
	snap, err := io.CreateSnapID(ctx)
	if err != nil {
		t.Fatal(err)
	}
	m := ask(t, io, rbd.ObjectMapObject(id, ceph.NoSnap), rbd.ObjectMapLoad())
	if m.At(0) != rbd.ObjectNonexistent || m.At(1) != rbd.ObjectExists || m.Size() != 3 {
		t.Errorf("map %v %v of %d", m.At(0), m.At(1), m.Size())
	}
	tell(t, io, rbd.ObjectMapObject(id, snap), new(rados.WriteOp).Exec(rbd.ObjectMapSave(m)))
	tell(t, io, rbd.ObjectMapObject(id, ceph.NoSnap), new(rados.WriteOp).Exec(rbd.ObjectMapSnapAdd()))
	tell(t, io, head, new(rados.WriteOp).Exec(rbd.SnapshotAdd(snap, "first", rbd.UserSnapshot{})))
	if err := rados.Tell(ctx, io, head, rbd.SnapshotAdd(snap-1, "late", rbd.UserSnapshot{})); !errors.Is(err, syscall.ESTALE) {
		t.Errorf("an old snapshot id: %v", err)
	}
	if after := ask(t, io, rbd.ObjectMapObject(id, ceph.NoSnap), rbd.ObjectMapLoad()); after.At(1) != rbd.ObjectExistsClean {
		t.Errorf("after the snapshot: %v", after.At(1))
	}
	// The stored bytes are the same as ours, checksums and all.
	var op rados.ReadOp
	stored := op.Read(0, 1<<20)
	if err := io.Read(ctx, rbd.ObjectMapObject(id, snap), &op); err != nil {
		t.Fatal(err)
	}
	if again, err := rbd.DecodeObjectMap(stored.Data); err != nil || again.At(1) != rbd.ObjectExists {
		t.Errorf("%v, %x", err, stored.Data)
	}
	harness.Run(t, cluster, "rbd", "object-map", "check", spec+"@first")
	m.SnapAdd()
	m.SnapRemove(m.Clone())

	tell(t, io, head, new(rados.WriteOp).Exec(rbd.SnapshotRename(snap, "renamed")))
	tell(t, io, head, new(rados.WriteOp).Exec(rbd.SetProtection(snap, rbd.Protected)))
	type snapshot struct {
		ID        uint64
		Name      string
		Protected string
	}
	if got := show[[]snapshot](t, cluster, "snap", "ls", spec); !slices.Equal(got, []snapshot{{uint64(snap), "renamed", "true"}}) {
		t.Errorf("%+v", got)
	}
	if err := rados.Tell(ctx, io, head, rbd.SnapshotRemove(snap)); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("removing a protected snapshot: %v", err)
	}
	// The second call does not see what the first has changed: see the package's doc.
	if err := rados.Tell(ctx, io, head, rbd.SetProtection(snap, rbd.Unprotected), rbd.SnapshotRemove(snap)); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("unprotecting and removing in one operation: %v", err)
	}
	tell(t, io, head, new(rados.WriteOp).Exec(rbd.SetProtection(snap, rbd.Unprotected)))
	tell(t, io, head, new(rados.WriteOp).Exec(rbd.SnapshotRemove(snap)))
	if got := show[[]snapshot](t, cluster, "snap", "ls", spec); len(got) != 0 {
		t.Errorf("%+v", got)
	}

	// Sizes, flags, metadata, limit, features, times.
	tell(t, io, head, new(rados.WriteOp).Exec(rbd.SetSize(4<<20)).Exec(rbd.SetFlags(ceph.NoSnap, rbd.FlagObjectMapInvalid, rbd.FlagObjectMapInvalid)).
		Exec(rbd.MetadataSet(map[string][]byte{"owner": []byte("alice"), "x": nil})).Exec(rbd.MetadataRemove("x")).
		Exec(rbd.SnapshotSetLimit(9)).Exec(rbd.SetFeatures(0, rbd.FeatureFastDiff)).Exec(rbd.SetModifyTimestamp()))
	got := show[info](t, cluster, "info", spec)
	if got.Size != 4<<20 || !slices.Equal(got.Flags, []string{"object map invalid"}) || slices.Contains(got.Features, "fast-diff") {
		t.Errorf("%+v", got)
	}
	if meta := show[map[string]string](t, cluster, "image-meta", "ls", spec); len(meta) != 1 || meta["owner"] != "alice" ||
		ask(t, io, head, rbd.MetadataGet("owner")) != "alice" || string(ask(t, io, head, rbd.MetadataList("", 5))["owner"]) != "alice" {
		t.Errorf("%v", meta)
	}
	if limit := ask(t, io, head, rbd.SnapshotGetLimit()); limit != 9 {
		t.Errorf("limit %d", limit)
	}

	// Renamed, to the trash and back by rbd.
	tell(t, io, rbd.IDObject("other"), new(rados.WriteOp).Create(true).Exec(rbd.SetID(id)))
	tell(t, io, rbd.DirectoryObject, new(rados.WriteOp).Exec(rbd.DirRenameImage(name, "other", id)))
	tell(t, io, rbd.IDObject(name), new(rados.WriteOp).Remove())
	trash := rbd.TrashSpec{Source: rbd.TrashMirroring, Name: "other", DeletionTime: time.Unix(1700000000, 0), DefermentEnds: time.Unix(1700000001, 0)}
	tell(t, io, rbd.TrashObject, new(rados.WriteOp).Create(false).Exec(rbd.TrashAdd(id, trash)))
	tell(t, io, rbd.IDObject("other"), new(rados.WriteOp).Remove())
	tell(t, io, rbd.DirectoryObject, new(rados.WriteOp).Exec(rbd.DirRemoveImage("other", id)))
	type trashed struct{ ID, Name, Source string }
	if got := show[[]trashed](t, cluster, "trash", "ls", "--all", io.Pool().Name); len(got) != 1 || got[0].ID != id || got[0].Name != "other" {
		t.Errorf("%+v", got)
	}
	if got := ask(t, io, rbd.TrashObject, rbd.TrashGet(id)); got != trash {
		t.Errorf("%+v", got)
	}
	tell(t, io, rbd.TrashObject, new(rados.WriteOp).Exec(rbd.TrashStateSet(id, rbd.TrashRestoring, rbd.TrashNormal)))
	if err := rados.Tell(ctx, io, rbd.TrashObject, rbd.TrashStateSet(id, rbd.TrashBeingGone, rbd.TrashNormal)); !errors.Is(err, syscall.ESTALE) {
		t.Errorf("a state that is not expected: %v", err)
	}
	tell(t, io, rbd.TrashObject, new(rados.WriteOp).Exec(rbd.TrashStateSet(id, rbd.TrashNormal, rbd.TrashRestoring)))
	harness.Run(t, cluster, "rbd", "trash", "restore", "--pool", io.Pool().Name, id)
	if list := ask(t, io, rbd.TrashObject, rbd.TrashList("", 5)); len(list) != 0 {
		t.Errorf("%v", list)
	}
	if err := fmt.Sprint(show[[]string](t, cluster, "ls", io.Pool().Name)); err != "[other]" {
		t.Error(err)
	}
}

// TestLiveNamespacesAndStates covers namespaces, directory states and the assertion on
// data objects.
func TestLiveNamespacesAndStates(t *testing.T) {
	cluster, io := pool(t)
	ctx := t.Context()
	p := io.Pool().Name
	if _, err := rados.Ask(ctx, io, rbd.NamespaceObject, rbd.NamespaceList("", 5)); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("namespaces of a new pool: %v", err)
	}
	harness.Run(t, cluster, "rbd", "namespace", "create", p+"/a")
	tell(t, io, rbd.NamespaceObject, new(rados.WriteOp).Exec(rbd.NamespaceAdd("b")))
	if names := ask(t, io, rbd.NamespaceObject, rbd.NamespaceList("", 5)); !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("%v", names)
	}
	tell(t, io, rbd.NamespaceObject, new(rados.WriteOp).Exec(rbd.NamespaceRemove("b")))

	inner, err := io.Cluster().Open(ctx, p, "a")
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	tell(t, inner, rbd.DirectoryObject, new(rados.WriteOp).Exec(rbd.DirStateAssert(rbd.DirectoryReady)))
	tell(t, inner, rbd.DirectoryObject, new(rados.WriteOp).Exec(rbd.DirStateSet(rbd.DirectoryAddDisabled)))
	if err := rados.Tell(ctx, inner, rbd.DirectoryObject, rbd.DirStateAssert(rbd.DirectoryReady)); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("%v", err)
	}

	snap, err := io.CreateSnapID(ctx)
	if err != nil {
		t.Fatal(err)
	}
	object := rbd.DataObject("rbd_data.x", 0)
	op := new(rados.WriteOp).Write(0, []byte("x"))
	op.SnapContext = ceph.SnapContext{Seq: snap, Snaps: []ceph.SnapID{snap}}
	tell(t, io, object, op)
	if err := rados.Tell(ctx, io, object, rbd.AssertSnapSeq(snap, rbd.SnapSeqAbove)); !errors.Is(err, syscall.ERANGE) {
		t.Errorf("%v", err)
	}
	tell(t, io, object, new(rados.WriteOp).Exec(rbd.AssertSnapSeq(snap, rbd.SnapSeqNotAbove)).Exec(rbd.CopyUp([]byte("parent"))))
	tell(t, io, rbd.DataObject("rbd_data.x", 1), new(rados.WriteOp).Exec(rbd.AssertSnapSeq(snap, rbd.SnapSeqAbove)).Exec(rbd.CopyUp([]byte("parent"))))
	tell(t, io, rbd.DataObject("rbd_data.x", 2), new(rados.WriteOp).Exec(rbd.SparseCopyUp(map[uint64]uint64{2: 2, 6: 1}, []byte("abc"))))
	for i, want := range []string{"x", "parent", "\x00\x00ab\x00\x00c"} {
		var read rados.ReadOp
		data := read.Read(0, 100)
		if err := io.Read(ctx, rbd.DataObject("rbd_data.x", uint64(i)), &read); err != nil || string(data.Data) != want {
			t.Errorf("object %d: %q, %v", i, data.Data, err)
		}
	}
}
