//go:build live

package live

import (
	"fmt"
	"strings"
	"testing"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// family is a parent with clones of every kind.
type family struct {
	t      *testing.T
	pool   *harness.Pool
	parent *harness.Image
	images []*harness.Image // all of them, parents first
}

// newFamily makes a parent image with the snapshots "protected" and "bare", which differ.
func newFamily(t *testing.T, pool *harness.Pool, name string) *family {
	f := &family{t: t, pool: pool}
	f.parent = pool.Create(t, name, harness.ImageOptions{SizeMiB: 24, Flags: []string{"--object-size", "1M"}})
	f.images = append(f.images, f.parent)
	f.parent.Bench(t, "rand", "256K", "8M")
	f.parent.Snapshot(t, "protected")
	f.rbd("snap", "protect", f.parent.Spec()+"@protected")
	f.parent.Bench(t, "rand", "64K", "4M")
	f.parent.Snapshot(t, "bare")
	f.parent.Bench(t, "rand", "64K", "1M")
	return f
}

func (f *family) rbd(args ...string) string {
	f.t.Helper()
	return harness.Run(f.t, f.pool.Pair.Primary, "rbd", args...)
}

func (f *family) clone(parent *harness.Image, snap, name string, o harness.CloneOptions) *harness.Image {
	f.t.Helper()
	clone := parent.Clone(f.t, snap, name, o)
	f.images = append(f.images, clone)
	return clone
}

// live gives a clone a life: writes over the parent's data, between snapshots, and a smaller overlap.
func (f *family) live(clone *harness.Image) {
	f.t.Helper()
	clone.Bench(f.t, "rand", "4K", "64K")
	clone.Snapshot(f.t, "young")
	clone.Bench(f.t, "rand", "32K", "512K")
	clone.Resize(f.t, 19)
	clone.Snapshot(f.t, "small")
	clone.Resize(f.t, 30)
	clone.Bench(f.t, "rand", "4K", "256K")
}

// assertEqual waits for all images, then compares the contents of those given, and parents and clones of them.
func (f *family) assertEqual(images ...*harness.Image) {
	f.t.Helper()
	for _, image := range f.images {
		image.WaitReplayed(f.t)
	}
	for _, image := range images {
		image.AssertEqual(f.t)
		image.AssertFamily(f.t)
	}
}

func (f *family) forget(gone *harness.Image) {
	var kept []*harness.Image
	for _, image := range f.images {
		if image != gone {
			kept = append(kept, image)
		}
	}
	f.images = kept
}

// waitGone waits until the image is away on the secondary.
func waitGone(t *testing.T, image *harness.Image) {
	t.Helper()
	harness.Eventually(t, harness.Patience, func() string {
		if _, err := harness.Try(image.Secondary(), "rbd", "info", image.Spec()); err == nil {
			return image.Spec() + " is still there"
		}
		return ""
	})
}

// TestClonesAreMirrored mirrors clones of both formats, in the parent's pool, another one and a namespace, and a clone of
// a clone: some with a life behind them when the daemon starts, some made while it runs. Both clusters must say the same
// of contents, snapshots, parents and children; also when clones are flattened, and when they and their parent are removed.
func TestClonesAreMirrored(t *testing.T) {
	pair := harness.ParallelPair(t)
	pool := harness.NewPool(t, pair, lab.PoolMode)
	other := harness.NewPool(t, pair, lab.PoolMode)
	space := pool.NewNamespace(t, "space", lab.PoolMode)
	f := newFamily(t, pool, "parent")

	old1 := f.clone(f.parent, "protected", "old1", harness.CloneOptions{Format: 1})
	old2 := f.clone(f.parent, "bare", "old2", harness.CloneOptions{})
	far := f.clone(f.parent, "protected", "far", harness.CloneOptions{Pool: other, Flags: []string{"--object-size", "2M"}})
	apart := f.clone(f.parent, "bare", "apart", harness.CloneOptions{Pool: space})
	for _, clone := range []*harness.Image{old1, old2, far, apart} {
		f.live(clone)
	}
	grandchild := f.clone(old2, "young", "grandchild", harness.CloneOptions{})
	f.live(grandchild)
	harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	f.assertEqual(f.images...)

	t.Run("made while the daemon runs", func(t *testing.T) {
		f.t = t
		new1 := f.clone(f.parent, "protected", "new1", harness.CloneOptions{Format: 1, Pool: other})
		new2 := f.clone(f.parent, "bare", "new2", harness.CloneOptions{Features: "layering,exclusive-lock,journaling"})
		for _, clone := range []*harness.Image{new1, new2, old1, grandchild} {
			clone.Bench(t, "rand", "16K", "512K")
			clone.Snapshot(t, "later")
			clone.Bench(t, "rand", "16K", "512K")
		}
		f.assertEqual(new1, new2, old1, grandchild)
	})
	t.Run("flattened", func(t *testing.T) {
		f.t = t
		for _, clone := range []*harness.Image{old1, far} {
			f.rbd("flatten", "--no-progress", clone.Spec())
		}
		far.Bench(t, "rand", "16K", "512K")
		f.assertEqual(old1, far)
		far.AssertObjectMap(t, pair.Secondary)
	})
	t.Run("removed before its clone", func(t *testing.T) { outlived(t, pool) })
	t.Run("removed", func(t *testing.T) {
		f.t = t
		for _, image := range f.images[1:] {
			if image != old1 && image != far {
				defer waitGone(t, image)
			}
		}
		for i := len(f.images) - 1; i > 0; i-- { // children first
			if image := f.images[i]; image != old1 && image != far {
				f.remove(image)
			}
		}
		f.rbd("snap", "unprotect", f.parent.Spec()+"@protected")
		parent := f.parent
		f.remove(parent)
		waitGone(t, parent)
		f.assertEqual()
		harness.Eventually(t, harness.Patience, func() string {
			if left := strings.TrimSpace(harness.Run(t, pair.Secondary, "rbd", "trash", "ls", "--all", pool.Name)); left != "" {
				return fmt.Sprintf("the trash has %q", left)
			}
			return ""
		})
	})
}

// outlived removes a parent before its clone: rbd puts it into the trash then (USER_PARENT), and removes it with the clone.
// Its copy does the same as one of mirroring's.
func outlived(t *testing.T, pool *harness.Pool) {
	primary := pool.Pair.Primary
	parent := pool.Create(t, "outlived", harness.ImageOptions{SizeMiB: 8})
	parent.Bench(t, "rand", "16K", "512K")
	parent.Snapshot(t, "snap")
	heir := &harness.Image{Pool: pool, Name: "heir"}
	harness.Run(t, primary, "rbd", "clone", "--rbd-default-clone-format", "2", "--image-feature", harness.Features,
		parent.Spec()+"@snap", heir.Spec())
	parent.WaitReplayed(t)
	heir.WaitReplayed(t)
	harness.Run(t, primary, "rbd", "snap", "rm", "--no-progress", parent.Spec()+"@snap")
	harness.Run(t, primary, "rbd", "rm", "--no-progress", "--rbd-move-parent-to-trash-on-remove=true", parent.Spec())
	inTrash := func(c *lab.Cluster) string { return strings.TrimSpace(listTrash(t, c, pool)) }
	if got := inTrash(primary); !strings.Contains(got, "USER_PARENT") {
		t.Errorf("in the primary's trash: %s", got)
	}
	waitTrash(t, parent, 1)
	heir.Bench(t, "rand", "4K", "256K") // copies up what it has of the parent
	heir.WaitReplayed(t)
	heir.AssertReplica(t)
	harness.Run(t, primary, "rbd", "rm", "--no-progress", heir.Spec())
	waitGone(t, heir)
	for _, c := range []*lab.Cluster{primary, pool.Pair.Secondary} {
		harness.Eventually(t, harness.Patience, func() string {
			if left := inTrash(c); strings.Contains(left, "outlived") {
				return fmt.Sprintf("the trash of %s has %q", c.Name(), left)
			}
			return ""
		})
	}
}

// remove removes an image with its snapshots on the primary.
func (f *family) remove(image *harness.Image) {
	f.t.Helper()
	for _, snap := range image.SnapsOn(f.t, image.Primary()) {
		f.rbd("snap", "rm", "--no-progress", image.Spec()+"@"+snap.Name)
	}
	f.rbd("rm", "--no-progress", image.Spec())
	f.forget(image)
}
