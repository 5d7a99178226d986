package image

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image/lock"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/mem"
)

var quickLock = lock.Options{DeadGrace: 10 * time.Millisecond, RetryDelay: 10 * time.Millisecond}

// memSite is a cluster in memory with images in its pools.
type memSite struct {
	t     testing.TB
	store *mem.Store
	io    rados.IOContext // of the first pool
	pools map[string]rados.IOContext
}

func newMemSite(t testing.TB, faults mem.Faults, pools ...string) *memSite {
	t.Helper()
	s := &memSite{t: t, pools: make(map[string]rados.IOContext)}
	s.store = mem.New(mem.Options{FSID: "local", Faults: faults, Config: map[string]string{
		"rbd_default_data_pool": "", "rbd_journal_pool": "", "rbd_journal_order": "24", "rbd_journal_splay_width": "4",
	}})
	client := s.store.Connect()
	t.Cleanup(client.Close)
	for _, pool := range pools {
		s.store.AddPool(pool)
		io, err := client.Open(context.Background(), pool, "")
		s.check(err)
		s.check(rados.Tell(context.Background(), io, mirror.Object, mirror.SetUUID("local-"+pool)))
		s.check(rados.Tell(context.Background(), io, mirror.Object, mirror.SetMode(mirror.ModeImage)))
		s.pools[pool] = io
	}
	s.io = s.pools[pools[0]]
	return s
}

func (s *memSite) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// spec describes an image with all features.
func memSpec(id string, size uint64, order uint8) CreateSpec {
	return CreateSpec{
		ID: id, Name: "image-" + id, GlobalID: uuid.NewString(), RemoteMirrorUUID: "remote", Size: size, Order: order,
		Features: rbd.FeatureLayering | rbd.FeatureExclusiveLock | rbd.FeatureObjectMap | rbd.FeatureFastDiff |
			rbd.FeatureDeepFlatten | rbd.FeatureJournaling | rbd.FeatureOperations,
	}
}

func (s *memSite) create(pool string, spec CreateSpec) *Image {
	s.t.Helper()
	_, err := Create(context.Background(), s.pools[pool], spec)
	s.check(err)
	return s.open(s.pools[pool], spec.ID)
}

func (s *memSite) open(io rados.IOContext, id string) *Image {
	s.t.Helper()
	im, err := Open(context.Background(), io, id, Options{Lock: quickLock})
	s.check(err)
	return im
}

// lockOptions are impatient: nobody else is there.
func (s *memSite) lockOptions() lock.Options {
	return lock.Options{DeadGrace: time.Millisecond, RetryDelay: time.Millisecond}
}

func (s *memSite) snap(im *Image, name string) ceph.SnapID {
	s.t.Helper()
	id, _, err := im.SnapCreate(context.Background(), rbd.UserSnapshot{}, name)
	s.check(err)
	return id
}

// attach makes an image, which nobody has open, a clone of a snapshot, as
// src/librbd/image/AttachParentRequest.cc and AttachChildRequest.cc do.
func (s *memSite) attach(pool, child, parentPool, parent string, snap ceph.SnapID, format int) {
	s.t.Helper()
	ctx := context.Background()
	io, parentIO := s.pools[pool], s.pools[parentPool]
	ph, err := ReadHeader(ctx, parentIO, parent)
	s.check(err)
	spec := rbd.ParentSpec{Pool: parentIO.Pool().ID, ImageID: parent, Snap: snap}
	s.check(rados.Tell(ctx, io, rbd.HeaderObject(child), rbd.ParentAttach(spec, ph.SnapshotByID(snap).ImageSize, false)))
	if format == 1 {
		s.check(rados.Tell(ctx, io, rbd.ChildrenObject, rbd.AddChild(spec, child)))
		return
	}
	s.check(rados.Tell(ctx, io, rbd.HeaderObject(child), rbd.SetOpFeatures(rbd.OpFeatureCloneChild, rbd.OpFeatureCloneChild)))
	s.check(rados.Tell(ctx, parentIO, rbd.HeaderObject(parent),
		rbd.ChildAttach(snap, rbd.ChildSpec{Pool: io.Pool().ID, ImageID: child})))
}

// read reads a whole image through a Reader.
func (s *memSite) read(io rados.IOContext, id string, snap ceph.SnapID) []byte {
	s.t.Helper()
	r, err := OpenReader(context.Background(), io, id, snap)
	s.check(err)
	defer r.Close()
	pieces, err := r.Read(context.Background(), 0, r.Size())
	s.check(err)
	if !slices.IsSortedFunc(pieces, func(a, b Piece) int { return int(a.Offset+uint64(len(a.Data))) - int(b.Offset) - 1 }) {
		s.t.Errorf("pieces overlap or are out of order")
	}
	return Flat(pieces, 0, r.Size())
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
