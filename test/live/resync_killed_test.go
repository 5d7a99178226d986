//go:build live

package live

import (
	"fmt"
	"strings"
	"testing"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// TestResyncInFullKilled kills the daemon as it begins to replace a copy, and twice while the new one is made. In the end
// there is one copy, it is equal, and nothing of the others is left on either site.
func TestResyncInFullKilled(t *testing.T) {
	pair := harness.ParallelPair(t, "rbd_mirror_sync_point_update_age = 0.5")
	pool := harness.NewPool(t, pair, lab.PoolMode)
	image := pool.Create(t, "image", harness.ImageOptions{SizeMiB: 24, Flags: []string{"--object-size", "16K"}})
	fill(t, image)
	scribble(t, image, pair.Primary, 31, 30)
	image.Snapshot(t, "one")
	scribble(t, image, pair.Primary, 32, 30)
	start := func() *harness.Daemon {
		return harness.StartDaemon(t, pair.Secondary, harness.Ours(t), "--rbd-concurrent-management-ops", "1")
	}
	daemon := start()
	image.WaitReplayed(t)
	before := image.InfoOn(t, pair.Secondary)
	resync := func() (complaints string) {
		if harness.TestsUpstream() {
			_, err := harness.Try(pair.Secondary, "rbd", "mirror", "image", "resync", image.Spec())
			return fmt.Sprint(err)
		}
		_, complaints, _ = harness.Warden(t, pair.Secondary, "resync", "--full", image.Spec())
		return complaints
	}
	complaints := resync()
	daemon.Kill()
	images := []*harness.Image{image}
	for n := range 2 {
		daemon = start()
		harness.Eventually(t, harness.Patience, func() string {
			switch {
			case underWay(t, images):
				return ""
			case synced(t, images): // not begun yet, or over before anybody looked
				complaints = resync()
			}
			return fmt.Sprintf("no copy is under way, for the %d. time: %s", n+1, complaints)
		})
		daemon.Kill()
		scribble(t, image, pair.Primary, uint64(33+n), 10)
	}
	start()
	image.WaitReplayed(t)
	image.AssertEqual(t)
	image.AssertObjectMap(t, pair.Secondary)
	if now := image.InfoOn(t, pair.Secondary).ID; now == before.ID {
		t.Errorf("the copy %s was kept", now)
	}
	waitTrash(t, image, 0)
	if left := harness.Run(t, pair.Primary, "rbd", "snap", "ls", "--all", image.Spec()); containsSyncPoint(left) {
		t.Errorf("a sync point is left on the primary:\n%s", left)
	}
	if clients := image.JournalOn(t, pair.Primary).Clients; len(clients) != 2 {
		t.Errorf("clients of the primary's journal: %v", clients)
	}
	if n := image.Remains(t, pair.Secondary, before); n > 0 {
		t.Errorf("%d data objects are left of the old copy %s", n, before.ID)
	}
	objects := harness.Run(t, pair.Secondary, "rados", "--pool", pool.Name, "ls")
	for _, object := range []string{"rbd_header." + before.ID, "journal." + before.ID, "rbd_object_map." + before.ID} {
		if strings.Contains(objects, object) {
			t.Errorf("%s is left of the old copy", object)
		}
	}
}
