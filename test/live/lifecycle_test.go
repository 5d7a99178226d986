//go:build live

package live

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// TestLifeCycle does to images what operators do to them, one image a test, all at the same time, on two clusters with
// a daemon each. See the table in docs/operations.md.
func TestLifeCycle(t *testing.T) {
	pair := harness.ParallelPair(t)
	pool := harness.NewPool(t, pair, lab.ImageMode)
	daemon := harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	harness.StartDaemon(t, pair.Primary, harness.Ours(t))
	t.Run("images", func(t *testing.T) {
		for name, test := range map[string]func(*testing.T, *harness.Image){
			"Removed": removedAndCreatedAnew, "Restored": restoredFromTheTrash, "Resync": resynced,
			"ReplayDelay": delayed, "PromotedWhileDelayed": promotedWhileDelayed,
			"Disconnected": disconnected, "DisconnectedResync": disconnectedWithResync,
			"Renamed": renamed, "NameTaken": nameTaken, "SplitBrain": splitBrain, "DemotedOnBothSides": demotedOnBothSides,
			"BothWays": bothWays, "Failover": func(t *testing.T, image *harness.Image) { failoverAndBack(t, image, 3) },
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				image := &harness.Image{Pool: pool, Name: strings.ToLower(name)}
				test(t, image)
			})
		}
	})
	outlivesTheDaemon(t, pool, daemon)
}

// born creates the image on the primary with something in it, mirrored.
func born(t *testing.T, image *harness.Image, conf ...string) {
	t.Helper()
	// Journals of four small objects, so that they are trimmed under way.
	*image = *image.Pool.Create(t, image.Name, harness.ImageOptions{SizeMiB: 8, Flags: []string{"--journal-object-size", "256K"}})
	for _, setting := range conf {
		key, value, _ := strings.Cut(setting, "=")
		harness.Run(t, image.Primary(), "rbd", "config", "image", "set", image.Spec(), key, value)
	}
	harness.Run(t, image.Primary(), "rbd", "mirror", "image", "enable", image.Spec(), "journal")
	image.Bench(t, "rand", "16K", "1M")
	image.WaitReplayed(t)
}

// trashed is an entry of rbd trash ls.
type trashed struct {
	ID, Name, Source string
	Status           string
}

// listTrash is what rbd tells of all in a pool's trash.
func listTrash(t *testing.T, c *lab.Cluster, pool *harness.Pool, args ...string) (out string) {
	t.Helper()
	harness.Eventually(t, harness.Patience, func() string {
		var err error
		if out, err = harness.Try(c, "rbd", append([]string{"trash", "ls", "--all", "--long", pool.Name}, args...)...); err != nil {
			return err.Error() // it opens what it lists, and may be too late for that
		}
		return ""
	})
	return out
}

// trash lists all that is in the trash of the image's pool under its name, on the secondary.
func trash(t *testing.T, image *harness.Image) (entries []trashed) {
	t.Helper()
	var all []trashed
	out := listTrash(t, image.Secondary(), image.Pool, "--format", "json")
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	for _, e := range all {
		if e.Name == image.Name {
			entries = append(entries, e)
		}
	}
	return entries
}

// waitTrash waits until as many copies of the image are in the trash, put there by mirroring.
func waitTrash(t *testing.T, image *harness.Image, n int) []trashed {
	t.Helper()
	var got []trashed
	harness.Eventually(t, harness.Patience, func() string {
		if got = trash(t, image); len(got) != n {
			return fmt.Sprintf("%s in the trash: %+v, want %d", image.Name, got, n)
		}
		return ""
	})
	for _, e := range got {
		if e.Source != "MIRRORING" {
			t.Errorf("in the trash: %+v", e)
		}
	}
	return got
}

// removedAndCreatedAnew removes an image on the primary and creates another of its name at once. The old copy stays in
// the trash for its time, the new one is mirrored.
func removedAndCreatedAnew(t *testing.T, image *harness.Image) {
	born(t, image, "rbd_mirroring_delete_delay=8")
	image.Snapshot(t, "snap")
	image.WaitReplayed(t)
	old := image.InfoOn(t, image.Secondary()).ID
	harness.Run(t, image.Primary(), "rbd", "snap", "purge", "--no-progress", image.Spec())
	harness.Run(t, image.Primary(), "rbd", "rm", "--no-progress", image.Spec())
	born(t, image, "rbd_mirroring_delete_delay=8")
	image.AssertReplica(t)
	if id := image.InfoOn(t, image.Secondary()).ID; id == old {
		t.Errorf("the new image has the old copy's id %s", id)
	}
	waitTrash(t, image, 0)
	if left := harness.Run(t, image.Secondary(), "rados", "-p", image.Pool.Name, "ls"); strings.Contains(left, old) {
		t.Errorf("objects of the old copy are left:\n%s", left)
	}
	image.AssertReplica(t)
}

