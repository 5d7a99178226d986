package image

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/rados"
)

// simpleClone is a clone of four objects of 4 KiB, of which the parent has the first
// three; the third holds zeros.
func simpleClone(t *testing.T, change func(*CreateSpec)) (s *memSite, im *Image, parent []byte) {
	s = newMemSite(t, nil, "rbd")
	parent = make([]byte, 4<<12)
	copy(parent, randomBytes(rand.New(rand.NewPCG(5, 6)), 2<<12))
	base := s.create("rbd", memSpec("base", 4<<12, 12))
	s.apply(base, IO{Kind: Write, Length: 3 << 12, Data: parent[:3<<12]})
	snap := s.snap(base, "s")
	s.close(base)
	spec := memSpec("child", 4<<12, 12)
	if change != nil {
		change(&spec)
	}
	s.close(s.create("rbd", spec))
	s.attach("rbd", "child", "rbd", "base", snap, 2)
	return s, s.open(s.io, "child"), parent
}

// state is what the object map of a snapshot, or of the head, says of the first three
// objects.
func (s *memSite) mapStates(snap ceph.SnapID) []rbd.ObjectState {
	m, err := loadObjectMap(context.Background(), s.io, rbd.ObjectMapObject("child", snap))
	s.check(err)
	return []rbd.ObjectState{m.At(0), m.At(1), m.At(2)}
}

func (s *memSite) wantMaps(want map[ceph.SnapID][]rbd.ObjectState) {
	s.t.Helper()
	for snap, w := range want {
		if got := s.mapStates(snap); !slices.Equal(got, w) {
			s.t.Errorf("object map of snapshot %d: %v, want %v", snap, got, w)
		}
	}
}

const (
	none  = rbd.ObjectNonexistent
	dirty = rbd.ObjectExists
	clean = rbd.ObjectExistsClean
)

// The copied bytes are the oldest snapshot's, the others and the head inherit them;
// where the parent has zeros the snapshots go on without an object.
func TestCopyUpObjectMaps(t *testing.T) {
	s, im, parent := simpleClone(t, nil)
	a, b := s.snap(im, "a"), s.snap(im, "b")
	s.apply(im, IO{Kind: Write, Offset: 10, Length: 1, Data: []byte{1}}, IO{Kind: Discard, Offset: 2<<12 + 5, Length: 5})
	s.wantMaps(map[ceph.SnapID][]rbd.ObjectState{a: {dirty, none, none}, b: {clean, none, none}, ceph.NoSnap: {dirty, none, dirty}})
	for _, snap := range []ceph.SnapID{a, b} {
		if got := s.read(s.io, "child", snap); !bytes.Equal(got, parent) {
			t.Errorf("snapshot %d differs at %d", snap, firstDifference(got, parent))
		}
	}
	_, err := im.Flatten(context.Background(), nil)
	s.check(err)
	s.wantMaps(map[ceph.SnapID][]rbd.ObjectState{a: {dirty, dirty, none}, b: {clean, clean, none}, ceph.NoSnap: {dirty, dirty, dirty}})
	var op rados.ReadOp
	list := op.ListSnaps()
	s.check(s.io.Read(context.Background(), im.Header().Layout.ObjectName(1), &op))
	if len(list.Clones) != 2 || !slices.Equal(list.Clones[0].Snaps, []ceph.SnapID{a, b}) {
		t.Errorf("states of a flattened object: %+v", list.Clones)
	}
}

// Without snapshots nothing is copied where nothing of the parent stays.
func TestCopyUpSkipped(t *testing.T) {
	s, im, _ := simpleClone(t, nil)
	s.check(s.io.Write(context.Background(), rbd.HeaderObject("base"), new(rados.WriteOp).Remove())) // cannot be read
	want := make([]byte, 4<<12)
	copy(want, bytes.Repeat([]byte{7}, 1<<12))
	s.apply(im, IO{Kind: Write, Length: 1 << 12, Data: want[:1<<12]}, IO{Kind: Discard, Offset: 1 << 12, Length: 2 << 12})
	for n, w := range [][]byte{want[:1<<12], {}, {}} {
		var op rados.ReadOp
		got := op.Read(0, 1<<12)
		s.check(s.io.Read(context.Background(), im.Header().Layout.ObjectName(ObjectNumber(n)), &op))
		if !bytes.Equal(got.Data, w) {
			t.Errorf("object %d has %d bytes, want %d", n, len(got.Data), len(w))
		}
	}
	_, err := im.Apply(context.Background(), []IO{{Kind: Write, Offset: 3<<12 + 1, Length: 1, Data: []byte{1}}})
	var missing *ParentError
	if !errors.As(err, &missing) {
		t.Errorf("copy-up without a parent: %v", err)
	}
}

