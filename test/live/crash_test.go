//go:build live

package live

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// witness watches an image's journal on the primary while daemons come and go beside the secondary, and fails the test
// for work that was done once and then undone or begun again.
type witness struct {
	image   *harness.Image
	mirror  harness.Position  // the mirror's commit position
	synced  map[string]uint64 // by sync point: objects below this one are copied
	seen    int               // observations
	syncing int               // observations during a sync
}

// observe looks once.
func (w *witness) observe(t *testing.T) {
	t.Helper()
	now := w.image.JournalOn(t, w.image.Primary()).Mirror()
	if now.Before(w.mirror) {
		t.Errorf("%s: the mirror's commit position went back from %+v to %+v", w.image.Name, w.mirror, now)
	}
	w.mirror = now
	w.seen++
	meta, ok := w.image.PeerMeta(t)
	if !ok {
		return
	}
	for _, point := range meta.SyncPoints {
		reached := uint64(0)
		if point.ObjectNumber != nil {
			reached = *point.ObjectNumber
		}
		if reached < w.synced[point.SnapName] {
			t.Errorf("%s: sync from %s went back from object %d to %d", w.image.Name, point.SnapName, w.synced[point.SnapName], reached)
		}
		w.synced[point.SnapName] = reached
		w.syncing++
	}
}

// witnesses makes one for each image.
func witnesses(images []*harness.Image) []*witness {
	var all []*witness
	for _, image := range images {
		all = append(all, &witness{image: image, synced: map[string]uint64{}})
	}
	return all
}

// TestKilledInReplay kills the daemon and its workers 20 times at moments chosen at random while images are written.
// The commit position never goes back, and the contents are equal in the end.
func TestKilledInReplay(t *testing.T) {
	const kills = 20
	pair := harness.ParallelPair(t)
	pool := harness.NewPool(t, pair, lab.PoolMode)
	var images []*harness.Image
	for n := range 2 {
		image := pool.Create(t, fmt.Sprintf("image%d", n), harness.ImageOptions{SizeMiB: 32})
		image.Bench(t, "rand", "16K", "1M")
		images = append(images, image)
	}
	daemon := harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	for _, image := range images {
		image.WaitReplayed(t)
	}
	before := []marks{marksOf(t, images[0]), marksOf(t, images[1])}

	stop := writeUntilStopped(t, images)
	watching := witnesses(images)
	random := rand.New(rand.NewPCG(1, 2))
	for range kills {
		// Long enough for most lives to reach replay, short enough for some to die in bootstrap.
		lifetime := time.Duration(200+random.IntN(3800)) * time.Millisecond
		for died := time.After(lifetime); ; {
			for _, w := range watching {
				w.observe(t)
			}
			select {
			case <-died:
			default:
				continue
			}
			break
		}
		daemon.Kill()
		daemon = harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	}
	stop()
	for n, image := range images {
		image.WaitReplayed(t)
		watching[n].observe(t)
		image.AssertEqual(t)
		image.AssertObjectMap(t, pair.Secondary)
		if got := marksOf(t, image); got != before[n] {
			t.Errorf("%s synced anew: %+v, before %+v", image.Name, got, before[n])
		}
	}
}

// writeUntilStopped writes to the images side by side until the function that it answers is called.
func writeUntilStopped(t *testing.T, images []*harness.Image) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	for n, image := range images {
		writer := image.OpenWriter(t, image.Primary(), uint64(100+n))
		wait.Go(func() {
			for ctx.Err() == nil {
				writer.Write(5)
				time.Sleep(20 * time.Millisecond) // a load, not a flood: the mirror is to keep up between its deaths
			}
			writer.Close()
		})
	}
	return func() { cancel(); wait.Wait() }
}

// TestKilledInSync kills the daemon again and again during the first copy of images. No sync goes back behind the object
// that it had reached by its own record, and the contents are equal in the end.
//
// It looks only while the daemon is dead: a look takes a second or more on a busy machine, and a whole sync might pass
// between two. When nothing is left to copy there is another image.
func TestKilledInSync(t *testing.T) {
	const (
		kills = 12
		lives = 30
	)
	pair := harness.ParallelPair(t)
	pool := harness.NewPool(t, pair, lab.PoolMode)
	var images []*harness.Image
	var watching []*witness
	create := func() {
		image := pool.Create(t, fmt.Sprintf("image%d", len(images)), harness.ImageOptions{SizeMiB: 64, Flags: []string{"--object-size", "64K"}})
		image.Bench(t, "seq", "64K", "48M")
		image.Snapshot(t, "half")
		image.Bench(t, "rand", "64K", "4M")
		images = append(images, image)
		watching = append(watching, witnesses([]*harness.Image{image})...)
	}
	create()
	create()
	random := rand.New(rand.NewPCG(3, 4))
	killedInSync := 0
	longest := 1500 // milliseconds; some die in bootstrap, most in the copy
	for life := 0; life < lives && killedInSync < kills; life++ {
		daemon := harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
		harness.Eventually(t, time.Minute, func() string {
			if log, err := os.ReadFile(daemon.Log()); err != nil || !strings.Contains(string(log), "connected to the peer") {
				return "the daemon is not connected to the peer"
			}
			return ""
		})
		time.Sleep(time.Duration(random.IntN(longest)) * time.Millisecond)
		daemon.Kill()
		for _, w := range watching {
			w.observe(t)
		}
		switch {
		case underWay(t, images):
			killedInSync++
		case !synced(t, images):
			longest += 250 // the machine is slow
		case len(images) < 6:
			create()
		}
	}
	t.Logf("killed %d times during a sync, of %d images", killedInSync, len(images))
	if killedInSync < 3 {
		t.Error("hardly a kill met a sync: the test tests nothing")
	}
	harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	for n, image := range images {
		image.WaitReplayed(t)
		watching[n].observe(t)
		image.AssertEqual(t)
		image.AssertObjectMap(t, pair.Secondary)
		if left := harness.Run(t, pair.Primary, "rbd", "snap", "ls", "--all", image.Spec()); containsSyncPoint(left) {
			t.Errorf("%s: a sync point is left on the primary:\n%s", image.Name, left)
		}
	}
}

// synced says whether the first copy of every image is complete.
func synced(t *testing.T, images []*harness.Image) bool {
	t.Helper()
	for _, image := range images {
		if meta, ok := image.PeerMeta(t); !ok || len(meta.SyncPoints) > 0 || meta.State != journal.PeerReplaying {
			return false
		}
	}
	return true
}