// restoredFromTheTrash disables an image, and restores the local copy from the trash: it is an image like others then.
func restoredFromTheTrash(t *testing.T, image *harness.Image) {
	born(t, image, "rbd_mirroring_delete_delay=600")
	want := image.DigestOn(t, image.Primary(), "")
	harness.Run(t, image.Primary(), "rbd", "mirror", "image", "disable", image.Spec())
	entry := waitTrash(t, image, 1)[0]
	harness.Run(t, image.Secondary(), "rbd", "trash", "restore", "--image", "again", image.Pool.Name+"/"+entry.ID)
	again := &harness.Image{Pool: image.Pool, Name: "again"}
	if got := again.DigestOn(t, image.Secondary(), ""); got != want {
		t.Errorf("restored %+v, was %+v", got, want)
	}
	harness.BenchOn(t, image.Secondary(), again, "--io-size", "4K", "--io-total", "64K")
	// Enabled again, the primary is mirrored again: as a new copy beside the restored one.
	harness.Run(t, image.Primary(), "rbd", "mirror", "image", "enable", image.Spec(), "journal")
	image.WaitReplayed(t)
	image.AssertReplica(t)
	if id := again.InfoOn(t, image.Secondary()).ID; id != entry.ID {
		t.Errorf("the restored image is %s now, was %s", id, entry.ID)
	}
}

// resynced asks for a new copy of an image that replays. The old one is kept in the trash for its time.
func resynced(t *testing.T, image *harness.Image) {
	born(t, image, "rbd_mirroring_delete_delay=600")
	old := image.InfoOn(t, image.Secondary()).ID
	harness.Run(t, image.Secondary(), "rbd", "mirror", "image", "resync", image.Spec())
	if entry := waitTrash(t, image, 1)[0]; entry.ID != old {
		t.Errorf("in the trash: %+v, want %s", entry, old)
	}
	image.Bench(t, "rand", "16K", "1M")
	image.WaitReplayed(t)
	image.AssertReplica(t)
}

// delayed sets a delay: nothing is applied before its time, and the status says how far behind the copy is, and why.
func delayed(t *testing.T, image *harness.Image) {
	const delay = 8
	born(t, image)
	harness.Run(t, image.Primary(), "rbd", "config", "image", "set", image.Spec(), "rbd_mirroring_replay_delay", fmt.Sprint(delay))
	image.WaitReplayed(t)
	image.Bench(t, "rand", "16K", "512K")
	began := time.Now()
	image.Snapshot(t, "late")
	for seen := false; !seen; time.Sleep(200 * time.Millisecond) {
		seen = len(image.SnapsOn(t, image.Secondary())) > 0
		took := time.Since(began)
		if seen && took < delay*time.Second {
			t.Fatalf("applied %v after it happened", took)
		}
		if took > harness.Patience {
			t.Fatal("never applied")
		}
		s, err := image.StatusOn(image.Secondary())
		if !seen && took > 4*time.Second && took < (delay-2)*time.Second &&
			(err != nil || !strings.Contains(s.Description, fmt.Sprintf(`"replay_delay_seconds":%d`, delay)) ||
				strings.Contains(s.Description, `"lag_seconds":0,`)) {
			t.Errorf("the status hides the delay: %+v, %v", s, err)
		}
	}
	image.WaitReplayed(t)
	image.AssertReplica(t)
}

// promotedWhileDelayed promotes an image by force while entries wait. It does not wait for them, and they are not
// applied afterwards.
func promotedWhileDelayed(t *testing.T, image *harness.Image) {
	born(t, image)
	harness.Run(t, image.Primary(), "rbd", "config", "image", "set", image.Spec(), "rbd_mirroring_replay_delay", "3600")
	image.WaitReplayed(t)
	want := image.DigestOn(t, image.Primary(), "")
	image.Bench(t, "rand", "16K", "1M")
	image.WaitState(t, "up+replaying", `"replay_delay_seconds":3600`)
	forcePromote(t, image)
	if got := image.DigestOn(t, image.Secondary(), ""); got != want {
		t.Errorf("promoted with %+v, want what was before the delay: %+v", got, want)
	}
}

// forcePromote promotes the secondary, which must take 10 seconds at most, after which the status says so.
func forcePromote(t *testing.T, image *harness.Image) {
	t.Helper()
	began := time.Now()
	harness.Run(t, image.Secondary(), "rbd", "mirror", "image", "promote", "--force", image.Spec())
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the promotion took %v", took)
	}
	if !image.InfoOn(t, image.Secondary()).Mirroring.Primary {
		t.Error("the promoted image is not primary")
	}
	image.WaitState(t, "up+stopped")
}

