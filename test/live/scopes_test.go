//go:build live

package live

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// TestScopes covers what is mirrored: pools in both modes, namespaces, directions, and what becomes of it when operators
// change that while the daemon runs. A pool each, all at the same time.
func TestScopes(t *testing.T) {
	pair := harness.ParallelPair(t)
	// The pools come later than the daemon, which looks for them at this interval.
	harness.StartDaemon(t, pair.Secondary, harness.Ours(t), "--rbd-mirror-pool-replayers-refresh-interval", "3")
	for name, test := range map[string]func(*testing.T, *lab.Pair){
		"Namespaces": namespaces, "SendingPeer": sendingPeer, "PeerReplaced": peerReplaced,
		"MirroringDisabled": mirroringDisabled, "PoolMode": poolMode, "CopyDisabled": copyDisabled,
		"TwoPeers": twoPeers, "InitOnly": initOnly, "ErasureCodedData": erasureCoded,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, pair)
		})
	}
}

// namespaces has an image of the same name in the default namespace, and in two of three others, in different modes.
func namespaces(t *testing.T, pair *lab.Pair) {
	pool := harness.NewPool(t, pair, lab.PoolMode)
	var images []*harness.Image
	for ns, mode := range map[string]string{"": "", "one": "pool", "two": "image", "three": ""} {
		inside := *pool
		if ns != "" {
			inside.Namespace = ns
			for _, c := range []*lab.Cluster{pair.Primary, pair.Secondary} {
				harness.Run(t, c, "rbd", "namespace", "create", inside.Spec())
				if mode != "" {
					harness.Run(t, c, "rbd", "mirror", "pool", "enable", inside.Spec(), mode)
				}
			}
		}
		image := inside.Create(t, "image", harness.ImageOptions{SizeMiB: 8})
		if mode == "image" {
			harness.Run(t, pair.Primary, "rbd", "mirror", "image", "enable", image.Spec(), "journal")
		}
		harness.BenchOn(t, pair.Primary, image, "--io-size", "16K", "--io-total", "512K")
		if ns != "three" {
			images = append(images, image)
		}
	}
	for _, image := range images {
		image.WaitState(t, "up+replaying")
		image.Bench(t, "rand", "16K", "512K")
		image.WaitReplayed(t)
		image.AssertReplica(t)
	}
	if got := harness.Run(t, pair.Secondary, "rbd", "ls", pool.Name+"/three"); got != "" {
		t.Errorf("images of a namespace that is not mirrored: %q", got)
	}
	// One of them ends; the others go on.
	harness.Run(t, pair.Primary, "rbd", "rm", "--no-progress", pool.Name+"/one/image")
	harness.Eventually(t, harness.Patience, func() string {
		if got := harness.Run(t, pair.Secondary, "rbd", "ls", pool.Name+"/one"); got != "" {
			return "the secondary keeps " + got
		}
		return ""
	})
	for _, image := range images {
		if image.Pool.Namespace != "one" {
			image.AssertReplica(t)
		}
	}
}

// peerOf is the uuid of the pool's one peer.
func peerOf(t *testing.T, c *lab.Cluster, pool string) string {
	t.Helper()
	var info struct {
		Peers []struct {
			UUID string `json:"uuid"`
		} `json:"peers"`
	}
	if err := json.Unmarshal([]byte(harness.Run(t, c, "rbd", "mirror", "pool", "info", "--format", "json", pool)), &info); err != nil {
		t.Fatal(err)
	}
	if len(info.Peers) != 1 {
		t.Fatalf("%d peers of %s", len(info.Peers), pool)
	}
	return info.Peers[0].UUID
}

// sendingPeer has a peer that is only sent to: nothing may be pulled from it, until the operator says otherwise.
func sendingPeer(t *testing.T, pair *lab.Pair) {
	pool := harness.NewPool(t, pair, lab.PoolMode)
	peer := peerOf(t, pair.Secondary, pool.Name)
	harness.Run(t, pair.Secondary, "rbd", "mirror", "pool", "peer", "set", pool.Name, peer, "direction", "tx-only")
	// An image in a pool that is younger tells when the daemon has looked again.
	look := func() {
		t.Helper()
		younger := harness.NewPool(t, pair, lab.PoolMode).Create(t, "image", harness.ImageOptions{SizeMiB: 8})
		younger.Bench(t, "rand", "16K", "512K")
		younger.WaitReplayed(t)
	}
	look()
	image := pool.Create(t, "image", harness.ImageOptions{SizeMiB: 8})
	image.Bench(t, "rand", "16K", "512K")
	look()
	if got := harness.Run(t, pair.Secondary, "rbd", "ls", pool.Name); got != "" {
		t.Errorf("pulled %q from a peer that is only sent to", got)
	}
	harness.Run(t, pair.Secondary, "rbd", "mirror", "pool", "peer", "set", pool.Name, peer, "direction", "rx-only")
	image.WaitReplayed(t)
	image.AssertReplica(t)

	harness.Run(t, pair.Secondary, "rbd", "mirror", "pool", "peer", "set", pool.Name, peer, "direction", "tx-only")
	waitNotReplaying(t, image)
	// Let go of: a forced promotion finds nobody in its way.
	harness.Run(t, pair.Secondary, "rbd", "mirror", "image", "promote", "--force", image.Spec())
}

