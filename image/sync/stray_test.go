package imagesync

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/image/lock"
	"github.com/rbdwarden/rbdwarden/rados"
)

// ourPoints lists the sync points that an image has.
func (p *place) ourPoints() []string {
	var found []string
	for _, s := range p.header(p.remote).Snapshots {
		if strings.HasPrefix(s.Name, lastPoint) {
			found = append(found, s.Name)
		}
	}
	return found
}

// A sync point that no record names is removed by the next sync, and not copied. Another site's stays.
func TestStraySyncPointIsRemoved(t *testing.T) {
	p := newPlace(t, 5, 0)
	p.both("a", 5)
	for _, name := range []string{lastPoint + "stray", ".rbd-mirror.others.one"} {
		if err := (points{p.remote}).Create(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	p.finish()
	if left := p.ourPoints(); len(left) != 0 {
		t.Errorf("sync points %v are left", left)
	}
	names := map[string]bool{}
	for _, s := range p.header(p.remote).Snapshots {
		names[s.Name] = true
	}
	if !names[".rbd-mirror.others.one"] {
		t.Error("another site's sync point was removed")
	}
}

// Mirroring is disabled right after the sync point was recorded, and before it was made: nobody else will remove it.
func TestSyncPointGoesWithItsRecord(t *testing.T) {
	p := newPlace(t, 6, 0)
	p.both("a", 5)
	saves := 0
	err := withImage(t.Context(), p.local, func(ctx context.Context, im *image.Image) error {
		_, err := Run(ctx, Job{
			Remote: p.remote, RemoteID: "r", Snapshots: points{p.remote}, Local: im, LocalPool: p.local, MirrorUUID: "us",
			Meta: wire.MirrorPeerClientMeta{ImageID: "l", State: wire.PeerSyncing}, InPlace: true, Checkpoint: time.Nanosecond,
			Save: func(context.Context, wire.MirrorPeerClientMeta) error {
				if saves++; saves > 1 {
					return syscall.ENOENT
				}
				return nil
			},
		})
		return err
	})
	if !errors.Is(err, syscall.ENOENT) {
		t.Fatalf("the sync ends with %v", err)
	}
	if left := p.ourPoints(); len(left) != 0 {
		t.Errorf("sync points %v are left", left)
	}
}

// A copy that died before its first checkpoint is removed without leaving data behind, though removal believes the map.
func TestHalfMadeCopyIsRemovedWhole(t *testing.T) {
	p := newPlace(t, 7, rbd.FeatureObjectMap|rbd.FeatureFastDiff)
	p.on(p.remote, func(ctx context.Context, im *image.Image) error {
		_, err := im.Apply(ctx, []image.IO{{Kind: image.Write, Length: placeSize, Data: bytes.Repeat([]byte("data"), placeSize/4)}})
		return err
	})
	if err := p.resync(6); !errors.Is(err, errDied) {
		t.Fatalf("the sync ends with %v", err)
	}
	h := p.header(p.local)
	there := func(n image.ObjectNumber) bool {
		var op rados.ReadOp
		op.Stat()
		return p.local.Read(t.Context(), h.Layout.ObjectName(n), &op) == nil
	}
	copied := 0
	for n := range image.ObjectNumber(placeSize >> placeOrder) {
		if there(n) {
			copied++
		}
	}
	if copied == 0 {
		t.Fatal("nothing was copied: the test tests nothing")
	}
	if err := image.Remove(t.Context(), p.local, "l", lock.Options{}); err != nil {
		t.Fatal(err)
	}
	for n := range image.ObjectNumber(placeSize >> placeOrder) {
		if there(n) {
			t.Errorf("object %d is left", n)
		}
	}
}
