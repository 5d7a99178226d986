//go:build live && long

package live

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// TestClonesFailOver takes a parent and its clones to the other site and back, with a clone that is made over there, and
// has a clone copied anew.
func TestClonesFailOver(t *testing.T) {
	pair := harness.ParallelPair(t)
	pool := harness.NewPool(t, pair, lab.PoolMode)
	f := newFamily(t, pool, "parent")
	v1 := f.clone(f.parent, "protected", "v1", harness.CloneOptions{Format: 1})
	v2 := f.clone(f.parent, "bare", "v2", harness.CloneOptions{})
	f.live(v1)
	harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	harness.StartDaemon(t, pair.Primary, harness.Ours(t))
	f.live(v2)
	f.assertEqual(f.images...)

	id := v2.InfoOn(t, pair.Secondary).ID
	harness.Run(t, pair.Secondary, "rbd", "mirror", "image", "resync", v2.Spec())
	harness.Eventually(t, harness.Patience, func() string {
		if out, err := harness.Try(pair.Secondary, "rbd", "info", "--format", "json", v2.Spec()); err != nil || out == "" {
			return "it is away"
		}
		return ""
	})
	v2.Bench(t, "rand", "4K", "64K")
	f.assertEqual(v2)
	t.Logf("resynced: id %s, before %s", v2.InfoOn(t, pair.Secondary).ID, id)

	for _, image := range []*harness.Image{v1, v2, f.parent} {
		demote(t, pair.Primary, image)
	}
	for _, image := range f.images {
		promote(t, pair.Secondary, image)
	}
	for _, image := range f.images {
		image.AssertEqual(t)
		image.AssertObjectMapCheck(t, pair.Secondary)
	}
	there := &family{t: t, pool: reversed(f.parent).Pool, parent: reversed(f.parent)}
	for _, image := range f.images {
		there.images = append(there.images, reversed(image))
	}
	there.images[1].Bench(t, "rand", "16K", "1M")
	there.rbd("flatten", "--no-progress", v1.Spec())
	young := there.clone(there.parent, "bare", "young", harness.CloneOptions{})
	there.live(young)
	there.assertEqual(there.images...)
}

// TestClonesKilled kills the daemon in the middle of the sync of clones, of copy-up and of flatten, again and again.
func TestClonesKilled(t *testing.T) {
	pair := harness.ParallelPair(t)
	pool := harness.NewPool(t, pair, lab.PoolMode)
	f := newFamily(t, pool, "parent")
	v1 := f.clone(f.parent, "protected", "v1", harness.CloneOptions{Format: 1})
	v2 := f.clone(f.parent, "bare", "v2", harness.CloneOptions{})
	f.live(v1)
	f.live(v2)
	pause := func() { time.Sleep(time.Duration(rand.IntN(3000)) * time.Millisecond) } // to be killed anywhere
	for round := range 10 {
		daemon := harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
		pause()
		switch round {
		case 2, 4:
			v1.Bench(t, "rand", "4K", "128K")
			v2.Bench(t, "rand", "64K", "1M")
		case 3:
			f.clone(v2, "young", "late", harness.CloneOptions{})
		case 5:
			v1.WaitReplayed(t) // from here on it is the flatten that is interrupted, not the sync
			f.rbd("flatten", "--no-progress", v1.Spec())
		case 6:
			v1.Bench(t, "rand", "64K", "1M")
			v1.Snapshot(t, "flat")
		}
		pause()
		daemon.Kill()
	}
	harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	f.assertEqual(f.images...)
	for _, image := range f.images {
		image.AssertObjectMap(t, pair.Secondary)
	}
}
