//go:build live

package live

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// TestWhatOperatorsToolsWriteIsMirrored mirrors what not virtual machines write but tools: encryption headers, imports,
// differences, and what sparsifying leaves.
func TestWhatOperatorsToolsWriteIsMirrored(t *testing.T) {
	pair := harness.SharedPair(t)
	pool := harness.NewPool(t, pair, lab.PoolMode)
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	random := func(n int) []byte {
		b := make([]byte, n)
		rand.Read(b)
		return b
	}
	rbd := func(args ...string) { t.Helper(); harness.Run(t, pair.Primary, "rbd", args...) }

	// librbd refuses to format, or to open, an encrypted image with a journal; it gets one afterwards.
	const unjournaled = "layering,exclusive-lock,object-map,fast-diff,deep-flatten"
	luks1 := pool.Create(t, "luks1", harness.ImageOptions{SizeMiB: 32, Features: unjournaled})
	luks2 := pool.Create(t, "luks2", harness.ImageOptions{SizeMiB: 48, Features: unjournaled})
	target := pool.Create(t, "target", harness.ImageOptions{SizeMiB: 16})
	passphrase := write("passphrase", []byte("correct horse battery staple"))
	rbd("encryption", "format", luks1.Spec(), "luks1", passphrase)
	rbd("encryption", "format", luks2.Spec(), "luks2", passphrase)
	rbd("feature", "enable", luks1.Spec(), "journaling")

	harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	for _, image := range []*harness.Image{luks1, target} {
		image.WaitReplayed(t)
	}
	rbd("feature", "enable", luks2.Spec(), "journaling")

	contents := write("contents", slices.Concat(random(3<<20), make([]byte, 5<<20), random(1<<20), make([]byte, 7<<20)))
	imported := &harness.Image{Pool: pool, Name: "imported"}
	rbd("import", "--image-feature", unjournaled+",journaling", contents, imported.Spec())
	rbd("snap", "create", imported.Spec()+"@whole")
	difference := filepath.Join(dir, "difference")
	rbd("export-diff", imported.Spec()+"@whole", difference)
	rbd("import-diff", difference, target.Spec())
	rbd("sparsify", "--sparse-size", "64K", imported.Spec())

	images := []*harness.Image{luks1, luks2, imported, target}
	for _, image := range images {
		image.WaitReplayed(t)
		image.AssertReplica(t)
	}
	if a, b := imported.DigestOn(t, pair.Secondary, "whole"), target.DigestOn(t, pair.Secondary, "whole"); a != b {
		t.Errorf("the difference of an image was imported as something else: %v, want %v", b, a)
	}
}
