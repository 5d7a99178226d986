//go:build live

package live

import (
	"testing"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// TestForcedPromotionUnderLoad freezes the primary site while its clients write and the daemon replays. The secondary is
// promoted within seconds, and written. The primary site comes back and thinks that it is primary: nothing happens by
// itself. Once it is demoted, it is told that its history is another, and only a resync mends that.
func TestForcedPromotionUnderLoad(t *testing.T) {
	pair := harness.ParallelPair(t)
	pool := harness.NewPool(t, pair, lab.PoolMode)
	image := pool.Create(t, "image", harness.ImageOptions{SizeMiB: 32})
	image.Bench(t, "rand", "16K", "1M")
	harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	image.WaitReplayed(t)
	began := image.JournalOn(t, pair.Primary).Mirror()
	load := pair.Primary.Command(t.Context(), "rbd", "bench", "--io-type", "write", "--io-pattern", "rand", "--io-size", "4K",
		"--io-total", "4G", image.Spec())
	if err := load.Start(); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, harness.Patience, func() string {
		if now := image.JournalOn(t, pair.Primary).Mirror(); !began.Before(now) {
			return "the load is not replayed"
		}
		return ""
	})
	pause(t, pair.Primary)
	forcePromote(t, image)
	harness.BenchOn(t, pair.Secondary, image, "--io-size", "4K", "--io-total", "256K")
	want := image.DigestOn(t, pair.Secondary, "")
	load.Process.Kill()
	load.Wait()
	resume(t, pair.Primary)

	harness.StartDaemon(t, pair.Primary, harness.Ours(t))
	image.WaitStateOn(t, pair.Primary, "up+stopped", "local image is primary")
	image.WaitStateOn(t, pair.Secondary, "up+stopped")
	// The writer that was killed holds the image until its watch is given up.
	harness.Eventually(t, harness.Patience, func() string {
		if _, err := harness.Try(pair.Primary, "rbd", "mirror", "image", "demote", image.Spec()); err != nil {
			return err.Error()
		}
		return ""
	})
	image.WaitStateOn(t, pair.Primary, "up+error", "split-brain")
	image.WaitStateOn(t, pair.Secondary, "up+stopped", "local image is primary")
	if got := image.DigestOn(t, pair.Secondary, ""); got != want {
		t.Errorf("the promoted image was written: %+v, was %+v", got, want)
	}
	harness.Run(t, pair.Primary, "rbd", "mirror", "image", "resync", image.Spec())
	turned := reversed(image)
	turned.Bench(t, "rand", "16K", "512K")
	turned.WaitReplayed(t)
	turned.AssertReplica(t)
}
