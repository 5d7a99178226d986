package imagesync

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/image"
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
