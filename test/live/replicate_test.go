//go:build live

package live

import (
	"fmt"
	"testing"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// TestBenchSnapshotAndResizeAreMirrored is the daily life of a mirrored pool: images of every make are written with
// rbd bench while the daemon runs, snapshots are taken, images grow and shrink, and the secondary follows.
func TestBenchSnapshotAndResizeAreMirrored(t *testing.T) {
	pair := harness.SharedPair(t)
	pool := harness.NewPool(t, pair, lab.PoolMode)
	harness.StartDaemon(t, pair.Secondary, harness.Ours(t))

	plain := pool.Create(t, "plain", harness.ImageOptions{})
	images := []*harness.Image{
		plain,
		pool.Create(t, "small-objects", harness.ImageOptions{Flags: []string{"--object-size", "64K"}, SizeMiB: 16}),
		pool.Create(t, "striped", harness.ImageOptions{Flags: []string{"--stripe-unit", "64K", "--stripe-count", "4"}}),
		pool.Create(t, "odd-size", harness.ImageOptions{SizeMiB: 33, Flags: []string{"--object-size", "8M"}}),
		pool.Create(t, "no-object-map", harness.ImageOptions{Features: "layering,exclusive-lock,journaling"}),
		pool.Create(t, "many-splays", harness.ImageOptions{Flags: []string{"--journal-splay-width", "7", "--journal-object-size", "128K"}}),
	}
	for _, image := range images {
		image.Bench(t, "rand", "4K", "2M")
		image.Snapshot(t, "first")
		image.Bench(t, "seq", "64K", "8M")
		image.Bench(t, "rand", "4M", "16M")
	}
	plain.Resize(t, 80)
	plain.Bench(t, "rand", "4K", "4M")
	plain.Snapshot(t, "grown")
	plain.Resize(t, 40)
	plain.Bench(t, "rand", "16K", "4M")
	for _, image := range images {
		image.WaitReplayed(t)
	}
	for _, image := range images {
		image.AssertEqual(t)
	}
	plain.AssertObjectMap(t, pair.Secondary)
	images[1].AssertObjectMap(t, pair.Secondary)

	t.Run("status is truthful on both sites", func(t *testing.T) { assertTruthfulStatus(t, pool, images) })
}

// assertTruthfulStatus fails the test unless both clusters' pool status tells of each image and of the daemon.
func assertTruthfulStatus(t *testing.T, pool *harness.Pool, images []*harness.Image) {
	var here harness.PoolStatus
	// A daemon that another test killed is shown until the manager forgets it, a minute later.
	harness.Eventually(t, harness.Patience, func() string {
		here = pool.PoolStatusOn(t, pool.Pair.Secondary)
		leaders, well := 0, here.Summary.DaemonHealth == "OK"
		for _, d := range here.Daemons { // each worker of ours is one
			if d.Leader {
				leaders++
			}
			well = well && d.Health == "OK"
		}
		if leaders != 1 || !well {
			return fmt.Sprintf("summary %+v, daemons %+v", here.Summary, here.Daemons)
		}
		return ""
	})
	states := map[string]string{}
	for _, image := range here.Images {
		states[image.Name] = image.State
	}
	there := map[string]string{}
	for _, image := range pool.PoolStatusOn(t, pool.Pair.Primary).Images {
		for _, peer := range image.Peers {
			there[image.Name] = peer.Site + " " + peer.State
		}
	}
	for _, image := range images {
		if states[image.Name] != "up+replaying" {
			t.Errorf("%s is %q on the secondary", image.Name, states[image.Name])
		}
		if want := pool.Pair.Secondary.Name() + " up+replaying"; there[image.Name] != want {
			t.Errorf("the primary says of %s: %q, want %q", image.Name, there[image.Name], want)
		}
	}
}

// TestEveryKindOfWriteIsMirrored writes with known contents through librbd (discard, write-same, compare-and-write,
// flush, resize), before the daemon has ever seen the image and while it replays. Both sites must hold what was written.
func TestEveryKindOfWriteIsMirrored(t *testing.T) {
	pair := harness.SharedPair(t)
	pool := harness.NewPool(t, pair, lab.PoolMode)
	// Even seeds discard by 4 KiB, odd ones by 64 KiB, as librbd does unless it is told.
	var images []*harness.Image
	var writers []*harness.Writer
	for seed := range uint64(2) {
		image := pool.Create(t, fmt.Sprintf("image%d", seed), harness.ImageOptions{SizeMiB: 32})
		writer := image.OpenWriter(t, pair.Primary, seed)
		writer.Write(200)
		images, writers = append(images, image), append(writers, writer)
	}
	harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	for round := range 3 {
		for i, writer := range writers {
			writer.Write(200)
			images[i].Snapshot(t, fmt.Sprintf("round%d", round))
			writer.Resize(uint64(len(writer.Contents)) + uint64(4-6*(round%2))<<20)
		}
	}
	for i, writer := range writers {
		writer.Write(50)
		writer.Close()
		images[i].WaitReplayed(t)
		for _, c := range []*lab.Cluster{pair.Primary, pair.Secondary} {
			if got := images[i].DigestOn(t, c, ""); got != writer.Digest() {
				t.Errorf("%s on %s is %+v, what was written is %+v", images[i].Name, c.Name(), got, writer.Digest())
			}
		}
		images[i].AssertEqual(t)
		images[i].AssertObjectMap(t, pair.Secondary)
	}
}

// TestSnapshotOperationsAreMirrored follows a snapshot's whole life: protect, rename, roll back, remove.
func TestSnapshotOperationsAreMirrored(t *testing.T) {
	pair := harness.SharedPair(t)
	pool := harness.NewPool(t, pair, lab.PoolMode)
	image := pool.Create(t, "image", harness.ImageOptions{SizeMiB: 16})
	image.Bench(t, "rand", "16K", "2M")
	image.Snapshot(t, "before")
	harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	image.WaitReplayed(t)

	rbd := func(args ...string) { harness.Run(t, pair.Primary, "rbd", args...) }
	image.Bench(t, "rand", "16K", "2M")
	image.Snapshot(t, "keep")
	image.Snapshot(t, "drop")
	rbd("snap", "protect", image.Spec()+"@keep")
	rbd("snap", "rename", image.Spec()+"@before", image.Spec()+"@earlier")
	image.Bench(t, "seq", "64K", "4M")
	rbd("snap", "rollback", "--no-progress", image.Spec()+"@earlier")
	rbd("snap", "rm", "--no-progress", image.Spec()+"@drop")
	rbd("image-meta", "set", image.Spec(), "owner", "somebody")
	image.Bench(t, "rand", "4K", "256K")
	image.WaitReplayed(t)
	image.AssertEqual(t)
	if got := len(image.SnapsOn(t, pair.Secondary)); got != 2 {
		t.Errorf("%d snapshots on the secondary, want 2", got)
	}
	if got := harness.Run(t, pair.Secondary, "rbd", "image-meta", "get", image.Spec(), "owner"); got != "somebody\n" {
		t.Errorf("metadata is %q on the secondary", got)
	}
}
