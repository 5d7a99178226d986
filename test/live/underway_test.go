//go:build live

package live

import (
	"testing"

	"github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// TestFlattenUnderWayAtTheSyncPoint makes the first copy of a clone while the primary flattens it, slowly. Compare-and-writes between the flatten's event and the sync point are
// in the copy and must not be done again, and what comes behind the sync point does not wait. When the flatten has ended,
// the copy is flat, too.
func TestFlattenUnderWayAtTheSyncPoint(t *testing.T) {
	pair := harness.ParallelPair(t)
	pool := harness.NewPool(t, pair, lab.PoolMode)
	slow := func(probability string) { // each operation takes 10 ms
		for option, value := range map[string]string{"duration": "0.01", "probability": probability} {
			harness.Run(t, pair.Primary, "ceph", "tell", "osd.0", "config", "set", "osd_debug_inject_dispatch_delay_"+option, value)
		}
	}
	parent := pool.Create(t, "parent", harness.ImageOptions{SizeMiB: 8, Flags: []string{"--object-size", "1M"}})
	parent.Bench(t, "seq", "256K", "8M")
	parent.Snapshot(t, "bare")
	daemon := harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	parent.WaitReplayed(t)
	daemon.Stop(t, harness.Patience)

	clone := parent.Clone(t, "bare", "clone", harness.CloneOptions{Flags: []string{"--object-size", "32K", "--stripe-unit", "32K", "--stripe-count", "1"}})
	harness.Run(t, pair.Primary, "rbd", "config", "image", "set", clone.Spec(), "rbd_concurrent_management_ops", "1")
	w := clone.OpenWriter(t, pair.Primary, 1) // it has the lock: the flatten runs in this process, beside its writes
	w.TurnPage()
	slow("1")
	flattened := make(chan error, 1)
	go func() {
		_, err := harness.Try(pair.Primary, "rbd", "flatten", "--no-progress", clone.Spec())
		flattened <- err
	}()
	harness.Eventually(t, harness.Patience, func() string {
		for n := range uint64(4) {
			for _, e := range clone.Entries(t, clone.JournalObject(t, n)) {
				if ev, err := journal.DecodeEvent(e.Payload); err == nil && ev.Event.Type() == journal.TypeFlatten {
					return ""
				}
			}
		}
		return "the flatten has not begun"
	})
	for range 3 {
		w.TurnPage()
	}
	w.Flush()
	daemon = harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	harness.Eventually(t, harness.Patience, func() string {
		if meta, ok := clone.PeerMeta(t); !ok || meta.State != journal.PeerReplaying {
			return "the clone is not copied"
		}
		return ""
	})
	if meta, _ := clone.PeerMeta(t); len(meta.Covered.Open) != 1 {
		t.Fatalf("the copy's record names %v as under way", meta.Covered)
	}
	for range 2 {
		w.TurnPage()
	}
	daemon.Kill()
	w.TurnPage()
	harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	clone.WaitState(t, "up+replaying")
	slow("0")
	if err := <-flattened; err != nil {
		t.Fatal(err)
	}
	w.TurnPage()
	w.Close()
	clone.WaitReplayed(t)
	clone.AssertEqual(t)
	clone.AssertFamily(t)
	if p := clone.ParentOn(t, pair.Secondary, ""); p != (harness.Parent{}) {
		t.Errorf("the copy still has the parent %+v", p)
	}
	clone.AssertObjectMap(t, pair.Secondary)
}
