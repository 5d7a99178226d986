//go:build live

package live

import (
	"strings"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// blocklist is the set of client addresses that a cluster keeps out.
func blocklist(t *testing.T, c *lab.Cluster) map[string]bool {
	t.Helper()
	entries := map[string]bool{}
	for line := range strings.Lines(harness.Run(t, c, "ceph", "osd", "blocklist", "ls")) {
		if address, _, ok := strings.Cut(line, " "); ok {
			entries[address] = true
		}
	}
	return entries
}

// TestSIGTERMEndsCleanly ends the daemon while it replays under load. It ends within seconds with status 0, holds no
// lock on any image, and was fenced nowhere.
func TestSIGTERMEndsCleanly(t *testing.T) {
	pair := harness.SharedPair(t)
	pool := harness.NewPool(t, pair, lab.PoolMode)
	images := []*harness.Image{
		pool.Create(t, "a", harness.ImageOptions{SizeMiB: 32}), pool.Create(t, "b", harness.ImageOptions{SizeMiB: 32}),
	}
	before := map[*lab.Cluster]map[string]bool{}
	for _, c := range []*lab.Cluster{pair.Primary, pair.Secondary} {
		before[c] = blocklist(t, c)
	}
	daemon := harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	for _, image := range images {
		image.WaitReplayed(t)
	}
	stop := writeUntilStopped(t, images)
	took := daemon.Stop(t, stopTime)
	stop()
	if !harness.TestsUpstream() && took > 10*time.Second {
		t.Errorf("the daemon took %v to end", took)
	}
	for c, known := range before {
		for address := range blocklist(t, c) {
			if !known[address] {
				t.Errorf("%s blocklisted %s", c.Name(), address)
			}
		}
	}
	for _, image := range images {
		if locks := harness.Run(t, pair.Secondary, "rbd", "lock", "ls", image.Spec()); locks != "" {
			t.Errorf("%s is still locked:\n%s", image.Name, locks)
		}
		status, err := image.StatusOn(pair.Secondary)
		if err != nil || !strings.HasPrefix(status.State, "down+") {
			t.Errorf("without a daemon the status of %s is %+v, %v", image.Name, status, err)
		}
	}
	// What was not replayed yet is, by the next daemon.
	next := harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	for _, image := range images {
		image.WaitReplayed(t)
		image.AssertReplica(t)
	}
	next.Stop(t, stopTime)
}

// TestImageModeMirrorsTheEnabledImagesOnly covers a pool where images are enabled one by one, and disabled again.
func TestImageModeMirrorsTheEnabledImagesOnly(t *testing.T) {
	pair := harness.SharedPair(t)
	pool := harness.NewPool(t, pair, lab.ImageMode)
	chosen := pool.Create(t, "chosen", harness.ImageOptions{SizeMiB: 16, Features: "layering,exclusive-lock,object-map,fast-diff"})
	pool.Create(t, "ignored", harness.ImageOptions{SizeMiB: 16})
	daemon := harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	harness.Run(t, pair.Primary, "rbd", "mirror", "image", "enable", chosen.Spec(), "journal")
	chosen.Bench(t, "rand", "16K", "2M")
	chosen.WaitReplayed(t)
	chosen.AssertReplica(t)
	if got := harness.Run(t, pair.Secondary, "rbd", "ls", pool.Name); got != "chosen\n" {
		t.Errorf("the secondary has %q, want the enabled image only", got)
	}

	harness.Run(t, pair.Primary, "rbd", "mirror", "image", "disable", chosen.Spec())
	harness.Eventually(t, harness.Patience, func() string {
		if got := harness.Run(t, pair.Secondary, "rbd", "ls", pool.Name); got != "" {
			return "the secondary keeps " + got
		}
		return ""
	})
	daemon.Stop(t, stopTime)
}

// TestARemovedImageIsRemovedOnTheSecondary removes an image on the primary of a pool-mode pool.
func TestARemovedImageIsRemovedOnTheSecondary(t *testing.T) {
	pair := harness.SharedPair(t)
	pool := harness.NewPool(t, pair, lab.PoolMode)
	image := pool.Create(t, "image", harness.ImageOptions{SizeMiB: 8})
	image.Bench(t, "rand", "4K", "256K")
	image.Snapshot(t, "snap")
	harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	image.WaitReplayed(t)
	harness.Run(t, pair.Primary, "rbd", "snap", "purge", "--no-progress", image.Spec())
	harness.Run(t, pair.Primary, "rbd", "rm", "--no-progress", image.Spec())
	harness.Eventually(t, harness.Patience, func() string {
		if got := harness.Run(t, pair.Secondary, "rbd", "ls", pool.Name); got != "" {
			return "the secondary keeps " + got
		}
		return ""
	})
}