// A snapshot whose share of the parent is larger than the head's, in the same object.
func TestCopyUpLargerShareOfSnapshot(t *testing.T) {
	s, im, parent := simpleClone(t, nil)
	a := s.snap(im, "a")
	s.close(im)
	header := rbd.HeaderObject("child")
	for _, size := range []uint64{100, 4 << 12} {
		s.check(rados.Tell(context.Background(), s.io, header, rbd.SetSize(size)))
	}
	im = s.open(s.io, "child")
	s.apply(im, IO{Kind: Write, Offset: 50, Length: 1, Data: []byte{9}})
	head := make([]byte, 4<<12)
	copy(head, parent[:100])
	head[50] = 9
	if got := s.read(s.io, "child", ceph.NoSnap); !bytes.Equal(got, head) {
		t.Errorf("head differs at %d", firstDifference(got, head))
	}
	if got := s.read(s.io, "child", a); !bytes.Equal(got, parent) {
		t.Errorf("snapshot differs at %d", firstDifference(got, parent))
	}
}

// A flatten that was killed between its last two steps, after which the parent was
// removed, must not need the parent.
func TestFlattenAfterParentIsGone(t *testing.T) {
	s, im, parent := simpleClone(t, nil)
	ctx := context.Background()
	step, err := im.FlattenStep(ctx, 0)
	s.check(err)
	if step.Finished || step.Next != 4 || step.Objects != 4 {
		t.Fatalf("first step: %+v", step)
	}
	s.close(im)
	h, err := ReadHeader(ctx, s.io, "child")
	s.check(err)
	s.check(DetachChild(ctx, s.io, h))
	s.check(rados.Tell(ctx, s.io, rbd.HeaderObject("base"), rbd.SnapshotRemove(h.Parent.Snap)))
	im = s.open(s.io, "child")
	out, err := im.Flatten(ctx, nil)
	if err != nil || out != Done || im.Header().HasParent() {
		t.Fatalf("%v, %v, parent %v", out, err, im.Header().Parent)
	}
	if got := s.read(s.io, "child", ceph.NoSnap); !bytes.Equal(got, parent) {
		t.Errorf("differs at %d", firstDifference(got, parent))
	}
	if out, err := im.Flatten(ctx, nil); err != nil || out != AlreadyDone {
		t.Errorf("again: %v, %v", out, err)
	}
}

// If the parent's pool is gone, its bytes are lost: that must not pass for a flatten
// that was finished.
func TestFlattenWithoutPool(t *testing.T) {
	s, im, _ := simpleClone(t, nil)
	s.close(im)
	ctx := context.Background()
	gone := rbd.ParentSpec{Pool: 99, ImageID: "base", Snap: 1}
	s.check(rados.Tell(ctx, s.io, rbd.HeaderObject("child"), rbd.ParentAttach(gone, 4<<12, true)))
	im = s.open(s.io, "child")
	_, err := im.Flatten(ctx, nil)
	var missing *ParentError
	if !errors.As(err, &missing) || !missing.NoPool || !errors.Is(err, syscall.ENOENT) {
		t.Errorf("%v", err)
	}
	if !im.Header().Attached {
		t.Error("the image has left its parent")
	}
}

// Cancelled in between, a flatten stops and leaves an image that reads as before.
func TestFlattenCancelled(t *testing.T) {
	s, im, parent := simpleClone(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	_, err := im.Flatten(ctx, func(done, total uint64) { cancel() })
	if !errors.Is(err, context.Canceled) || !im.Header().Attached {
		t.Errorf("%v, attached %v", err, im.Header().Attached)
	}
	if got := s.read(s.io, "child", ceph.NoSnap); !bytes.Equal(got, parent) {
		t.Errorf("differs at %d", firstDifference(got, parent))
	}
}

// Removing a clone takes it off its parent's list.
func TestRemoveCloneLeavesParent(t *testing.T) {
	s, im, _ := simpleClone(t, nil)
	s.snap(im, "a")
	s.close(im)
	ctx := context.Background()
	h, err := ReadHeader(ctx, s.io, "child")
	s.check(err)
	s.check(Remove(ctx, s.io, "child", quickLock))
	if _, err := rados.Ask(ctx, s.io, rbd.HeaderObject("base"), rbd.ChildrenList(h.Parent.Snap)); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("the parent's children: %v", err)
	}
}
