//go:build live

package live

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	"github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// setOmap stores a value in an object of a pool behind everybody's back.
func setOmap(t *testing.T, c *lab.Cluster, pool, object, key string, fill func(e *encoding.Encoder)) {
	t.Helper()
	var e encoding.Encoder
	fill(&e)
	file := filepath.Join(t.TempDir(), "value")
	if err := os.WriteFile(file, e.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	harness.Run(t, c, "rados", "--pool", pool, "setomapval", object, key, "--input-file", file)
}

// twoPeers gives a pool that is mirrored a second peer to receive from, of a uuid that comes before the first one's. (rbd
// refuses to add one; a direction that is changed makes one all the same.) It takes nothing over, and is warned of.
func twoPeers(t *testing.T, pair *lab.Pair) {
	pool := harness.NewPool(t, pair, lab.PoolMode)
	image := pool.Create(t, "image", harness.ImageOptions{SizeMiB: 8})
	image.Bench(t, "rand", "16K", "512K")
	image.WaitReplayed(t)
	id := image.InfoOn(t, pair.Secondary).ID
	if out, err := harness.Try(pair.Secondary, "rbd", "mirror", "pool", "peer", "add", pool.Name, "client.x@elsewhere"); err == nil {
		t.Errorf("rbd added a second peer: %s", out)
	} else if !strings.Contains(err.Error(), "multiple RX peers are not currently supported") {
		t.Errorf("rbd says %v; our callout begins with other words", err)
	}
	second := mirror.Peer{UUID: "00000000-0000-4000-8000-000000000000", SiteName: "elsewhere", ClientName: "client.x"}
	setOmap(t, pair.Secondary, pool.Name, "rbd_mirroring", "mirror_peer_"+second.UUID, second.Encode)
	warns := func() string {
		for _, d := range pool.PoolStatusOn(t, pair.Secondary).Daemons {
			if text := fmt.Sprint(d.Callouts); strings.Contains(text, "multiple RX peers") && strings.Contains(text, "not from elsewhere") {
				return ""
			}
		}
		return "no callout warns of the second peer"
	}
	harness.Eventually(t, harness.Patience, warns)
	still := func() {
		t.Helper()
		image.Bench(t, "rand", "16K", "512K")
		image.WaitReplayed(t)
		image.AssertReplica(t)
		if now := image.InfoOn(t, pair.Secondary).ID; now != id {
			t.Errorf("the copy was made anew: %s, before %s", now, id)
		}
	}
	still()
	harness.Run(t, pair.Secondary, "rbd", "mirror", "pool", "peer", "remove", pool.Name, second.UUID)
	harness.Eventually(t, harness.Patience, func() string {
		if warns() == "" {
			return "the callout is left"
		}
		return ""
	})
	still()
}

// initOnly has pools whose namespaces are mirrored, and they themselves are not. Ceph 16's rbd cannot ask for it, but a
// newer one may have.
func initOnly(t *testing.T, pair *lab.Pair) {
	pool := harness.NewPool(t, pair, lab.PoolMode)
	namespace := pool.NewNamespace(t, "one", lab.PoolMode)
	for _, c := range []*lab.Cluster{pair.Primary, pair.Secondary} {
		setOmap(t, c, pool.Name, "rbd_mirroring", "mirror_mode", func(e *encoding.Encoder) { e.U32(uint32(mirror.ModeInitOnly)) })
	}
	outside := pool.Create(t, "image", harness.ImageOptions{SizeMiB: 8})
	outside.Bench(t, "rand", "16K", "512K")
	image := namespace.Create(t, "image", harness.ImageOptions{SizeMiB: 8})
	image.Bench(t, "rand", "16K", "512K")
	image.WaitReplayed(t)
	image.Snapshot(t, "snap")
	image.Bench(t, "rand", "16K", "512K")
	image.WaitReplayed(t)
	image.AssertEqual(t)
	image.AssertObjectMap(t, pair.Secondary)
	if got := harness.Run(t, pair.Secondary, "rbd", "ls", pool.Name); got != "" {
		t.Errorf("images of the pool itself: %q", got)
	}
}

// erasureCoded has images whose data are in a pool with an erasure code, copied, replayed, compared and mended there.
func erasureCoded(t *testing.T, pair *lab.Pair) {
	pool := harness.NewPool(t, pair, lab.PoolMode)
	data := pool.Name + "-erasure"
	harness.NewErasurePool(t, pair, data)
	image := pool.Create(t, "image", harness.ImageOptions{SizeMiB: 16, Flags: []string{"--object-size", "1M", "--data-pool", data}})
	writer := image.OpenWriter(t, pair.Primary, 21)
	writer.Write(60)
	writer.Flush()
	image.Snapshot(t, "one")
	image.WaitReplayed(t)
	writer.Write(120)
	writer.Flush()
	image.Snapshot(t, "two")
	writer.Write(30)
	want := writer.Digest()
	writer.Close()
	image.WaitReplayed(t)
	image.AssertEqual(t)
	if got := image.DigestOn(t, pair.Secondary, ""); got != want {
		t.Errorf("the copy holds %+v, what was written is %+v", got, want)
	}
	image.AssertObjectMap(t, pair.Secondary)
	image.Verify(t, pair.Secondary, 0)
	if info := image.InfoOn(t, pair.Secondary); info.DataPool != data {
		t.Errorf("the copy's data are in %q", info.DataPool)
	}

	harness.Run(t, pair.Primary, "rbd", "snap", "protect", image.Spec()+"@one")
	harness.Run(t, pair.Primary, "rbd", "clone", "--data-pool", data, "--image-feature", harness.Features,
		image.Spec()+"@one", pool.Spec()+"/clone")
	clone := &harness.Image{Pool: pool, Name: "clone"}
	clone.Bench(t, "rand", "4K", "256K") // copied up first
	harness.FailOver(t, withReplayed(t, image, clone)...)
	for _, i := range []*harness.Image{image, clone} {
		i.AssertEqual(t)
		i.AssertObjectMapCheck(t, pair.Secondary)
	}
}

// withReplayed waits for images to be replayed.
func withReplayed(t *testing.T, images ...*harness.Image) []*harness.Image {
	t.Helper()
	for _, i := range images {
		i.WaitReplayed(t)
	}
	return images
}
