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

// within is how soon a status has to be true. The machine may be busy; rbd-mirror takes 30 seconds and more.
const within = 20 * time.Second

// replayKeys is the JSON of an image that replays, with the keys that are ours.
type replayKeys struct {
	Behind    *uint64  `json:"entries_behind_primary"`
	Lag       *float64 `json:"lag_seconds"`
	Silent    *float64 `json:"silent_seconds"`
	Restarts  int      `json:"restarts"`
	LastCause string   `json:"last_cause"`
}

func keysOf(t *testing.T, s harness.Status) replayKeys {
	t.Helper()
	_, text, _ := strings.Cut(s.Description, "{")
	var k replayKeys
	if err := json.Unmarshal([]byte("{"+text), &k); err != nil {
		t.Fatalf("%v in %+v", err, s)
	}
	return k
}

// says waits until the image's status on a cluster is true, and answers it.
func says(t *testing.T, image *harness.Image, c *lab.Cluster, state string, texts ...string) harness.Status {
	t.Helper()
	var s harness.Status
	harness.Eventually(t, within, func() string {
		var err error
		if s, err = image.StatusOn(c); err != nil {
			return err.Error()
		}
		for _, text := range texts {
			if !strings.Contains(s.Description, text) {
				return fmt.Sprintf("%s on %s: %+v lacks %q", image.Name, c.Name(), s, text)
			}
		}
		if s.State != state {
			return fmt.Sprintf("%s on %s: %+v, want %s", image.Name, c.Name(), s, state)
		}
		return ""
	})
	return s
}

// TestStatusIsTrueWithinSeconds goes through what can become of images and asks rbd, on both sites, what it says.
func TestStatusIsTrueWithinSeconds(t *testing.T) {
	if harness.TestsUpstream() {
		t.Skip("what only ours promises")
	}
	pair := harness.ParallelPair(t)
	south, north := pair.Secondary, pair.Primary
	pool := harness.NewPool(t, pair, lab.ImageMode)
	// One way: with rx-tx the summary waits for a daemon of the other site, too.
	key, _ := peerConfig(t, south, pool.Name)
	harness.Run(t, south, "rbd", "mirror", "pool", "peer", "set", pool.Name, key[strings.LastIndex(key, "/")+1:], "direction", "rx-only")
	create := func(name string, sizeMiB int) *harness.Image {
		image := pool.Create(t, name, harness.ImageOptions{SizeMiB: sizeMiB})
		harness.Run(t, north, "rbd", "mirror", "image", "enable", image.Spec(), "journal")
		return image
	}
	image, demoted := create("image", 8), create("demoted", 8)
	start := func() *harness.Daemon {
		return harness.StartDaemon(t, south, harness.Ours(t), "--rbd-mirror-journal-poll-age", "1", "--rbd-warden-osd-timeout", "8",
			"--rbd-warden-mon-timeout", "5", "--rbd-warden-connect-timeout", "5")
	}
	daemon := start()
	image.Bench(t, "rand", "16K", "256K")
	image.WaitReplayed(t)
	demoted.WaitReplayed(t)

	// Idle: no lag, nobody was restarted; the same on both sites.
	s := says(t, image, south, "up+replaying", `"entries_behind_primary":0`, `"lag_seconds":0`)
	if k := keysOf(t, s); k.Lag == nil || *k.Lag != 0 || k.Restarts != 0 || k.Silent != nil {
		t.Errorf("an idle image: %s", s.Description)
	}
	if there, err := image.StatusOn(north); err != nil || len(there.Peers) != 1 || there.Peers[0].State != "up+replaying" {
		t.Errorf("on the primary's site: %+v, %v", there, err)
	}
	harness.Eventually(t, within, func() string {
		p := pool.PoolStatusOn(t, south)
		if p.Summary.States["replaying"] == 2 && p.Summary.Health == "OK" && p.Summary.ImageHealth == "OK" {
			return ""
		}
		return fmt.Sprintf("%+v", p.Summary)
	})

	t.Run("worker killed", func(t *testing.T) {
		daemon.KillWorkers()
		s := says(t, image, south, "up+replaying", `"restarts":1`, "worker ", "signal")
		t.Log(s.Description)
	})
	t.Run("demoted", func(t *testing.T) {
		demote(t, north, demoted)
		says(t, demoted, south, "up+unknown", "remote image is not primary", "is demoted on", "rbd mirror image promote "+demoted.Spec())
	})
	t.Run("stopped by an operator", func(t *testing.T) {
		admin := func(verb string) {
			harness.Run(t, south, "ceph", "--admin-daemon", daemon.Socket, "rbd", "mirror", verb, image.Spec())
		}
		admin("stop")
		says(t, image, south, "up+stopped", "stopped")
		admin("start")
		says(t, image, south, "up+replaying")
	})
	t.Run("daemon gone", func(t *testing.T) {
		daemon.Stop(t, stopTime)
		says(t, image, south, "down+stopped", "the daemon let go of the image")
		if p := pool.PoolStatusOn(t, south); p.Summary.States["unknown"] != 2 || p.Summary.ImageHealth == "OK" {
			t.Errorf("the pool without a daemon: %+v", p.Summary)
		}
	})
	t.Run("primary's site silent", func(t *testing.T) {
		daemon = start()
		image.WaitReplayed(t)
		pause(t, north)
		harness.Eventually(t, 30*time.Second, func() string {
			s, err := image.StatusOn(south)
			if err != nil {
				return err.Error()
			}
			if s.State == "up+error" {
				return "" // it has given up the connection already
			}
			if k := keysOf(t, s); k.Lag != nil || k.Silent == nil {
				return "a lag is claimed that nobody can know: " + s.Description
			}
			return ""
		})
		image.WaitState(t, "up+error", north.Name(), "did not answer in time", "by itself at")
		// A daemon that starts now finds nobody at all. That mirroring goes on when the site is back is
		// TestMirroringGoesOnWhenThePrimarySiteComesBack's.
		daemon.Kill()
		daemon = start()
		image.WaitState(t, "up+error", "unable to connect to remote cluster "+north.Name())
	})
}
