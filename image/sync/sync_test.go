package imagesync

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/semaphore"
	"pgregory.net/rapid"

	"github.com/rbdwarden/rbdwarden/ceph"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/rados"
)

func snapshot(id ceph.SnapID, name string, change ...func(*image.Snapshot)) image.Snapshot {
	s := image.Snapshot{SnapshotInfo: rbd.SnapshotInfo{ID: id, Name: name, ImageSize: uint64(id) << 20, Namespace: rbd.UserSnapshot{}}, Protection: rbd.Unprotected}
	for _, f := range change {
		f(&s)
	}
	return s
}

func protected(s *image.Snapshot) { s.Protection = rbd.Protected }
func inTrash(s *image.Snapshot)   { s.Namespace = rbd.TrashSnapshot{OriginalName: s.Name} }
func mirrored(s *image.Snapshot)  { s.Namespace = rbd.MirrorSnapshot{} }

func TestPlanSnapshots(t *testing.T) {
	remote := []image.Snapshot{
		snapshot(1, "a"), snapshot(2, "b", protected), snapshot(3, "m", mirrored), snapshot(4, "c", protected), snapshot(5, "sync"), snapshot(6, "later"),
	}
	local := []image.Snapshot{
		snapshot(10, "unknown", protected), snapshot(11, "a", protected), snapshot(12, "old b"), snapshot(13, "lost", protected), snapshot(14, "trash", inTrash),
	}
	seqs := map[ceph.SnapID]ceph.SnapID{1: 11, 2: 12, 9: 13}
	got := planSnapshots(remote, local, seqs, 5)
	want := []snapshotChange{
		{kind: unprotectSnapshot, name: "unknown"}, {kind: unprotectSnapshot, name: "a"}, {kind: unprotectSnapshot, name: "lost"},
		{kind: removeSnapshot, name: "unknown"}, {kind: removeSnapshot, name: "lost"},
		{kind: renameSnapshot, name: "old b", to: "b"},
		{kind: createSnapshot, name: "c", remote: 4, size: 4 << 20}, {kind: createSnapshot, name: "sync", remote: 5, size: 5 << 20},
		{kind: protectSnapshot, name: "b"}, {kind: protectSnapshot, name: "c"},
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(snapshotChange{})); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

// A copy that goes on at its sync point leaves to the journal what was removed and renamed
// since: the events behind the sync point may name it.
func TestPlanSnapshotsOfAResumedCopy(t *testing.T) {
	remote := []image.Snapshot{snapshot(1, "a"), snapshot(2, "b", protected), snapshot(3, "c", inTrash), snapshot(5, "sync")}
	local := []image.Snapshot{
		snapshot(11, "a"), snapshot(12, "old b"), snapshot(13, "c"), snapshot(14, "lost", protected), snapshot(15, "sync"),
	}
	got := planSnapshots(remote, local, map[ceph.SnapID]ceph.SnapID{1: 11, 2: 12, 3: 13, 4: 14, 5: 15}, 5)
	want := []snapshotChange{{kind: unprotectSnapshot, name: "lost"}, {kind: protectSnapshot, name: "old b"}}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(snapshotChange{})); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

// Whatever names have changed places: each rename finds its old name taken, and its new one free.
func TestPlanRenames(t *testing.T) {
	letters := []string{"a", "b", "c", "d", "e", "f", ".rbd-mirror.aside.a", ".rbd-mirror.aside.b", ".rbd-mirror.aside.e"}
	rapid.Check(t, func(t *rapid.T) {
		from, to := rapid.Permutation(letters).Draw(t, "from"), rapid.Permutation(letters).Draw(t, "to")
		names, have, want := map[string]string{}, map[string]int{}, map[string]int{}
		for i := range rapid.IntRange(0, len(letters)).Draw(t, "n") {
			names[from[i]], have[from[i]], want[to[i]] = to[i], i, i
		}
		for _, c := range planRenames(names) {
			id, there := have[c.name]
			if _, taken := have[c.to]; !there || taken || c.kind != renameSnapshot {
				t.Fatalf("%+v with the names %v", c, have)
			}
			delete(have, c.name)
			have[c.to] = id
		}
		if d := cmp.Diff(want, have); d != "" {
			t.Fatalf("-want +got\n%s", d)
		}
	})
}

func attached(s *image.Snapshot) { s.Attached, s.Overlap = true, s.ImageSize }

// A flatten between two sync points makes older snapshots of the copy useless; one after
// the sync point does not.
func TestPlanSnapshotsOfClones(t *testing.T) {
	share := func(id ceph.SnapID) image.Sharing { return image.Sharing{Attached: true, Overlap: uint64(id) << 20} }
	for _, tc := range []struct {
		name          string
		remote, local []image.Snapshot
		seqs          map[ceph.SnapID]ceph.SnapID
		want          []snapshotChange
	}{
		{
			"new", []image.Snapshot{snapshot(1, "a", attached), snapshot(5, "sync")}, nil, nil,
			[]snapshotChange{
				{kind: createSnapshot, name: "a", remote: 1, size: 1 << 20, share: share(1)}, {kind: createSnapshot, name: "sync", remote: 5, size: 5 << 20},
			},
		},
		{
			"not flattened, new sync point", []image.Snapshot{snapshot(1, "a", attached), snapshot(5, "sync", attached)},
			[]image.Snapshot{snapshot(10, "a", attached), snapshot(11, "old sync", attached)}, map[ceph.SnapID]ceph.SnapID{1: 10, 4: 11},
			[]snapshotChange{
				{kind: removeSnapshot, name: "old sync"}, {kind: createSnapshot, name: "sync", remote: 5, size: 5 << 20, share: share(5)},
			},
		},
		{
			"flattened, new sync point", []image.Snapshot{snapshot(1, "a", protected), snapshot(5, "sync")},
			[]image.Snapshot{snapshot(10, "a", attached, protected), snapshot(11, "old sync", attached)}, map[ceph.SnapID]ceph.SnapID{1: 10, 4: 11},
			[]snapshotChange{
				{kind: unprotectSnapshot, name: "a"}, {kind: removeSnapshot, name: "a"}, {kind: removeSnapshot, name: "old sync"},
				{kind: createSnapshot, name: "a", remote: 1, size: 1 << 20}, {kind: createSnapshot, name: "sync", remote: 5, size: 5 << 20},
				{kind: protectSnapshot, name: "a"},
			},
		},
		{
			"flattened after the sync point", []image.Snapshot{snapshot(1, "a"), snapshot(5, "sync")},
			[]image.Snapshot{snapshot(10, "a", attached), snapshot(11, "sync", attached)}, map[ceph.SnapID]ceph.SnapID{1: 10, 5: 11}, nil,
		},
	} {
		got := planSnapshots(tc.remote, tc.local, tc.seqs, 5)
		if d := cmp.Diff(tc.want, got, cmp.AllowUnexported(snapshotChange{})); d != "" {
			t.Errorf("%s: -want +got\n%s", tc.name, d)
		}
	}
}

func TestPlanVersions(t *testing.T) {
	remote := &image.Header{
		Layout: image.Layout{Order: 20},
		Snapshots: []image.Snapshot{
			snapshot(1, "a"), snapshot(3, "c", inTrash), snapshot(4, "cloned", inTrash, func(s *image.Snapshot) { s.ChildCount = 1 }),
			snapshot(5, "sync"), snapshot(6, "later"),
		},
	}
	local := []image.Snapshot{snapshot(10, "a"), snapshot(11, "other", mirrored), snapshot(12, "b"), snapshot(13, "c"), snapshot(14, "cloned"), snapshot(15, "sync"), snapshot(16, "later")}
	seqs := map[uint64]uint64{1: 10, 2: 12, 3: 13, 4: 14, 5: 15, 6: 16, 7: 99}
	got := planVersions(remote, local, seqs, 5)
	older := func(ids ...ceph.SnapID) ceph.SnapContext {
		if len(ids) == 0 {
			return ceph.SnapContext{}
		}
		return ceph.SnapContext{Seq: ids[0], Snaps: ids}
	}
	want := []version{
		{remote: 1, local: 10, objects: 10, context: older()},
		{remote: 2, local: 12, objects: 12, context: older(11, 10), gone: true},
		{remote: 3, local: 13, objects: 13, context: older(12, 11, 10), gone: true},
		{remote: 4, local: 14, objects: 14, context: older(13, 12, 11, 10)},
		{remote: 5, local: 15, objects: 15, context: older(14, 13, 12, 11, 10)},
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(version{})); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func TestUnusableSyncPoints(t *testing.T) {
	point := func(name, from string) wire.SyncPoint { return wire.SyncPoint{SnapName: name, FromSnapName: from} }
	for _, tc := range []struct {
		name   string
		points []wire.SyncPoint
		there  []string
		remove []string
		keep   int
	}{
		{"good", []wire.SyncPoint{point("a", "")}, []string{"a"}, nil, 1},
		{"gone", []wire.SyncPoint{point("a", "")}, nil, []string{"a"}, 0},
		{"second of a restart", []wire.SyncPoint{point("a", ""), point("b", "a")}, []string{"a", "b"}, []string{"b"}, 1},
		{"both lost with the first", []wire.SyncPoint{point("a", ""), point("b", "a")}, []string{"b"}, []string{"a", "b"}, 0},
		{"first goes on from another", []wire.SyncPoint{point("b", "a")}, []string{"a", "b"}, []string{"b", "a"}, 0},
	} {
		remove, keep := unusable(tc.points, func(name string) bool { return slices.Contains(tc.there, name) })
		if !slices.Equal(remove, tc.remove) || len(keep) != tc.keep {
			t.Errorf("%s: remove %q, keep %v; want %q, %d", tc.name, remove, keep, tc.remove, tc.keep)
		}
	}
}

func TestSyncPointName(t *testing.T) {
	a, b := newSyncPointName("m"), newSyncPointName("m")
	want := regexp.MustCompile(`^\.rbd-mirror\.m\.[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	if !want.MatchString(a) || a == b {
		t.Errorf("%q and %q", a, b)
	}
}

func TestPiecesRefuseWhatDoesNotFit(t *testing.T) {
	extent := func(at, n uint64) rados.Extent { return rados.Extent{Offset: at, Length: n} }
	for name, r := range map[string]rados.ReadStep{
		"short":            {Offset: 0, Length: 100, Extents: []rados.Extent{extent(0, 10)}, Data: make([]byte, 9)},
		"long":             {Offset: 0, Length: 100, Extents: []rados.Extent{extent(0, 10)}, Data: make([]byte, 11)},
		"before":           {Offset: 50, Length: 100, Extents: []rados.Extent{extent(49, 1)}, Data: make([]byte, 1)},
		"behind":           {Offset: 0, Length: 100, Extents: []rados.Extent{extent(95, 6)}, Data: make([]byte, 6)},
		"beyond":           {Offset: 0, Length: 100, Extents: []rados.Extent{extent(200, 0)}},
		"backwards":        {Offset: 0, Length: 100, Extents: []rados.Extent{extent(50, 2), extent(51, 1)}, Data: make([]byte, 3)},
		"length overflows": {Offset: 0, Length: 100, Extents: []rados.Extent{extent(50, ^uint64(0))}, Data: make([]byte, 3)},
	} {
		var short *ShortReadError
		if p, err := (step{}).pieces([]*rados.ReadStep{&r}); !errors.As(err, &short) || !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: %v, %v", name, p, err)
		}
	}
}

func TestExtentSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var set extentSet
		model := make([]bool, 64)
		for range rapid.IntRange(0, 12).Draw(t, "steps") {
			e := rados.Extent{Offset: rapid.Uint64Range(0, 50).Draw(t, "offset"), Length: rapid.Uint64Range(0, 13).Draw(t, "length")}
			add := rapid.Bool().Draw(t, "add")
			if add {
				set = set.add(e)
			} else {
				set = set.remove(e)
			}
			for i := e.Offset; i < end(e); i++ {
				model[i] = add
			}
		}
		limit := rapid.Uint64Range(0, 64).Draw(t, "limit")
		for i := limit; i < 64; i++ {
			model[i] = false
		}
		set = set.clip(limit)
		got := make([]bool, 64)
		last := uint64(0)
		for i, e := range set {
			if e.Length == 0 || i > 0 && e.Offset <= last {
				t.Fatalf("%v is not in order", set)
			}
			last = end(e)
			for k := e.Offset; k < last; k++ {
				got[k] = true
			}
		}
		if !slices.Equal(got, model) {
			t.Fatalf("%v is not %v", set, model)
		}
	})
}

func TestPrefix(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := prefix{next: 3}
		done := map[uint64]bool{}
		for _, n := range rapid.Permutation([]uint64{3, 4, 5, 6, 7, 8, 9}).Draw(t, "order") {
			p.add(n)
			done[n] = true
			want := uint64(3)
			for done[want] {
				want++
			}
			if p.next != want || p.count != uint64(len(done)) {
				t.Fatalf("after %v: next %d, count %d", done, p.next, p.count)
			}
		}
		if len(p.ahead) != 0 {
			t.Fatalf("keeps %v", p.ahead)
		}
	})
}

// stub is a local image of one object; the other methods are not called.
type stub struct {
	Local
	mu     sync.Mutex
	object *modelObject
	states []string
	header image.Header
}

func (s *stub) Header() *image.Header { return &s.header }

func (s *stub) WriteObject(_ context.Context, _ image.ObjectNumber, op *rados.WriteOp) error {
	return s.object.write(op)
}

func (s *stub) SetObjectMapState(_ context.Context, snap ceph.SnapID, start, end image.ObjectNumber, state rbd.ObjectState) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := start; n < end; n++ {
		s.states = append(s.states, strings.Join([]string{name(snap), string(rune('0' + n)), state.String()}, " "))
	}
	return nil
}

func name(snap ceph.SnapID) string {
	if snap == ceph.NoSnap {
		return "head"
	}
	return string(rune('a' + snap))
}

// racing removes snapshots between the look at an object's history and the read.
type racing struct {
	modelIO
	between func()
}

func (r racing) Read(ctx context.Context, object string, op *rados.ReadOp) error {
	if op.Steps[0].Kind == rados.ReadSparse {
		r.between()
	}
	return r.modelIO.Read(ctx, object, op)
}

func copierOf(remote rados.IOContext, local *stub, versions []version) *copier {
	c := &copier{
		transfer: &transfer{remote: &image.Header{Layout: image.Layout{Order: 16}}, data: remote},
		versions: versions, total: 1, fresh: true, bytes: semaphore.NewWeighted(1 << 20),
	}
	c.Local = local
	c.Limits = Limits{}.withDefaults()
	return c
}

func TestSnapshotRemovedWhileItIsRead(t *testing.T) {
	remote, local := &modelObject{}, &stub{object: &modelObject{}}
	write := func(seq ceph.SnapID, snaps []ceph.SnapID, b byte) {
		op := &rados.WriteOp{SnapContext: ceph.SnapContext{Seq: seq, Snaps: snaps}}
		if err := remote.write(op.Write(0, []byte{b, b, b})); err != nil {
			t.Fatal(err)
		}
	}
	write(0, nil, 'a')
	write(1, []ceph.SnapID{1}, 'b')
	write(2, []ceph.SnapID{2, 1}, 'c')
	versions := []version{
		{remote: 1, local: 11, objects: 1},
		{remote: 2, local: 12, objects: 1, context: ceph.SnapContext{Seq: 11, Snaps: []ceph.SnapID{11}}},
		{remote: 3, local: 13, objects: 1, context: ceph.SnapContext{Seq: 12, Snaps: []ceph.SnapID{12, 11}}},
	}
	removed := false
	io := racing{modelIO{object: remote, holes: zeroBlock}, func() {
		if !removed {
			removed = true
			remote.trim(1)
		}
	}}
	if err := copierOf(io, local, versions).object(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if data, _ := local.object.at(13); string(data) != "ccc" || string(local.object.head) != "ccc" {
		t.Errorf("the newest state is %q, the head %q", data, local.object.head)
	}
	if data, _ := local.object.at(12); string(data) != "bbb" {
		t.Errorf("the state before is %q", data)
	}
}

func TestListedButNotThere(t *testing.T) {
	remote := &modelObject{}
	_ = remote.write(new(rados.WriteOp).Write(0, []byte("abc")))
	io := missing{modelIO{object: remote, holes: zeroBlock}}
	err := copierOf(io, &stub{object: &modelObject{}}, []version{{remote: 3, local: 13, objects: 1}}).object(t.Context(), 0)
	var vanished *VanishedError
	if !errors.As(err, &vanished) || vanished.Snap != 3 {
		t.Errorf("error %v", err)
	}
}

// missing lists an object that cannot be read.
type missing struct{ modelIO }

func (m missing) Read(ctx context.Context, object string, op *rados.ReadOp) error {
	if op.Steps[0].Kind == rados.ReadSparse {
		return syscall.ENOENT
	}
	return m.modelIO.Read(ctx, object, op)
}

func TestLocalMaps(t *testing.T) {
	h := &image.Header{Features: rbd.FeatureObjectMap | rbd.FeatureFastDiff}
	versions := []version{{local: 1}, {local: 2}}
	local := &stub{}
	m := newLocalMaps(h, versions, 4, true)
	m.set(0, []bool{true, true}, []bool{true, false}, true)
	m.set(1, []bool{true, false}, []bool{true, true}, true)
	m.set(3, []bool{false, true}, []bool{false, true}, true)
	if err := m.store(t.Context(), local, 0, 4); err != nil {
		t.Fatal(err)
	}
	slices.Sort(local.states)
	want := []string{"b 0 exists", "b 1 exists", "c 0 exists_clean", "c 3 exists",
		"head 0 exists_clean", "head 1 nonexistent", "head 2 nonexistent", "head 3 exists_clean"}
	if d := cmp.Diff(want, local.states); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	// Over what an earlier attempt has left, nonexistence is said, too.
	local.states = nil
	m = newLocalMaps(h, versions[:1], 2, false)
	m.set(0, []bool{true}, []bool{true}, false)
	if err := m.store(t.Context(), local, 0, 2); err != nil {
		t.Fatal(err)
	}
	slices.Sort(local.states)
	want = []string{"b 0 exists", "b 1 nonexistent", "head 0 exists", "head 1 nonexistent"}
	if d := cmp.Diff(want, local.states); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	if newLocalMaps(&image.Header{}, versions, 4, true) != nil {
		t.Error("a map for an image without the feature")
	}
}
