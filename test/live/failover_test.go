//go:build live

package live

import (
	"fmt"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// stopTime is how long a daemon may take to end after SIGTERM.
const stopTime = 30 * time.Second

// demote and promote are an operator's commands on one image.
func demote(t *testing.T, c *lab.Cluster, image *harness.Image) {
	t.Helper()
	harness.Run(t, c, "rbd", "mirror", "image", "demote", image.Spec())
}

// promote waits until the cluster lets the image be promoted: before that it has not yet replayed the demotion.
func promote(t *testing.T, c *lab.Cluster, image *harness.Image) {
	t.Helper()
	harness.Eventually(t, harness.Patience, func() string {
		if _, err := harness.Try(c, "rbd", "mirror", "image", "promote", image.Spec()); err != nil {
			return err.Error()
		}
		return ""
	})
}

// TestOrderlyFailoverAndBack demotes the primary, promotes the secondary, writes there, mirrors back with a second
// daemon beside the old primary, and returns.
func TestOrderlyFailoverAndBack(t *testing.T) {
	pair := harness.SharedPair(t)
	pool := harness.NewPool(t, pair, lab.PoolMode)
	image := pool.Create(t, "image", harness.ImageOptions{SizeMiB: 32})
	image.Bench(t, "rand", "16K", "4M")
	image.Snapshot(t, "before")
	harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	harness.StartDaemon(t, pair.Primary, harness.Ours(t))
	image.WaitReplayed(t)
	localID := image.InfoOn(t, pair.Secondary).ID

	image.Bench(t, "rand", "4K", "1M")
	demote(t, pair.Primary, image)
	promote(t, pair.Secondary, image)
	if !image.InfoOn(t, pair.Secondary).Mirroring.Primary {
		t.Fatal("the promoted image is not primary")
	}
	image.AssertReplica(t)
	image.AssertObjectMapCheck(t, pair.Secondary)

	moved := reversed(image)
	moved.Bench(t, "rand", "4K", "1M")
	moved.Snapshot(t, "there")
	moved.WaitReplayed(t)
	moved.AssertReplica(t)

	demote(t, pair.Secondary, image)
	promote(t, pair.Primary, image)
	image.Bench(t, "rand", "4K", "1M")
	image.WaitReplayed(t)
	image.AssertReplica(t)
	if id := image.InfoOn(t, pair.Secondary).ID; id != localID {
		t.Errorf("the secondary's image was made anew: %s, before %s", id, localID)
	}
}

// TestForcedPromotionWhenThePrimarySiteIsLost pauses the whole primary site. The secondary must be promotable within
// seconds, writable, and afterwards hold what the primary had flushed.
func TestForcedPromotionWhenThePrimarySiteIsLost(t *testing.T) {
	pair := harness.ParallelPair(t)
	pool := harness.NewPool(t, pair, lab.PoolMode)
	image := pool.Create(t, "image", harness.ImageOptions{SizeMiB: 32})
	writer := image.OpenWriter(t, pair.Primary, 7)
	writer.Write(200)
	writer.Close()
	daemon := harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	image.WaitReplayed(t)

	pause(t, pair.Primary)
	began := time.Now()
	harness.Run(t, pair.Secondary, "rbd", "mirror", "image", "promote", "--force", image.Spec())
	if took := time.Since(began); took > 10*time.Second && !harness.TestsUpstream() || took > time.Minute {
		t.Errorf("promotion took %v", took)
	}
	if got := image.DigestOn(t, pair.Secondary, ""); got != writer.Digest() {
		t.Errorf("promoted image holds %+v, what was written is %+v", got, writer.Digest())
	}
	harness.BenchOn(t, pair.Secondary, image, "--io-size", "4K", "--io-total", "256K")
	if harness.TestsUpstream() {
		return // its daemon stays in up+stopping_replay, and does not end either
	}
	image.WaitStateOn(t, pair.Secondary, "up+stopped")
	daemon.Stop(t, time.Minute)
}

// TestMirroringGoesOnWhenThePrimarySiteComesBack pauses the primary site for longer than the daemon waits for an answer.
// Nobody restarts anything, and mirroring goes on.
func TestMirroringGoesOnWhenThePrimarySiteComesBack(t *testing.T) {
	pair := harness.ParallelPair(t)
	pool := harness.NewPool(t, pair, lab.PoolMode)
	image := pool.Create(t, "image", harness.ImageOptions{SizeMiB: 16})
	image.Bench(t, "rand", "16K", "1M")
	daemon := harness.StartDaemon(t, pair.Secondary, harness.Ours(t), "--rbd-warden-osd-timeout", "5", "--rbd-warden-mon-timeout", "5")
	image.WaitReplayed(t)

	pause(t, pair.Primary)
	if !harness.TestsUpstream() {
		harness.Eventually(t, harness.Patience, func() string {
			if s, err := image.StatusOn(pair.Secondary); err != nil || s.State == "up+replaying" {
				return fmt.Sprintf("the status hides that the primary site is lost: %+v, %v", s, err)
			}
			return ""
		})
	}
	resume(t, pair.Primary)
	image.Bench(t, "rand", "16K", "1M")
	image.WaitReplayed(t)
	image.AssertReplica(t)
	daemon.Stop(t, stopTime)
}

// TestFailbackWithADaemonThatStartsAfterTheFailover mirrors back with a daemon that the old primary's site did not have
// before. Upstream's daemon reports a split brain then, though nothing is split: it asks for the new primary's tags as a
// client that was registered too late to be told of the older ones.
func TestFailbackWithADaemonThatStartsAfterTheFailover(t *testing.T) {
	if harness.TestsUpstream() {
		t.Skip("upstream's daemon cannot")
	}
	pair := harness.SharedPair(t)
	pool := harness.NewPool(t, pair, lab.PoolMode)
	image := pool.Create(t, "image", harness.ImageOptions{SizeMiB: 16})
	image.Bench(t, "rand", "16K", "1M")
	harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	image.WaitReplayed(t)
	demote(t, pair.Primary, image)
	promote(t, pair.Secondary, image)

	harness.StartDaemon(t, pair.Primary, harness.Ours(t))
	moved := reversed(image)
	// Only entries written from here on are sure to be kept for a site that registers so late; had there been others, it
	// would ask for a resync.
	moved.WaitReplayed(t)
	moved.Bench(t, "rand", "16K", "1M")
	moved.WaitReplayed(t)
	moved.AssertReplica(t)
}

// reversed is the image seen from where it moved to: born on the secondary, mirrored to the primary.
func reversed(image *harness.Image) *harness.Image {
	pair := &lab.Pair{Primary: image.Secondary(), Secondary: image.Primary()}
	return &harness.Image{Pool: &harness.Pool{Pair: pair, Name: image.Pool.Name}, Name: image.Name}
}