// disconnect makes the primary give its mirror up.
func disconnect(t *testing.T, image *harness.Image) {
	t.Helper()
	harness.Run(t, image.Primary(), "rbd", "journal", "client", "disconnect", "--pool", image.Pool.Name, "--image", image.Name,
		"--client-id", image.JournalOn(t, image.Primary()).MirrorID())
}

// disconnected: the copy stays as it is until an operator asks for a new one.
func disconnected(t *testing.T, image *harness.Image) {
	born(t, image)
	disconnect(t, image)
	image.WaitState(t, "up+error", "disconnected")
	image.Bench(t, "rand", "16K", "512K")
	image.WaitState(t, "up+error", "disconnected")
	harness.Run(t, image.Secondary(), "rbd", "mirror", "image", "resync", image.Spec())
	image.WaitReplayed(t)
	image.AssertReplica(t)
}

// disconnectedWithResync: the copy is made right by itself.
func disconnectedWithResync(t *testing.T, image *harness.Image) {
	born(t, image, "rbd_mirroring_resync_after_disconnect=true")
	disconnect(t, image)
	image.Bench(t, "rand", "16K", "512K")
	image.WaitReplayed(t)
	image.AssertReplica(t)
}

// renamed renames the image on the primary, first to a free name, then to one that another local image has.
func renamed(t *testing.T, image *harness.Image) {
	born(t, image)
	rename := func(name string) {
		t.Helper()
		harness.Run(t, image.Primary(), "rbd", "rename", image.Spec(), image.Pool.Name+"/"+name)
	}
	rename("renamed-once")
	image.Name = "renamed-once"
	image.WaitReplayed(t)

	const taken = "renamed-twice"
	harness.Run(t, image.Secondary(), "rbd", "create", "--size", "1M", image.Pool.Name+"/"+taken)
	rename(taken)
	old := *image // its name here, until the new one is free; its contents go on being mirrored
	image.Name = taken
	image.Bench(t, "rand", "16K", "512K")
	want := image.DigestOn(t, image.Primary(), "")
	harness.Eventually(t, harness.Patience, func() string {
		if got := old.DigestOn(t, image.Secondary(), ""); got != want {
			return fmt.Sprintf("%s holds %+v, want %+v", old.Name, got, want)
		}
		return ""
	})
	harness.Run(t, image.Secondary(), "rbd", "rm", "--no-progress", image.Spec())
	image.WaitReplayed(t)
	image.AssertReplica(t)
}

// nameTaken: a local image that has nothing to do with mirroring has the name.
func nameTaken(t *testing.T, image *harness.Image) {
	harness.Run(t, image.Secondary(), "rbd", "create", "--size", "1M", image.Spec())
	*image = *image.Pool.Create(t, image.Name, harness.ImageOptions{SizeMiB: 8})
	harness.Run(t, image.Primary(), "rbd", "mirror", "image", "enable", image.Spec(), "journal")
	image.Bench(t, "rand", "16K", "512K")
	waitNameTaken(t, image)
	harness.Run(t, image.Secondary(), "rbd", "rm", "--no-progress", image.Spec())
	image.WaitReplayed(t)
	image.AssertReplica(t)
}

// waitNameTaken waits until the mirror says that the image's name belongs to another. The local image of that name is
// not mirrored, so the primary's site has to be asked.
func waitNameTaken(t *testing.T, image *harness.Image) {
	t.Helper()
	harness.Eventually(t, harness.Patience, func() string {
		s, err := image.StatusOn(image.Primary())
		for _, p := range s.Peers {
			if p.State == "up+error" && strings.Contains(p.Description, "another image") && strings.Contains(p.Description, image.Name) {
				return ""
			}
		}
		return fmt.Sprintf("nobody says that the name is taken: %+v, %v", s, err)
	})
}

// splitBrain promotes the secondary by force while the primary lives and goes on writing. That is reported, and stays
// so, until an operator decides for one of the sides.
func splitBrain(t *testing.T, image *harness.Image) {
	born(t, image)
	stop := writeUntilStopped(t, []*harness.Image{image})
	forcePromote(t, image)
	stop()
	harness.BenchOn(t, image.Secondary(), image, "--io-size", "4K", "--io-total", "64K")
	theirs := image.DigestOn(t, image.Secondary(), "")
	demote(t, image.Secondary(), image)
	image.WaitState(t, "up+error", "split-brain")
	image.Bench(t, "rand", "16K", "512K")
	image.WaitState(t, "up+error", "split-brain")
	if got := image.DigestOn(t, image.Secondary(), ""); got != theirs {
		t.Errorf("a split brain was resolved by itself: %+v, was %+v", got, theirs)
	}
	harness.Run(t, image.Secondary(), "rbd", "mirror", "image", "resync", image.Spec())
	image.WaitReplayed(t)
	image.AssertReplica(t)
}