// waitNotReplaying waits until the secondary says no more that it replays the image.
func waitNotReplaying(t *testing.T, image *harness.Image) {
	t.Helper()
	harness.Eventually(t, harness.Patience, func() string {
		if s, err := image.StatusOn(image.Secondary()); err != nil || s.State == "up+replaying" {
			return fmt.Sprintf("status %+v, %v", s, err)
		}
		return ""
	})
}

// peerReplaced removes the peer while its images replay, and adds it again: under another uuid. Nothing is copied anew.
func peerReplaced(t *testing.T, pair *lab.Pair) {
	pool := harness.NewPool(t, pair, lab.PoolMode)
	image := pool.Create(t, "image", harness.ImageOptions{SizeMiB: 8})
	image.Bench(t, "rand", "16K", "512K")
	image.WaitReplayed(t)
	id, peer := image.InfoOn(t, pair.Secondary).ID, peerOf(t, pair.Secondary, pool.Name)
	harness.Run(t, pair.Secondary, "rbd", "mirror", "pool", "peer", "remove", pool.Name, peer)
	waitNotReplaying(t, image)
	image.Bench(t, "rand", "16K", "512K")
	if err := pair.Introduce(t.Context(), pool.Name); err != nil {
		t.Fatal(err)
	}
	if now := peerOf(t, pair.Secondary, pool.Name); now == peer {
		t.Fatal("the peer has the same uuid as before")
	}
	image.WaitReplayed(t)
	image.AssertReplica(t)
	if now := image.InfoOn(t, pair.Secondary).ID; now != id {
		t.Errorf("the copy was made anew: %s, before %s", now, id)
	}
}

// mirroringDisabled ends the mirroring of the whole pool on the primary. The copies are kept: nobody removed an image.
func mirroringDisabled(t *testing.T, pair *lab.Pair) {
	pool := harness.NewPool(t, pair, lab.PoolMode)
	image := pool.Create(t, "image", harness.ImageOptions{SizeMiB: 8})
	image.Bench(t, "rand", "16K", "512K")
	image.WaitReplayed(t)
	want := image.DigestOn(t, pair.Secondary, "")
	harness.Run(t, pair.Primary, "rbd", "mirror", "pool", "peer", "remove", pool.Name, peerOf(t, pair.Primary, pool.Name))
	harness.Run(t, pair.Primary, "rbd", "mirror", "pool", "disable", pool.Name)
	image.WaitState(t, "up+error", "disabled")
	if got := image.DigestOn(t, pair.Secondary, ""); got != want {
		t.Errorf("the copy has changed: %+v, was %+v", got, want)
	}
	harness.Run(t, pair.Secondary, "rbd", "mirror", "image", "promote", "--force", image.Spec())
	image.WaitStateOn(t, pair.Secondary, "up+stopped")
}

// poolMode takes the image out of a pool that is mirrored as a whole, in the ways that there are, and back.
func poolMode(t *testing.T, pair *lab.Pair) {
	pool := harness.NewPool(t, pair, lab.PoolMode)
	image := pool.Create(t, "image", harness.ImageOptions{SizeMiB: 8})
	gone := func() {
		t.Helper()
		harness.Eventually(t, harness.Patience, func() string {
			if got := harness.Run(t, pair.Secondary, "rbd", "ls", pool.Name); got != "" {
				return "the secondary keeps " + got
			}
			return ""
		})
	}
	back := func() {
		t.Helper()
		image.Bench(t, "rand", "16K", "512K")
		image.WaitReplayed(t)
		image.AssertReplica(t)
	}
	back()
	harness.Run(t, pair.Primary, "rbd", "feature", "disable", image.Spec(), "journaling")
	gone()
	harness.Run(t, pair.Primary, "rbd", "feature", "enable", image.Spec(), "journaling")
	back()
	id := image.InfoOn(t, pair.Primary).ID
	harness.Run(t, pair.Primary, "rbd", "trash", "mv", image.Spec())
	gone()
	harness.Run(t, pair.Primary, "rbd", "trash", "restore", pool.Name+"/"+id)
	back()
	for _, c := range []*lab.Cluster{pair.Primary, pair.Secondary} {
		harness.Run(t, c, "rbd", "mirror", "pool", "enable", pool.Name, "image")
	}
	back()
}

// copyDisabled ends the mirroring of the copy by hand: it is an image like others then, which keeps its name. When that
// is free again, a new copy is made.
func copyDisabled(t *testing.T, pair *lab.Pair) {
	pool := harness.NewPool(t, pair, lab.ImageMode)
	image := pool.Create(t, "image", harness.ImageOptions{SizeMiB: 8})
	harness.Run(t, pair.Primary, "rbd", "mirror", "image", "enable", image.Spec(), "journal")
	image.Bench(t, "rand", "16K", "512K")
	image.WaitReplayed(t)
	want := image.DigestOn(t, pair.Secondary, "")
	harness.Run(t, pair.Secondary, "rbd", "mirror", "image", "disable", "--force", image.Spec())
	image.Bench(t, "rand", "16K", "512K")
	if got := image.DigestOn(t, pair.Secondary, ""); got != want {
		t.Errorf("an image that is not mirrored was written: %+v, was %+v", got, want)
	}
	waitNameTaken(t, image)
	harness.Run(t, pair.Secondary, "rbd", "rename", image.Spec(), pool.Name+"/kept")
	image.WaitReplayed(t)
	image.AssertReplica(t)
}
