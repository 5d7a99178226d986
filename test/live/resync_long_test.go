//go:build live && long

package live

import (
	"fmt"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// halfway makes a copy that has a history of its own, asks for a re-sync in place, and answers when that is under way. It
// compares one small object at a time, so that there is something to interrupt.
func halfway(t *testing.T, pool *harness.Pool, name string) (image *harness.Image, daemon *harness.Daemon, id string) {
	t.Helper()
	c := pool.Pair.Secondary
	start := func() *harness.Daemon {
		return harness.StartDaemon(t, c, harness.Ours(t), "--rbd-concurrent-management-ops", "1")
	}
	image = pool.Create(t, name, harness.ImageOptions{SizeMiB: 48, Flags: []string{"--object-size", "16K"}})
	fill(t, image)
	daemon = start()
	image.WaitReplayed(t)
	daemon.Stop(t, time.Minute)
	harness.Run(t, c, "rbd", "mirror", "image", "promote", "--force", image.Spec())
	scribble(t, image, c, 3, 200)
	harness.Run(t, c, "rbd", "mirror", "image", "demote", image.Spec())
	scribble(t, image, pool.Pair.Primary, 4, 200)
	id = image.InfoOn(t, c).ID
	daemon = start()
	image.WaitState(t, "up+error", "split-brain")
	harness.Run(t, c, "rbd", "mirror", "image", "resync", image.Spec())
	waitHalfway(t, image)
	return image, daemon, id
}

// waitHalfway waits until the mirror's client has told how far the copy of its image is.
func waitHalfway(t *testing.T, image *harness.Image) {
	t.Helper()
	harness.Eventually(t, harness.Patience, func() string {
		meta, ok := image.PeerMeta(t)
		if !ok || meta.State != journal.PeerSyncing || len(meta.SyncPoints) == 0 || meta.SyncPoints[0].ObjectNumber == nil {
			return fmt.Sprintf("no copy is under way: %+v", meta)
		}
		return ""
	})
	assertHalfMade(t, image)
}

// assertHalfMade fails the test unless both sites' records say that the copy is not complete: then nobody replays onto it.
func assertHalfMade(t *testing.T, image *harness.Image) {
	t.Helper()
	if meta, ok := image.PeerMeta(t); !ok || meta.State != journal.PeerSyncing || !image.ResyncRequested(t, image.Secondary()) {
		t.Fatalf("a copy that is half of the one and half of the other is not known as such: %+v", meta)
	}
}

// TestResyncInPlaceInterrupted ends a re-sync in place midway in three ways.
func TestResyncInPlaceInterrupted(t *testing.T) {
	pair := harness.ParallelPair(t, "rbd_mirror_sync_point_update_age = 0.5")
	t.Run("Killed", func(t *testing.T) {
		image, daemon, id := halfway(t, harness.NewPool(t, pair, lab.PoolMode), "killed")
		for range 3 {
			daemon.Kill()
			assertHalfMade(t, image)
			daemon = harness.StartDaemon(t, pair.Secondary, harness.Ours(t), "--rbd-concurrent-management-ops", "1")
			waitHalfway(t, image)
			daemon.KillWorkers()
		}
		image.WaitReplayed(t)
		image.AssertEqual(t)
		image.AssertObjectMap(t, pair.Secondary)
		if now := image.InfoOn(t, pair.Secondary).ID; now != id {
			t.Errorf("the copy %s was replaced by %s", id, now)
		}
		if image.ResyncRequested(t, pair.Secondary) {
			t.Error("the request is left")
		}
		daemon.Stop(t, stopTime)
	})
	t.Run("UpstreamTakesOver", func(t *testing.T) {
		image, daemon, id := halfway(t, harness.NewPool(t, pair, lab.PoolMode), "upstream")
		daemon.Kill()
		assertHalfMade(t, image)
		upstream := harness.StartDaemon(t, pair.Secondary, harness.Upstream)
		image.WaitReplayed(t)
		image.AssertEqual(t)
		if now := image.InfoOn(t, pair.Secondary).ID; now == id {
			t.Error("upstream's daemon went on with half a copy")
		}
		upstream.Stop(t, stopTime)
	})
	t.Run("Promoted", func(t *testing.T) {
		image, daemon, _ := halfway(t, harness.NewPool(t, pair, lab.PoolMode), "promoted")
		forcePromote(t, image)
		image.WaitState(t, "up+stopped", "local image is primary")
		// Half of the one and half of the other, and written from here on: that it has to be copied stays known.
		assertHalfMade(t, image)
		harness.BenchOn(t, pair.Secondary, image, "--io-size", "4K", "--io-total", "256K")
		harness.Run(t, pair.Secondary, "rbd", "mirror", "image", "demote", image.Spec())
		image.WaitReplayed(t)
		image.AssertEqual(t)
		daemon.Stop(t, stopTime)
	})
}
