//go:build live && long

package live

import (
	"fmt"
	"testing"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// TestTwentyFailovers changes the primary twenty times in good order, with writes between. Nothing is copied anew.
func TestTwentyFailovers(t *testing.T) {
	pair := harness.ParallelPair(t)
	pool := harness.NewPool(t, pair, lab.ImageMode)
	harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	harness.StartDaemon(t, pair.Primary, harness.Ours(t))
	failoverAndBack(t, &harness.Image{Pool: pool, Name: "image"}, 10)
}

// TestForcedPromotionsInEveryWeather promotes images by force, a site a time lost in another way, with the daemon
// replaying several of them. Each promotion takes 10 seconds at most.
func TestForcedPromotionsInEveryWeather(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, c *lab.Cluster){
		"Alive":  func(*testing.T, *lab.Cluster) {},
		"Frozen": pause,
		"Dead": func(t *testing.T, c *lab.Cluster) {
			if err := c.Stop(); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			pair := harness.ParallelPair(t)
			pool := harness.NewPool(t, pair, lab.PoolMode)
			var images []*harness.Image
			for n := range 4 {
				image := pool.Create(t, fmt.Sprintf("image%d", n), harness.ImageOptions{SizeMiB: 16})
				image.Bench(t, "rand", "16K", "1M")
				images = append(images, image)
			}
			daemon := harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
			for _, image := range images {
				image.WaitReplayed(t)
				image.Bench(t, "rand", "4K", "1M")
			}
			lose(t, pair.Primary)
			for _, image := range images {
				forcePromote(t, image)
				harness.BenchOn(t, pair.Secondary, image, "--io-size", "4K", "--io-total", "64K")
			}
			daemon.Stop(t, stopTime)
		})
	}
}
