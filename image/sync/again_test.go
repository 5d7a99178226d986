package imagesync

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
)

// firstCopy goes on with a first copy, which dies after so many writes.
func (p *place) firstCopy(writes int64, snapshots Snapshots) error {
	left := &atomic.Int64{}
	left.Store(writes)
	return withImage(p.t.Context(), p.local, func(ctx context.Context, im *image.Image) error {
		_, err := Run(ctx, Job{
			Remote: p.remote, RemoteID: "r", Snapshots: snapshots, Local: dying{im, left}, LocalPool: p.local,
			MirrorUUID: "us", Meta: p.meta, Checkpoint: time.Millisecond,
			Save: func(_ context.Context, m wire.MirrorPeerClientMeta) error { p.meta = m; return nil },
			Copied: func(_ context.Context, point wire.SyncPoint) (wire.Covered, error) {
				p.copied = append(p.copied, point.SnapName)
				return wire.Covered{}, nil
			},
		})
		return err
	})
}

// rename gives snapshots other names, those of others among them.
func (p *place) rename(n int) {
	p.on(p.remote, func(ctx context.Context, im *image.Image) error {
		for range n {
			var names []string
			for _, s := range im.Header().Snapshots {
				names = append(names, s.Name)
			}
			if len(names) == 0 {
				return nil
			}
			a, b := names[p.rng.IntN(len(names))], names[p.rng.IntN(len(names))]
			if a == b {
				b = fmt.Sprintf("n%d", p.rng.IntN(4))
			}
			for _, r := range [][2]string{{a, "tmp"}, {b, a}, {"tmp", b}} {
				if im.Header().Snapshot(rbd.UserSnapshot{}, r[0]) == nil {
					continue
				}
				if _, err := im.SnapRename(ctx, r[0], r[1]); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// TestFirstCopyBeginsAgain lets first copies die, and the sync points be lost. Meanwhile
// snapshots are made, removed and renamed: the journal before the next sync point, which
// has that, is not replayed. So the copy alone has to have it.
func TestFirstCopyBeginsAgain(t *testing.T) {
	for seed := range 3 * uint64(*placeSeeds) {
		t.Run(fmt.Sprintf("seed-%d", seed), func(t *testing.T) {
			features := rbd.Features(0)
			if seed%4 > 0 {
				features = rbd.FeatureObjectMap | rbd.FeatureFastDiff
			}
			p := newPlace(t, seed, features)
			p.meta = wire.MirrorPeerClientMeta{ImageID: "l", State: wire.PeerSyncing}
			p.on(p.remote, change(p.rng, "r", p.rng.IntN(30)))
			for i := range 1 + p.rng.IntN(3) {
				err := p.firstCopy(p.rng.Int64N(40), points{p.remote})
				if err != nil && !errors.Is(err, errDied) {
					t.Fatal(err)
				}
				if p.meta.State == wire.PeerReplaying {
					break
				}
				if len(p.meta.SyncPoints) > 0 && p.rng.IntN(3) > 0 {
					if err := (points{p.remote}).Remove(t.Context(), p.meta.SyncPoints[0].SnapName); err != nil {
						t.Fatal(err)
					}
					p.on(p.remote, change(p.rng, string('s'+rune(i)), p.rng.IntN(12)))
					p.rename(p.rng.IntN(4))
				}
			}
			if p.meta.State != wire.PeerReplaying {
				if err := p.firstCopy(1<<40, points{p.remote}); err != nil {
					t.Fatal(err)
				}
			}
			point := p.point()
			if !slices.Equal(p.copied, []string{point}) {
				t.Errorf("told of %q, not of %q", p.copied, point)
			}
			p.assertSame(point)
		})
	}
}

// changing makes sync points of an image whose snapshots change around that.
type changing struct {
	points
	behind []func(context.Context, *image.Image) error // the sync point, one a time
	made   []string
}

func (c *changing) Create(ctx context.Context, name string) error {
	if err := c.points.Create(ctx, name); err != nil {
		return err
	}
	c.made = append(c.made, name)
	if len(c.behind) == 0 {
		return nil
	}
	do := c.behind[0]
	c.behind = c.behind[1:]
	return withImage(ctx, c.io, do)
}

// A snapshot that is removed or renamed right behind the sync point is there for the
// journal's events behind it, or the sync point is made again.
func TestSnapshotsChangeBehindTheSyncPoint(t *testing.T) {
	p := newPlace(t, 9, 0)
	p.meta = wire.MirrorPeerClientMeta{ImageID: "l", State: wire.PeerSyncing}
	user := rbd.UserSnapshot{}
	p.on(p.remote, func(ctx context.Context, im *image.Image) error {
		for _, name := range []string{"a", "b"} {
			if _, _, err := im.SnapCreate(ctx, user, name); err != nil {
				return err
			}
		}
		return nil
	})
	c := &changing{points: points{p.remote}, behind: []func(context.Context, *image.Image) error{
		func(ctx context.Context, im *image.Image) error {
			_, err := im.SnapRemove(ctx, user, "a")
			return err
		},
		func(ctx context.Context, im *image.Image) error {
			_, err := im.SnapRename(ctx, "b", "c")
			return err
		},
		func(ctx context.Context, im *image.Image) error { // new ones are the journal's alone
			_, _, err := im.SnapCreate(ctx, user, "d")
			return err
		},
	}}
	if err := p.firstCopy(1<<40, c); err != nil {
		t.Fatal(err)
	}
	if len(c.made) != 3 || !slices.Equal(p.copied, c.made[2:]) || len(p.ourPoints()) > 0 {
		t.Errorf("sync points %q, told of %q, left %q", c.made, p.copied, p.ourPoints())
	}
	var names []string
	for _, s := range p.header(p.local).Snapshots {
		names = append(names, s.Name)
	}
	if want := []string{"c", c.made[2]}; !slices.Equal(names, want) {
		t.Errorf("snapshots %q, want %q", names, want)
	}

	// A sync point of an earlier run of which nothing was copied is as unclear.
	p = newPlace(t, 9, 0)
	p.meta = wire.MirrorPeerClientMeta{ImageID: "l", State: wire.PeerSyncing, SyncPoints: []wire.SyncPoint{{SnapName: lastPoint + "old"}}}
	c = &changing{points: points{p.remote}}
	if err := c.points.Create(t.Context(), lastPoint+"old"); err != nil {
		t.Fatal(err)
	}
	if err := p.firstCopy(1<<40, c); err != nil {
		t.Fatal(err)
	}
	if len(c.made) != 1 || !slices.Equal(p.copied, c.made) || len(p.ourPoints()) > 0 {
		t.Errorf("sync points %q, told of %q, left %q", c.made, p.copied, p.ourPoints())
	}
}

// A snapshot that is removed on the primary while it is copied stays here, for the journal's
// events; that its contents are not known is in the record.
func TestVanishedSnapshotIsForgotten(t *testing.T) {
	p := newPlace(t, 10, 0)
	p.meta = wire.MirrorPeerClientMeta{ImageID: "l", State: wire.PeerSyncing}
	user := rbd.UserSnapshot{}
	p.on(p.remote, func(ctx context.Context, im *image.Image) error {
		if _, err := im.Apply(ctx, []image.IO{{Kind: image.Write, Length: 4, Data: []byte("data")}}); err != nil {
			return err
		}
		for _, name := range []string{"stays", "vanishes"} {
			if _, _, err := im.SnapCreate(ctx, user, name); err != nil {
				return err
			}
		}
		return nil
	})
	there := p.header(p.remote)
	if err := p.firstCopy(1, points{p.remote}); !errors.Is(err, errDied) { // after the snapshots
		t.Fatal(err)
	}
	if len(p.meta.SnapSeqs) != 3 {
		t.Fatalf("the copy did not begin: %+v", p.meta)
	}
	p.on(p.remote, func(ctx context.Context, im *image.Image) error {
		_, err := im.SnapRemove(ctx, user, "vanishes")
		return err
	})
	if err := p.firstCopy(1<<40, points{p.remote}); err != nil {
		t.Fatal(err)
	}
	here := p.header(p.local)
	if here.Snapshot(user, "vanishes") == nil {
		t.Error("it is not there")
	}
	want := map[uint64]uint64{uint64(there.Snapshot(user, "stays").ID): uint64(here.Snapshot(user, "stays").ID)}
	for remote, local := range p.meta.SnapSeqs {
		if s := here.SnapshotByID(ceph.SnapID(local)); s != nil && s.Name == p.point() {
			want[remote] = local
		}
	}
	if !maps.Equal(p.meta.SnapSeqs, want) || len(want) != 2 {
		t.Errorf("record %v, want %v", p.meta.SnapSeqs, want)
	}
}
