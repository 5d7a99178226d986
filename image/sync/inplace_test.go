package imagesync

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/image/compare"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/mem"
)

// One image in each of two clusters in memory. The local one has the same history, and
// then something else happens to it.

const (
	placeOrder = 16
	placeSize  = 12 << placeOrder
)

var placeSeeds = flag.Int("place-seeds", 60, "how many copies go astray")

type place struct {
	t             *testing.T
	rng           *rand.Rand
	remote, local rados.IOContext
	meta          wire.MirrorPeerClientMeta
	progress      Progress
	copied        []string // the sync points that Copied heard of
}

func newPlace(t *testing.T, seed uint64, features rbd.Features) *place {
	t.Helper()
	p := &place{t: t, meta: wire.MirrorPeerClientMeta{State: wire.PeerReplaying}, rng: rand.New(rand.NewPCG(seed, 3))}
	for id, io := range map[string]*rados.IOContext{"r": &p.remote, "l": &p.local} {
		store := mem.New(mem.Options{FSID: id, Config: map[string]string{
			"rbd_default_data_pool": "", "rbd_journal_order": "24", "rbd_journal_splay_width": "4", "rbd_journal_pool": "", "rbd_blocklist_expire_seconds": "0",
		}})
		store.AddPool("rbd")
		var err error
		if *io, err = store.Connect().Open(t.Context(), "rbd", ""); err != nil {
			t.Fatal(err)
		}
		_, err = image.Create(t.Context(), *io, image.CreateSpec{
			ID: id, Name: "vm", GlobalID: "g", RemoteMirrorUUID: "somebody", Size: placeSize, Order: placeOrder,
			Features: rbd.FeatureExclusiveLock | rbd.FeatureJournaling | rbd.FeatureLayering | features,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func (p *place) on(io rados.IOContext, fn func(ctx context.Context, im *image.Image) error) {
	p.t.Helper()
	if err := withImage(p.t.Context(), io, fn); err != nil {
		p.t.Fatal(err)
	}
}

func withImage(ctx context.Context, io rados.IOContext, fn func(ctx context.Context, im *image.Image) error) error {
	im, err := image.Open(ctx, io, io.Cluster().FSID(), image.Options{AllowPrimary: true})
	if err != nil {
		return err
	}
	return errors.Join(fn(ctx, im), im.Close(context.WithoutCancel(ctx)))
}

// change does something to an image; the same by the same dice.
func change(rng *rand.Rand, names string, n int) func(context.Context, *image.Image) error {
	return func(ctx context.Context, im *image.Image) error {
		var snaps []string
		for _, s := range im.Header().Snapshots {
			snaps = append(snaps, s.Name)
		}
		for i := range n {
			size := im.Header().Size
			offset := rng.Uint64N(size-40<<10) &^ 511
			length := 512 + rng.Uint64N(39<<10)&^511
			var err error
			switch what := rng.IntN(12); {
			case what < 5:
				data := make([]byte, length)
				for k := range data {
					data[k] = byte(rng.Uint32())
				}
				_, err = im.Apply(ctx, []image.IO{{Kind: image.Write, Offset: offset, Length: length, Data: data}})
			case what < 7:
				_, err = im.Apply(ctx, []image.IO{{Kind: image.Discard, Offset: offset &^ (1<<placeOrder - 1), Length: 1 << placeOrder}})
			case what == 7:
				name := fmt.Sprintf("%s%d", names, i)
				snaps = append(snaps, name)
				_, _, err = im.SnapCreate(ctx, rbd.UserSnapshot{}, name)
			case what == 8 && len(snaps) > 0:
				k := rng.IntN(len(snaps))
				if im.Header().Snapshot(rbd.UserSnapshot{}, snaps[k]).Protection != rbd.Unprotected {
					continue
				}
				_, err = im.SnapRemove(ctx, rbd.UserSnapshot{}, snaps[k])
				snaps = slices.Delete(snaps, k, k+1)
			case what == 9 && len(snaps) > 0:
				name := snaps[rng.IntN(len(snaps))]
				if rng.IntN(2) == 0 {
					_, err = im.SnapProtect(ctx, rbd.UserSnapshot{}, name)
				} else {
					_, err = im.SnapUnprotect(ctx, rbd.UserSnapshot{}, name)
				}
			case what > 9:
				_, err = im.Resize(ctx, (6+rng.Uint64N(10))<<placeOrder+rng.Uint64N(2)*5000)
			}
			switch {
			case err != nil:
			case i%7 == 6:
				_, err = im.MetadataSet(ctx, names+string('a'+rune(rng.IntN(3))), []byte{'0' + byte(rng.IntN(10))})
			case i%11 == 10:
				_, err = im.SnapSetLimit(ctx, uint64(len(snaps)+8))
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
}

// both does the same to both images.
func (p *place) both(names string, n int) {
	p.t.Helper()
	seed := p.rng.Uint64()
	for _, io := range []rados.IOContext{p.remote, p.local} {
		p.on(io, change(rand.New(rand.NewPCG(seed, 1)), names, n))
	}
}

// points makes sync points.
type points struct{ io rados.IOContext }

func (s points) Create(ctx context.Context, name string) error {
	return withImage(ctx, s.io, func(ctx context.Context, im *image.Image) error {
		_, out, err := im.SnapCreate(ctx, rbd.UserSnapshot{}, name)
		if err == nil && out == image.AlreadyDone {
			return syscall.EEXIST
		}
		return err
	})
}

func (s points) Remove(ctx context.Context, name string) error {
	return withImage(ctx, s.io, func(ctx context.Context, im *image.Image) error {
		_, err := im.SnapRemove(ctx, rbd.UserSnapshot{}, name)
		return err
	})
}

// dying is a local image whose writer dies after so many writes.
type dying struct {
	*image.Image
	left *atomic.Int64
}

var errDied = errors.New("died")

func (d dying) WriteObject(ctx context.Context, n image.ObjectNumber, op *rados.WriteOp) error {
	if d.left.Add(-1) < 0 {
		return errDied
	}
	return d.Image.WriteObject(ctx, n, op)
}

func (d dying) SetObjectMapState(ctx context.Context, snap ceph.SnapID, start, end image.ObjectNumber, state rbd.ObjectState) error {
	if d.left.Add(-1) < 0 {
		return errDied
	}
	return d.Image.SetObjectMapState(ctx, snap, start, end, state)
}

// resync syncs in place, from what every attempt begins with.
func (p *place) resync(writes int64) error {
	trust := p.meta.State != wire.PeerSyncing
	p.meta.ImageID, p.meta.State, p.meta.SnapSeqs = "l", wire.PeerSyncing, nil
	for i := range p.meta.SyncPoints {
		p.meta.SyncPoints[i].ObjectNumber = nil
	}
	left := &atomic.Int64{}
	left.Store(writes)
	return withImage(p.t.Context(), p.local, func(ctx context.Context, im *image.Image) error {
		_, err := Run(ctx, Job{
			Remote: p.remote, RemoteID: "r", Snapshots: points{p.remote}, Local: dying{im, left}, LocalPool: p.local,
			MirrorUUID: "us", Meta: p.meta, InPlace: true, TrustMap: trust, Checkpoint: time.Millisecond,
			Save:     func(_ context.Context, m wire.MirrorPeerClientMeta) error { p.meta = m; return nil },
			Progress: func(pr Progress) { p.progress = pr },
		})
		return err
	})
}

// contents reads an image at a snapshot, ceph.NoSnap for the head.
func (p *place) contents(io rados.IOContext, h *image.Header, snap ceph.SnapID, size uint64) []byte {
	p.t.Helper()
	out := make([]byte, size)
	for n := range image.ObjectNumber(h.Layout.ObjectCount(size)) {
		op := rados.ReadOp{Snap: snap}
		read := op.Read(0, h.Layout.ObjectSize())
		if err := io.Read(p.t.Context(), h.Layout.ObjectName(n), &op); err != nil && !errors.Is(err, syscall.ENOENT) {
			p.t.Fatal(err)
		}
		copy(out[uint64(n)*h.Layout.ObjectSize():], read.Data)
	}
	return out
}

func (p *place) header(io rados.IOContext) *image.Header {
	p.t.Helper()
	h, err := image.ReadHeader(p.t.Context(), io, io.Cluster().FSID())
	if err != nil {
		p.t.Fatal(err)
	}
	return h
}

// assertSame compares sizes, snapshots, contents, metadata and object maps.
func (p *place) assertSame(synced string) {
	p.t.Helper()
	r := p.header(p.remote)
	// The local sync point stays until the journal removes it: then it is gone here, too.
	p.on(p.local, func(ctx context.Context, im *image.Image) error {
		_, err := im.SnapRemove(ctx, rbd.UserSnapshot{}, synced)
		return err
	})
	l := p.header(p.local)
	var here, there []string
	for _, s := range r.Snapshots {
		here = append(here, fmt.Sprint(s.Name, s.ImageSize, s.Protection))
	}
	for _, s := range l.Snapshots {
		there = append(there, fmt.Sprint(s.Name, s.ImageSize, s.Protection))
	}
	if l.Flags != 0 {
		p.t.Errorf("the copy has the flags %v", l.Flags)
	}
	if !slices.Equal(here, there) || r.Size != l.Size || r.SnapLimit != l.SnapLimit || fmt.Sprint(r.Metadata) != fmt.Sprint(l.Metadata) {
		p.t.Fatalf("remote %d bytes, %v, %v\nlocal %d bytes, %v, %v", r.Size, here, r.Metadata, l.Size, there, l.Metadata)
	}
	for i, s := range r.Snapshots {
		if !bytes.Equal(p.contents(p.remote, r, s.ID, s.ImageSize), p.contents(p.local, l, l.Snapshots[i].ID, s.ImageSize)) {
			p.t.Errorf("snapshot %s differs", s.Name)
		}
	}
	if !bytes.Equal(p.contents(p.remote, r, ceph.NoSnap, r.Size), p.contents(p.local, l, ceph.NoSnap, l.Size)) {
		p.t.Error("the head differs")
	}
	for n := image.ObjectNumber(l.Layout.ObjectCount(l.Size)); n < 40; n++ {
		if h, err := listHistory(p.t.Context(), p.local, l.Layout.ObjectName(n)); err != nil || h.at(ceph.NoSnap) >= 0 {
			p.t.Errorf("object %d lies beyond the end: %v, %v", n, h, err)
		}
	}
	if l.Features.Has(rbd.FeatureObjectMap) {
		p.assertMaps(l)
	}
}

// assertMaps checks the local object maps as "rbd object-map check" would.
func (p *place) assertMaps(h *image.Header) {
	p.t.Helper()
	var all []ceph.SnapID
	for _, s := range h.Snapshots {
		all = append(all, s.ID)
	}
	for i, id := range append(all[:len(all):len(all)], ceph.NoSnap) {
		size := h.Size
		if s := h.SnapshotByID(id); s != nil {
			size = s.ImageSize
		}
		m, err := rados.Ask(p.t.Context(), p.local, rbd.ObjectMapObject("l", id), rbd.ObjectMapLoad())
		if err != nil {
			p.t.Fatal(err)
		}
		for n := range h.Layout.ObjectCount(size) {
			hist, err := listHistory(p.t.Context(), p.local, h.Layout.ObjectName(image.ObjectNumber(n)))
			if err != nil {
				p.t.Fatal(err)
			}
			want := mapStates(hist, all, all, h.Features.Has(rbd.FeatureFastDiff))[i]
			if got := m.At(n); got != want {
				// What "clean" says too little of is no damage: the next diff reads more.
				if got == rbd.ObjectExists && want == rbd.ObjectExistsClean {
					continue
				}
				p.t.Errorf("object map of snapshot %d, object %d: %v, want %v", id, n, got, want)
			}
		}
	}
}

// TestInPlaceSeeds lets copies go astray in every way, and syncs them in place, with
// writers that die on the way.
func TestInPlaceSeeds(t *testing.T) {
	for seed := range uint64(*placeSeeds) {
		t.Run(fmt.Sprintf("seed-%d", seed), func(t *testing.T) {
			features := rbd.Features(0)
			if seed%4 > 0 {
				features = rbd.FeatureObjectMap | rbd.FeatureFastDiff
			}
			p := newPlace(t, seed, features)
			p.both("a", p.rng.IntN(30))
			if p.rng.IntN(3) > 0 {
				p.on(p.remote, change(p.rng, "r", p.rng.IntN(20)))
			}
			if p.rng.IntN(3) > 0 {
				p.on(p.local, change(p.rng, "l", p.rng.IntN(20)))
			}
			for range p.rng.IntN(3) {
				err := p.resync(p.rng.Int64N(30))
				if err != nil && !errors.Is(err, errDied) {
					t.Fatal(err)
				}
				if len(p.meta.SyncPoints) > 0 && p.rng.IntN(2) == 0 { // the next one begins with other contents
					if err := (points{p.remote}).Remove(t.Context(), p.meta.SyncPoints[0].SnapName); err != nil {
						t.Fatal(err)
					}
					p.on(p.remote, change(p.rng, "m", p.rng.IntN(6)))
				}
			}
			p.finish()
			p.assertSame(p.point())
		})
	}
}

const lastPoint = ".rbd-mirror.us."

// finish syncs to the end.
func (p *place) finish() {
	p.t.Helper()
	if err := p.resync(1 << 40); err != nil {
		p.t.Fatal(err)
	}
	if p.meta.State != wire.PeerReplaying || len(p.meta.SyncPoints) != 0 {
		p.t.Fatalf("record %+v", p.meta)
	}
}

// point is the local copy of the sync point.
func (p *place) point() string {
	p.t.Helper()
	for _, s := range p.header(p.local).Snapshots {
		if len(s.Name) > len(lastPoint) && s.Name[:len(lastPoint)] == lastPoint {
			return s.Name
		}
	}
	p.t.Fatal("no sync point")
	return ""
}

// What is right stays and is not copied: the snapshots keep their ids, and of the head
// travels what differs.
func TestInPlaceSpares(t *testing.T) {
	p := newPlace(t, 1, rbd.FeatureObjectMap|rbd.FeatureFastDiff)
	p.both("a", 20)
	for _, io := range []rados.IOContext{p.remote, p.local} {
		p.on(io, func(ctx context.Context, im *image.Image) error {
			_, err := im.Apply(ctx, []image.IO{{Kind: image.Write, Length: 4 << placeOrder, Data: bytes.Repeat([]byte("abcd"), 1<<placeOrder)}})
			if err == nil {
				_, _, err = im.SnapCreate(ctx, rbd.UserSnapshot{}, "common")
			}
			return err
		})
	}
	p.both("b", 5)
	before := p.header(p.local).Snapshots
	p.on(p.local, func(ctx context.Context, im *image.Image) error {
		_, err := im.Apply(ctx, []image.IO{{Kind: image.Write, Offset: 100000, Length: 10, Data: []byte("0123456789")}})
		return err
	})
	p.finish()
	after := p.header(p.local).Snapshots
	if len(before) == 0 || len(after) != len(before)+1 {
		t.Fatalf("%d snapshots before, %d after", len(before), len(after))
	}
	for i := range before {
		if before[i].ID != after[i].ID {
			t.Errorf("%s was made anew", before[i].Name)
		}
	}
	if p.progress.BytesRead != compare.Fine || p.progress.BytesWritten != compare.Fine || p.progress.BytesCompared < 4<<placeOrder ||
		p.progress.ObjectsDone != p.progress.ObjectsTotal {
		t.Errorf("progress ends with %+v", p.progress)
	}
	p.assertSame(p.point())
}

// A run ends at the first snapshot that is missing, has another size, or is out of order.
func TestKeepers(t *testing.T) {
	remote := []image.Snapshot{snapshot(1, "a"), snapshot(2, "m", mirrored), snapshot(3, "b"), snapshot(4, "c"), snapshot(9, "sync")}
	for name, tc := range map[string]struct {
		local []image.Snapshot
		want  []ceph.SnapID
	}{
		"all":          {[]image.Snapshot{sized(11, 1, "a"), sized(12, 9, "x"), sized(13, 3, "b"), sized(14, 4, "c"), sized(15, 9, "sync")}, []ceph.SnapID{11, 13, 14}},
		"missing":      {[]image.Snapshot{sized(11, 1, "a"), sized(14, 4, "c")}, []ceph.SnapID{11}},
		"other size":   {[]image.Snapshot{sized(11, 1, "a"), sized(13, 2, "b"), sized(14, 4, "c")}, []ceph.SnapID{11}},
		"out of order": {[]image.Snapshot{sized(11, 4, "c"), sized(12, 1, "a"), sized(13, 3, "b")}, []ceph.SnapID{12, 13}},
		"none":         {nil, nil},
	} {
		var got []ceph.SnapID
		for _, k := range keepers(remote, tc.local, 9) {
			got = append(got, k.local)
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

func sized(id, size ceph.SnapID, name string) image.Snapshot {
	s := snapshot(size, name)
	s.ID = id
	return s
}
