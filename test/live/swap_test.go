//go:build live

package live

import (
	"fmt"
	"testing"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// marks is what a re-sync could not leave as it is: the local image's id, the primary's newest snapshot id (each sync
// makes a snapshot there), and the mirror's journal client.
type marks struct {
	localID, client string
	snapSeq         uint64
}

func marksOf(t *testing.T, image *harness.Image) marks {
	t.Helper()
	return marks{
		localID: image.InfoOn(t, image.Secondary()).ID,
		client:  image.JournalOn(t, image.Primary()).MirrorID(),
		snapSeq: image.SnapSeq(t, image.Primary()),
	}
}

// TestDaemonsTakeOverFromEachOtherWithoutResync hands a pool from upstream's daemon to ours, back, and over again. Each
// goes on from the other's checkpoint.
func TestDaemonsTakeOverFromEachOtherWithoutResync(t *testing.T) {
	pair := harness.ParallelPair(t)
	pool := harness.NewPool(t, pair, lab.PoolMode)
	var images []*harness.Image
	for n := range 3 {
		image := pool.Create(t, fmt.Sprintf("image%d", n), harness.ImageOptions{SizeMiB: 32})
		image.Bench(t, "rand", "16K", "4M")
		images = append(images, image)
	}
	var first []marks
	for turn, path := range []string{harness.Upstream, harness.Ours(t), harness.Upstream} {
		daemon := harness.StartDaemon(t, pair.Secondary, path)
		for _, image := range images {
			image.WaitReplayed(t)
			if turn == 0 {
				// A user's snapshot, which both daemons must keep in the map of snapshot ids.
				image.Snapshot(t, "kept")
				image.WaitReplayed(t)
				first = append(first, marksOf(t, image))
			}
			image.Bench(t, "rand", "4K", "1M")
		}
		for n, image := range images {
			image.WaitReplayed(t)
			if got := marksOf(t, image); got != first[n] {
				t.Fatalf("turn %d, %s: %s synced anew: %+v, before %+v", turn, path, image.Name, got, first[n])
			}
		}
		daemon.Stop(t, stopTime)
		for _, image := range images { // written while no daemon runs
			image.Bench(t, "seq", "32K", "1M")
		}
	}
	last := harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	for _, image := range images {
		image.WaitReplayed(t)
		image.AssertEqual(t)
		image.AssertObjectMap(t, pair.Secondary)
	}
	last.Stop(t, stopTime)
}
