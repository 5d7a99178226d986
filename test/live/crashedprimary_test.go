//go:build live

package live

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// TestCrashedPrimary brings journals into the states in which a primary's death and a laggard's fate leave them. Entries
// behind a hole at the end of a session are left out, as the primary leaves them out. What cannot be told from damage, and
// what was trimmed, stops the image, says so, and a re-sync mends it. No state is passed over in silence, or for ever.
func TestCrashedPrimary(t *testing.T) {
	pair := harness.SharedPair(t)
	pool := harness.NewPool(t, pair, lab.PoolMode)
	small := harness.ImageOptions{SizeMiB: 8, Flags: []string{"--journal-object-size", "128K"}}
	hole, torn, trimmed := pool.Create(t, "hole", small), pool.Create(t, "torn", small), pool.Create(t, "trimmed", small)
	images := []*harness.Image{hole, torn, trimmed}
	for n, image := range images {
		scribble(t, image, pair.Primary, uint64(n), 50)
	}
	daemon := harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	for _, image := range images {
		image.WaitReplayed(t)
	}

	// While the daemon reads on, one entry missing and two behind it; then the next client.
	hole.Residue(t, 1, 2, false)
	scribble(t, hole, pair.Primary, 10, 20)
	hole.WaitReplayed(t)
	hole.AssertReplica(t)
	assertLeftOut(t, daemon)
	daemon.Stop(t, stopTime)

	// While no daemon runs: two missing, and then two that are there.
	scribble(t, hole, pair.Primary, 11, 5)
	hole.Residue(t, 2, 2, false)
	scribble(t, hole, pair.Primary, 12, 20)
	damaged := torn.Residue(t, 0, 1, true)[0]
	// The next client takes the end of the entry for the journal's. Its own entries are written behind it; and from then
	// on no client of librbd that is new can replay this journal. So it stays.
	writer := torn.OpenWriter(t, pair.Primary, 13)
	writer.Write(20)
	writer.Flush()
	restore := trimmed.ClientRecord(t)
	before := trimmed.JournalOn(t, pair.Primary)
	harness.Run(t, pair.Primary, "rbd", "journal", "client", "disconnect", "--client-id", before.MirrorID(),
		"--image", trimmed.Name, "--pool", pool.Name)
	harness.Eventually(t, harness.Patience, func() string {
		scribble(t, trimmed, pair.Primary, 14, 20)
		if now := trimmed.JournalOn(t, pair.Primary); now.MinimumSet <= before.ActiveSet {
			return fmt.Sprintf("not trimmed beyond set %d", now.MinimumSet)
		}
		return ""
	})
	restore()

	daemon = harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	hole.WaitReplayed(t)
	hole.AssertReplica(t)
	assertLeftOut(t, daemon)
	if harness.TestsUpstream() {
		return // what it does next is wait
	}
	torn.WaitState(t, "up+error", damaged.Object, fmt.Sprint(damaged.Offset), "resync")
	trimmed.WaitState(t, "up+error", "trimmed", "resync")

	for _, image := range []*harness.Image{torn, trimmed} {
		harness.Run(t, pair.Secondary, "rbd", "mirror", "image", "resync", image.Spec())
	}
	trimmed.WaitReplayed(t)
	trimmed.AssertReplica(t)
	torn.WaitReplayed(t)
	writer.Write(20)
	writer.Flush()
	want := writer.Digest()
	harness.Eventually(t, harness.Patience, func() string { // the primary tells of its progress every five seconds
		if got := torn.DigestOn(t, pair.Secondary, ""); got != want {
			return fmt.Sprintf("%+v on the secondary, the primary has %+v", got, want)
		}
		return ""
	})
}

// assertLeftOut fails the test unless the daemon has said that it left out entries behind a hole.
func assertLeftOut(t *testing.T, daemon *harness.Daemon) {
	t.Helper()
	if harness.TestsUpstream() {
		return
	}
	if log, err := os.ReadFile(daemon.Log()); err != nil || !strings.Contains(string(log), "left out journal entries behind a hole") {
		t.Errorf("the log of the daemon does not tell of the entries that were left out (%v)", err)
	}
}
