//go:build live

package live

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// TestResyncInPlace lets copies go astray in several ways and asks for a re-sync. The copy is mended and not replaced:
// what is copied is little, and says so.
func TestResyncInPlace(t *testing.T) {
	if harness.TestsUpstream() {
		t.Skip("upstream copies everything")
	}
	pair := harness.ParallelPair(t)
	pool := harness.NewPool(t, pair, lab.PoolMode)
	split := pool.Create(t, "split", harness.ImageOptions{SizeMiB: 32})
	flipped := pool.Create(t, "flipped", harness.ImageOptions{SizeMiB: 16, Features: "layering,exclusive-lock,journaling"})
	small := pool.Create(t, "small-objects", harness.ImageOptions{SizeMiB: 8, Flags: []string{"--object-size", "16K"}})
	images := []*harness.Image{split, flipped, small}
	daemon := harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	ids := map[string]string{}
	for _, image := range images {
		fill(t, image)
		scribble(t, image, pair.Primary, 1, 20)
		image.Snapshot(t, "one")
		scribble(t, image, pair.Primary, 2, 4)
		image.Snapshot(t, "two")
		image.WaitReplayed(t)
		ids[image.Name] = image.InfoOn(t, pair.Secondary).ID
	}
	daemon.Stop(t, time.Minute)

	// Two histories: the secondary is promoted, written, snapshotted and demoted; the primary goes on.
	here := func(args ...string) { harness.Run(t, pair.Secondary, "rbd", args...) }
	for _, image := range []*harness.Image{split, small} {
		here("mirror", "image", "promote", "--force", image.Spec())
		scribble(t, image, pair.Secondary, 3, 4)
		here("snap", "create", "--no-progress", image.Spec()+"@astray")
		here("snap", "protect", image.Spec()+"@astray")
		here("resize", "--no-progress", "--size", "40M", image.Spec())
		here("mirror", "image", "demote", image.Spec())
		harness.Run(t, pair.Primary, "rbd", "image-meta", "set", image.Spec(), "owner", "primary")
	}
	// A snapshot that is not what it should be, and what is newer, are made anew.
	here("mirror", "image", "promote", "--force", small.Spec())
	here("snap", "rm", "--no-progress", small.Spec()+"@two")
	here("snap", "create", "--no-progress", small.Spec()+"@two")
	here("mirror", "image", "demote", small.Spec())
	scribble(t, split, pair.Primary, 4, 4)
	split.Snapshot(t, "three")
	split.Resize(t, 24)

	daemon = harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	split.WaitState(t, "up+error", "split-brain")
	for _, image := range []*harness.Image{split, small} {
		here("mirror", "image", "resync", image.Spec())
	}
	flipped.WaitReplayed(t)
	flipped.FlipByte(t, pair.Secondary, fmt.Sprintf("rbd_data.%s.%016x", ids["flipped"], 1), 4097)
	if out, complaints, code := harness.Warden(t, pair.Secondary, "resync", "--checksum", flipped.Spec()); code != 0 {
		t.Fatalf("resync exits with %d: %s%s", code, out, complaints)
	}
	if _, complaints, code := harness.Warden(t, pair.Primary, "resync", flipped.Spec()); code == 0 {
		t.Errorf("a primary is re-synced: %s", complaints)
	}

	saved := waitResynced(t, daemon, len(images))
	for _, image := range images {
		image.WaitReplayed(t)
		image.AssertEqual(t)
		if now := image.InfoOn(t, pair.Secondary).ID; now != ids[image.Name] {
			t.Errorf("%s: the copy %s was replaced by %s", image.Name, ids[image.Name], now)
		}
	}
	for _, s := range saved {
		t.Logf("compared %d bytes, copied %d", s.Compared, s.Copied)
		if s.Copied*4 > s.Compared {
			t.Errorf("compared %d bytes and copied %d: too many", s.Compared, s.Copied)
		}
	}
	split.Verify(t, pair.Secondary, 0, "--snap", "three")
	for _, image := range []*harness.Image{split, small} {
		image.AssertObjectMap(t, pair.Secondary)
	}

	t.Run("replay goes on and the copy can be promoted", func(t *testing.T) {
		for _, image := range images {
			image.Bench(t, "rand", "4K", "256K")
			image.Snapshot(t, "four")
			image.WaitReplayed(t)
			image.AssertEqual(t)
		}
		harness.Run(t, pair.Primary, "rbd", "mirror", "image", "demote", split.Spec())
		harness.Eventually(t, harness.Patience, func() string { // refused until the demotion was replayed
			if _, err := harness.Try(pair.Secondary, "rbd", "mirror", "image", "promote", split.Spec()); err != nil {
				return err.Error()
			}
			return ""
		})
		split.AssertObjectMapCheck(t, pair.Secondary)
	})
}

// fill writes every object of an image.
func fill(t *testing.T, image *harness.Image) {
	t.Helper()
	size := fmt.Sprint(image.InfoOn(t, image.Primary()).Size)
	harness.BenchOn(t, image.Primary(), image, "--io-pattern", "seq", "--io-threads", "1",
		"--io-size", "1M", "--io-total", size)
}

// scribble writes something that is nowhere else, in n operations. (What rbd bench writes is the same everywhere.)
func scribble(t *testing.T, image *harness.Image, c *lab.Cluster, seed uint64, n int) {
	t.Helper()
	w := image.NewWriter(t, c, seed)
	defer w.Close()
	w.Write(n)
}

// savings is what a daemon's log says of a re-sync in place.
type savings struct {
	Message  string `json:"message"`
	Compared uint64 `json:"compared_bytes"`
	Copied   uint64 `json:"copied_bytes"`
}

// waitResynced waits until the daemon's log tells of so many re-syncs in place.
func waitResynced(t *testing.T, daemon *harness.Daemon, n int) []savings {
	t.Helper()
	var found []savings
	harness.Eventually(t, harness.Patience, func() string {
		found = nil
		file, err := os.Open(daemon.Log())
		if err != nil {
			return err.Error()
		}
		defer file.Close()
		lines := bufio.NewScanner(file)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var s savings
			if json.Unmarshal(lines.Bytes(), &s) == nil && s.Message == "re-synced in place" {
				found = append(found, s)
			}
		}
		if len(found) < n {
			return fmt.Sprintf("%d of %d images were re-synced, says %s", len(found), n, filepath.Base(daemon.Log()))
		}
		return ""
	})
	return found
}
