//go:build live && long

package live

import (
	"fmt"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// TestHundredsOfSnapshots syncs an image with 300 snapshots and replays 60 more, and the removal of 40.
func TestHundredsOfSnapshots(t *testing.T) {
	pair := harness.SharedPair(t)
	pool := harness.NewPool(t, pair, lab.PoolMode)
	image := pool.Create(t, "image", harness.ImageOptions{SizeMiB: 8, Flags: []string{"--object-size", "1M"}})
	writer := image.OpenWriter(t, pair.Primary, 1)
	snapshots := func(from, to int) {
		for n := from; n < to; n++ {
			writer.Write(2)
			writer.Snapshot(fmt.Sprintf("snap%d", n))
		}
	}
	snapshots(0, 300)
	began := time.Now()
	harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	image.WaitReplayed(t)
	t.Logf("sync of 300 snapshots: %v", time.Since(began))
	began = time.Now()
	snapshots(300, 360)
	for n := range 40 {
		writer.RemoveSnapshot(fmt.Sprintf("snap%d", 5*n))
	}
	t.Logf("60 snapshots and 40 removals on the primary: %v", time.Since(began))
	began = time.Now()
	writer.Close()
	image.WaitReplayed(t)
	t.Logf("their replay took so much longer: %v", time.Since(began))
	snaps := image.SnapsOn(t, pair.Primary)
	if got := image.SnapsOn(t, pair.Secondary); len(snaps) != 320 || fmt.Sprint(got) != fmt.Sprint(snaps) {
		t.Fatalf("%d snapshots on the primary, %d on the secondary, or others", len(snaps), len(got))
	}
	for n := 0; n < len(snaps); n += 40 {
		if want, got := image.DigestOn(t, pair.Primary, snaps[n].Name), image.DigestOn(t, pair.Secondary, snaps[n].Name); want != got {
			t.Errorf("contents of %s: %v, want %v", snaps[n].Name, got, want)
		}
	}
	if want, got := writer.Digest(), image.DigestOn(t, pair.Secondary, ""); want != got {
		t.Errorf("contents: %v, want %v", got, want)
	}
	image.AssertObjectMap(t, pair.Secondary)
}

// TestSparseImage mirrors 10 TiB of which next to nothing is allocated: the time of a sync, and of shrinking, growing and
// rolling back, belongs to what there is, not to what there could be.
func TestSparseImage(t *testing.T) {
	pair := harness.SharedPair(t)
	pool := harness.NewPool(t, pair, lab.PoolMode)
	const tebi = 1 << 20 // in MiB
	image := pool.Create(t, "sparse", harness.ImageOptions{SizeMiB: 10 * tebi})
	write := func(mib int) {
		harness.Run(t, pair.Primary, "rbd", "bench", "--io-type", "write", "--io-size", "64K", "--io-total", fmt.Sprintf("%dM", mib),
			"--io-pattern", "rand", "--io-threads", "4", image.Spec())
	}
	write(8)
	image.Snapshot(t, "one")
	write(2)
	measure := func(what string) {
		began := time.Now()
		image.WaitReplayed(t)
		t.Logf("%s: %v", what, time.Since(began))
	}
	harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	measure("sync of 10 TiB with 160 pieces of 64 KiB in it")
	write(2)
	measure("replay of 32 more")
	image.Resize(t, 5*tebi)
	measure("shrinking by the half")
	image.Resize(t, 10*tebi)
	measure("growing again")
	harness.Run(t, pair.Primary, "rbd", "snap", "rollback", "--no-progress", image.Spec()+"@one")
	measure("rolling back")
	harness.Run(t, pair.Primary, "rbd", "snap", "rm", "--no-progress", image.Spec()+"@one")
	measure("removing the snapshot")
	a, b := image.DataObjects(t, pair.Primary), image.DataObjects(t, pair.Secondary)
	if fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("%d objects on the primary, %d on the secondary", len(a), len(b))
	}
	for _, n := range a {
		image.AssertSameRange(t, n<<22, 4<<20)
	}
	if got := image.InfoOn(t, pair.Secondary); got.Size != 10<<40 || len(got.Flags) > 0 {
		t.Errorf("the replica is %+v", got)
	}
}
