//go:build live

package live

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// TestLimits sets limits on bytes a second by command and by settings of image and pool, while a daemon of two workers
// replays and copies: it takes at least the time that they say, the status says why, and lifting one ends the wait.
func TestLimits(t *testing.T) {
	if harness.TestsUpstream() {
		t.Skip("what only ours promises")
	}
	pair := harness.ParallelPair(t)
	pool := harness.NewPool(t, pair, lab.PoolMode)
	one := pool.Create(t, "one", harness.ImageOptions{SizeMiB: 32})
	c := pair.Secondary
	daemon := harness.StartDaemon(t, c, harness.Ours(t), "--rbd-warden-workers", "2", "--rbd-mirror-pool-replayers-refresh-interval", "2",
		"--rbd-warden-sync-bytes-per-second", "1G")
	one.WaitReplayed(t)
	limit := func(code int, want string, args ...string) string {
		t.Helper()
		out, complaints, got := harness.Warden(t, c, append([]string{"limit"}, append(args, "--socket", daemon.ControlSocket(c))...)...)
		if got != code || !strings.Contains(out+complaints, want) {
			t.Errorf("limit %v: exit code %d, %q, %q; want %d, %q", args, got, out, complaints, code, want)
		}
		return out
	}
	inForce := func(scope, kind string) uint64 {
		var all []report.Limit
		if err := json.Unmarshal([]byte(limit(0, "", "show", "--json")), &all); err != nil {
			t.Fatal(err)
		}
		for _, l := range all {
			if l.Scope == scope && l.Kind == kind {
				return l.BytesPerSecond
			}
		}
		return 0
	}
	is := func(scope, kind string, want uint64) {
		t.Helper()
		harness.Eventually(t, harness.Patience, func() string {
			if got := inForce(scope, kind); got != want {
				return "the " + scope + "'s limit is not in force: " + limit(0, "", "show")
			}
			return ""
		})
	}

	// By command: as slow as it says, and why; then at once.
	limit(0, "daemon", "show")
	limit(1, "no image "+pool.Name+"/none", "set", "--image", pool.Name+"/none", "--replay", "1M")
	limit(1, "say how much", "set")
	began := time.Now()
	limit(0, "image "+one.Spec(), "set", "--image", one.Spec(), "--replay", "1M")
	limit(0, "image "+one.Spec(), "set", "--image", one.Spec(), "--replay", "1M")
	one.Bench(t, "rand", "64K", "5M")
	one.WaitState(t, "up+replaying", `"held_back_by":"the image's replay limit of 1048576 bytes a second"`)
	one.WaitReplayed(t)
	if d := time.Since(began); d < 4*time.Second {
		t.Errorf("5 MiB at 1 MiB a second took %v", d)
	}
	one.Bench(t, "rand", "64K", "24M")
	began = time.Now()
	one.WaitState(t, "up+replaying", "held_back_by")
	left := 24*time.Second - time.Since(began)
	began = time.Now()
	limit(0, "daemon", "clear", "--image", one.Spec())
	one.WaitReplayed(t)
	if d := time.Since(began); d > left {
		t.Errorf("%v after the limit was lifted, when it would have taken %v with it", d, left)
	}
	one.AssertEqual(t)

	// By the image's metadata, from the primary: rbd knows no such option, and does not mind.
	harness.Run(t, pair.Primary, "rbd", "image-meta", "set", one.Spec(), "rbd_warden_replay_bytes_per_second", "3M")
	one.Bench(t, "rand", "4K", "64K")
	is("image", "replay", 3<<20)
	harness.Run(t, pair.Primary, "rbd", "image-meta", "remove", one.Spec(), "rbd_warden_replay_bytes_per_second")
	one.Bench(t, "rand", "4K", "64K")
	is("image", "replay", 0)
	for _, words := range [][]string{{"config", "pool", "set", pool.Name}, {"config", "image", "set", one.Spec()}} {
		if out, err := harness.Try(pair.Primary, "rbd", append(words, "rbd_warden_replay_bytes_per_second", "3M")...); err == nil {
			t.Errorf("rbd %v is not refused: %s", words, out)
		}
	}

	// By the pool's metadata, and for a first copy.
	harness.Run(t, c, "rados", "-p", pool.Name, "setomapval", "rbd_info", "metadata_rbd_warden_sync_bytes_per_second", "1M")
	is("pool", "sync", 1<<20)
	if out, complaints, code := harness.Warden(t, c, "resync", one.Spec(), "--full"); code != 0 {
		t.Fatalf("resync: %d, %s%s", code, out, complaints)
	}
	one.WaitState(t, "up+syncing", "; held back by the pool's sync limit")
	harness.Run(t, c, "rados", "-p", pool.Name, "rmomapkey", "rbd_info", "metadata_rbd_warden_sync_bytes_per_second")
	is("pool", "sync", 0)
	one.WaitState(t, "up+replaying")
	one.WaitReplayed(t)
	one.AssertEqual(t)
	d, _ := daemon.Ps(t, c)
	for _, w := range d.Workers {
		if w.Restarts > 0 {
			t.Errorf("worker %d was started again: %v", w.Index, w.LastCause)
		}
	}
}
