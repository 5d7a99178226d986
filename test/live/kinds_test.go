//go:build live

package live

import (
	"flag"
	"slices"
	"sync"
	"testing"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

var kindSeed = flag.Uint64("kind-seed", 1, "seed of what is done to images of every kind")

var kindRounds = flag.Int("kind-rounds", 4, "rounds of operations, three times over")

var onlyKind = flag.String("kind", "", "churn images of this kind only")

// TestEveryKindOfImageIsMirrored does at random, to an image of each kind, all that gets into a journal: before the
// daemon has seen it, while it replays, and after. Both sites must have what was made of the image, and the replicas'
// object maps must stand the check when they are promoted.
func TestEveryKindOfImageIsMirrored(t *testing.T) {
	churnKinds(t, harness.SharedPair(t), *kindSeed, *kindRounds)
}

// churnKinds does three times some rounds to an image of each kind.
func churnKinds(t *testing.T, pair *lab.Pair, seed uint64, rounds int) {
	pool := harness.NewPool(t, pair, lab.PoolMode)
	data, journals := pool.Name+"-data", pool.Name+"-journal"
	harness.NewPlainPool(t, pair, data)
	harness.NewPlainPool(t, pair, journals)
	harness.NewErasurePool(t, pair, pool.Name+"-erasure")
	kinds := append(harness.Kinds(data, journals), harness.Kind{
		Name: "erasure-coded", Size: "6000001B", Flags: []string{"--data-pool", pool.Name + "-erasure", "--object-size", "512K"},
	})
	seeds := map[string]uint64{}
	for i, kind := range kinds {
		seeds[kind.Name] = 1000*seed + uint64(i)
	}
	t.Logf("seed %d", seed)
	if harness.TestsUpstream() {
		// It loses discards there: docs/ceph-notes.md.
		kinds = slices.DeleteFunc(kinds, func(k harness.Kind) bool { return k.Name == "striped-finely" })
	}
	if *onlyKind != "" {
		kinds = slices.DeleteFunc(kinds, func(k harness.Kind) bool { return k.Name != *onlyKind })
	}
	images := make([]*harness.Image, len(kinds))
	churns := make([]*harness.Churn, len(kinds))
	for i, kind := range kinds {
		images[i] = pool.CreateKind(t, kind)
		churns[i] = images[i].NewChurn(t, pair.Primary, seeds[kind.Name])
	}
	all := func(do func(c *harness.Churn)) {
		var group sync.WaitGroup
		for _, c := range churns {
			group.Go(func() { do(c) })
		}
		group.Wait()
	}
	churnAll := func() {
		all(func(c *harness.Churn) { c.Do(rounds) })
		if t.Failed() {
			t.FailNow()
		}
	}
	churnAll()
	harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	churnAll()
	for _, c := range churns {
		c.Reopen()
		c.Image.WaitReplayed(t)
		c.Limits = true
	}
	churnAll()
	for _, c := range churns {
		c.Close()
		c.Image.WaitReplayed(t)
	}
	all(func(c *harness.Churn) {
		for _, cluster := range []*lab.Cluster{pair.Primary, pair.Secondary} {
			c.AssertOn(t, cluster)
		}
	})
	tolerated := make([][]string, len(churns))
	each := func(do func(i int, c *harness.Churn)) {
		all(func(c *harness.Churn) { do(slices.Index(churns, c), c) })
	}
	each(func(i int, c *harness.Churn) { tolerated[i] = c.CheckObjectMaps(t, pair.Primary) })
	harness.FailOver(t, images...)
	each(func(i int, c *harness.Churn) {
		for _, state := range c.CheckObjectMaps(t, pair.Secondary) {
			if !slices.Contains(tolerated[i], state) {
				t.Errorf("object map of %s@%s is not right on %s", c.Image.Spec(), state, pair.Secondary.Name())
			}
		}
	})
}
