//go:build live && long

package live

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// TestCompareAndWriteKilled kills the workers, and at times the daemon, while the primary does nothing but
// compare-and-writes that would end otherwise if they were done once more later (Writer.Turn). In the end both sites hold
// what is known.
func TestCompareAndWriteKilled(t *testing.T) {
	const (
		kills   = 30
		sectors = 4
	)
	pair := harness.ParallelPair(t)
	pool := harness.NewPool(t, pair, lab.PoolMode)
	image := pool.Create(t, "image", harness.ImageOptions{SizeMiB: 4, Flags: []string{"--journal-object-size", "256K"}})
	writer := image.OpenWriter(t, pair.Primary, 2)
	writer.Turn(0, sectors)
	daemon := harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	writer.Flush()
	image.WaitReplayed(t)

	ctx, cancel := context.WithCancel(t.Context())
	round := uint64(1)
	var wait sync.WaitGroup
	wait.Go(func() {
		for ; ctx.Err() == nil; round++ {
			writer.Turn(round, sectors)
			if round%3 == 0 {
				writer.Flush()
			}
			time.Sleep(10 * time.Millisecond) // the mirror is to keep up between its deaths
		}
	})
	random := rand.New(rand.NewPCG(5, 6))
	replayed, last := 0, image.JournalOn(t, pair.Primary).Mirror()
	for n := range kills {
		// Most lives reach replay, and end at any moment of it.
		alive := time.Now().Add(time.Duration(500+random.IntN(2500)) * time.Millisecond)
		for time.Now().Before(alive) {
			if now := image.JournalOn(t, pair.Primary).Mirror(); last.Before(now) {
				replayed, last = replayed+1, now
			}
		}
		if n%3 < 2 && daemon.KillWorkers() > 0 {
			continue
		}
		daemon.Kill() // and with it its patience with workers that die too often
		daemon = harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	}
	cancel()
	wait.Wait()
	writer.Close()
	t.Logf("%d rounds, %d kills, the mirror was seen to go on %d times", round, kills, replayed)
	if replayed < kills/3 {
		t.Error("hardly a life replayed anything: the test tests nothing")
	}
	image.WaitReplayed(t)
	for _, c := range []*lab.Cluster{pair.Primary, pair.Secondary} {
		if got := image.DigestOn(t, c, ""); got != writer.Digest() {
			t.Errorf("%s holds %+v, what was written is %+v", c.Name(), got, writer.Digest())
		}
	}
	image.AssertObjectMap(t, pair.Secondary)
}
