//go:build live

package random_test

import (
	"flag"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/test/harness"
	"github.com/rbdwarden/rbdwarden/test/random"
)

var (
	seed     = flag.Uint64("seed", defaultSeed, "seed of the randomised run; 0: from the clock")
	duration = flag.Duration("duration", 0, "how long the randomised run begins new rounds; 0: 20 s, or 10 minutes with the tag long")
	families = flag.Int("families", 5, "families of images that are worked on side by side")
	calm     = flag.Bool("calm", false, "without faults")
	hold     = flag.Duration("hold", 0, "how long the clusters of a failed run stay, to be looked at")
	workers  = flag.Int("workers", 0, "workers of each daemon; 0: as it chooses")
	clones   = flag.Bool("clones", true, "with clones")
)

func TestMain(m *testing.M) { harness.Main(m) }

// TestRandom is the randomised run: see the package's description.
func TestRandom(t *testing.T) {
	opt := random.Options{
		Seed: *seed, Duration: *duration, Families: *families, Operations: 15, LongestPause: time.Minute, Clones: *clones, Workers: *workers,
		Calm: *calm, Hold: *hold,
	}
	if opt.Seed == 0 {
		opt.Seed = uint64(time.Now().UnixNano() / int64(time.Millisecond) % 1e9)
	}
	if opt.Duration == 0 {
		opt.Duration = defaultDuration
	}
	if opt.Duration < 2*time.Minute {
		opt.LongestPause = 10 * time.Second
	}
	random.Start(t, harness.OwnPair(t, "osd_snap_trim_sleep = 0"), opt)
}