// demotedOnBothSides leaves the image without a primary, then promotes it where it was primary before.
func demotedOnBothSides(t *testing.T, image *harness.Image) {
	born(t, image)
	demote(t, image.Primary(), image)
	image.WaitState(t, "up+unknown", "not primary")
	image.WaitStateOn(t, image.Primary(), "up+unknown", "not primary")
	// A resync has nothing to copy: the copy stays, and so does the request.
	harness.Run(t, image.Secondary(), "rbd", "mirror", "image", "resync", image.Spec())
	image.AssertReplica(t)
	promote(t, image.Primary(), image)
	image.Bench(t, "rand", "16K", "512K")
	harness.Eventually(t, harness.Patience, func() string {
		if image.ResyncRequested(t, image.Secondary()) {
			return "the resync that was asked for is forgotten"
		}
		return ""
	})
	image.WaitReplayed(t)
	image.AssertReplica(t)
	id := image.InfoOn(t, image.Secondary()).ID

	demote(t, image.Primary(), image)
	image.WaitState(t, "up+unknown", "not primary")
	promote(t, image.Primary(), image)
	image.Bench(t, "rand", "16K", "512K")
	image.WaitReplayed(t)
	image.AssertReplica(t)
	if now := image.InfoOn(t, image.Secondary()).ID; now != id {
		t.Errorf("the copy was made anew: %s, before %s", now, id)
	}
}

// bothWays has an image that is primary on the secondary, in the same pool as all others.
func bothWays(t *testing.T, image *harness.Image) {
	turned := reversed(image)
	born(t, turned)
	turned.Bench(t, "rand", "16K", "512K")
	turned.WaitReplayed(t)
	turned.AssertReplica(t)
}

// failoverAndBack changes the primary to and fro, in good order, with writes between. Nothing is copied anew.
func failoverAndBack(t *testing.T, image *harness.Image, rounds int) {
	born(t, image)
	here, there := image, reversed(image)
	ids := map[*lab.Cluster]string{}
	for _, c := range []*lab.Cluster{image.Primary(), image.Secondary()} {
		ids[c] = image.InfoOn(t, c).ID
	}
	for round := range 2 * rounds {
		demote(t, here.Primary(), here)
		promote(t, here.Secondary(), here)
		here, there = there, here
		here.Bench(t, "rand", "16K", "512K")
		here.Snapshot(t, fmt.Sprintf("round-%d", round))
		here.WaitReplayed(t)
		here.AssertReplica(t)
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	for c, id := range ids {
		if now := image.InfoOn(t, c).ID; now != id {
			t.Errorf("the image was made anew on %s: %s, before %s", c.Name(), now, id)
		}
	}
}

// outlivesTheDaemon puts a copy into the trash, and starts another daemon before its time has come. Meanwhile the
// primary is renamed and another image is to be copied anew.
func outlivesTheDaemon(t *testing.T, pool *harness.Pool, daemon *harness.Daemon) {
	goes := &harness.Image{Pool: pool, Name: "goes"}
	born(t, goes, "rbd_mirroring_delete_delay=10")
	stays := &harness.Image{Pool: pool, Name: "stays"}
	born(t, stays)
	lags := &harness.Image{Pool: pool, Name: "lags"}
	born(t, lags)
	harness.Run(t, pool.Pair.Primary, "rbd", "rm", "--no-progress", goes.Spec())
	waitTrash(t, goes, 1)
	daemon.Stop(t, stopTime)
	if got := trash(t, goes); len(got) != 1 {
		t.Fatalf("gone before its time: %+v", got)
	}
	harness.Run(t, stays.Secondary(), "rbd", "mirror", "image", "resync", stays.Spec())
	harness.Run(t, stays.Primary(), "rbd", "rename", stays.Spec(), pool.Name+"/stays-as")
	stays.Name = "stays-as"
	// The primary gives up a mirror that lags too many sets of journal objects behind.
	harness.BenchOn(t, lags.Primary(), lags, "--io-size", "64K", "--io-total", "12M",
		"--rbd-journal-max-concurrent-object-sets", "1")
	harness.StartDaemon(t, pool.Pair.Secondary, harness.Ours(t))
	lags.WaitState(t, "up+error", "disconnected")
	waitTrash(t, goes, 0)
	stays.WaitReplayed(t)
	stays.AssertReplica(t)
	if stays.ResyncRequested(t, stays.Secondary()) {
		t.Error("the resync that was asked for while no daemon ran was forgotten")
	}
}
