//go:build live

package live

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// TestWrongPeerKeyIsReportedAndCured gives the daemon a peer's key that the peer does not know. The pool says that it is
// not well, another pool goes on, and with the right key mirroring begins without a restart.
func TestWrongPeerKeyIsReportedAndCured(t *testing.T) {
	pair := harness.SharedPair(t)
	good, bad := harness.NewPool(t, pair, lab.PoolMode), harness.NewPool(t, pair, lab.PoolMode)
	locked, open := bad.Create(t, "locked", harness.ImageOptions{SizeMiB: 8}), good.Create(t, "open", harness.ImageOptions{SizeMiB: 8})
	locked.Bench(t, "rand", "4K", "256K")
	open.Bench(t, "rand", "4K", "256K")

	key, right := peerConfig(t, pair.Secondary, bad.Name)
	wrong := map[string]string{}
	for name, value := range right {
		wrong[name] = value
	}
	wrong["key"] = strings.TrimSpace(harness.Run(t, pair.Secondary, "ceph-authtool", "--gen-print-key"))
	setPeerConfig(t, pair.Secondary, key, wrong)
	daemon := harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	open.WaitReplayed(t)
	harness.Eventually(t, harness.Patience, func() string {
		if s := bad.PoolStatusOn(t, pair.Secondary); s.Summary.DaemonHealth == "OK" || s.Summary.DaemonHealth == "UNKNOWN" {
			return fmt.Sprintf("pool status hides that the peer cannot be reached: %+v", s)
		} else if !strings.Contains(fmt.Sprint(s.Daemons), "unable to connect to remote cluster") { // upstream's words
			return fmt.Sprintf("no callout: %+v", s.Daemons)
		}
		return ""
	})
	var services struct {
		Services map[string]struct {
			Daemons map[string]json.RawMessage `json:"daemons"`
		} `json:"services"`
	}
	if err := json.Unmarshal([]byte(harness.Run(t, pair.Secondary, "ceph", "service", "dump", "--format", "json")), &services); err != nil {
		t.Fatal(err)
	}
	metadata := string(services.Services["rbd-mirror"].Daemons[good.PoolStatusOn(t, pair.Secondary).Daemons[0].ServiceID])
	for _, key := range []string{"arch", "ceph_release", "ceph_version", "ceph_version_short", "hostname", "id", "instance_id", "kernel_version", "os"} {
		if !strings.Contains(metadata, `"`+key+`":`) {
			t.Errorf("the service map lacks %s: %s", key, metadata)
		}
	}
	open.Bench(t, "rand", "4K", "256K")
	open.WaitReplayed(t)

	setPeerConfig(t, pair.Secondary, key, right)
	locked.WaitReplayed(t)
	locked.AssertReplica(t)
	daemon.Stop(t, stopTime)
}

// peerConfig reads how the cluster reaches its pool's peer: the key in the monitor's store, and the values.
func peerConfig(t *testing.T, c *lab.Cluster, pool string) (string, map[string]string) {
	t.Helper()
	var info struct {
		Peers []struct {
			UUID string `json:"uuid"`
		} `json:"peers"`
	}
	if err := json.Unmarshal([]byte(harness.Run(t, c, "rbd", "mirror", "pool", "info", "--format", "json", pool)), &info); err != nil {
		t.Fatal(err)
	}
	key := fmt.Sprintf("rbd/mirror/peer/%d/%s", harness.PoolID(t, c, pool), info.Peers[0].UUID)
	var values map[string]string
	if err := json.Unmarshal([]byte(harness.Run(t, c, "ceph", "config-key", "get", key)), &values); err != nil {
		t.Fatal(err)
	}
	return key, values
}

func setPeerConfig(t *testing.T, c *lab.Cluster, key string, values map[string]string) {
	t.Helper()
	text, err := json.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	harness.Run(t, c, "ceph", "config-key", "set", key, string(text))
}

// TestMissingConfigurationEndsTheDaemonWithTheReason starts the daemon with a ceph.conf that is not there.
func TestMissingConfigurationEndsTheDaemonWithTheReason(t *testing.T) {
	pair := harness.SharedPair(t)
	absent := filepath.Join(t.TempDir(), "absent.conf")
	daemon := harness.StartDaemon(t, pair.Secondary, harness.Ours(t), "-c", absent)
	select {
	case <-daemon.Exited():
	case <-time.After(time.Minute):
		t.Fatal("the daemon runs on without a configuration")
	}
	if daemon.ExitError() == nil {
		t.Error("the daemon ended with status 0")
	}
	if !harness.TestsUpstream() && !strings.Contains(daemon.Tail(), absent) {
		t.Errorf("the daemon does not name the file that it misses:\n%s", daemon.Tail())
	}
}

// TestAPoolThatVanishesLeavesTheOthersAlone deletes pools, on either side, while the daemon mirrors them.
func TestAPoolThatVanishesLeavesTheOthersAlone(t *testing.T) {
	pair := harness.SharedPair(t)
	stays := harness.NewPool(t, pair, lab.PoolMode)
	image := stays.Create(t, "image", harness.ImageOptions{SizeMiB: 8})
	daemon := harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	for _, c := range []*lab.Cluster{pair.Secondary, pair.Primary} {
		goes := harness.NewPool(t, pair, lab.PoolMode)
		doomed := goes.Create(t, "doomed", harness.ImageOptions{SizeMiB: 8})
		doomed.Bench(t, "rand", "4K", "256K")
		doomed.WaitReplayed(t)
		if err := c.DeletePool(t.Context(), goes.Name); err != nil {
			t.Fatal(err)
		}
		image.Bench(t, "rand", "4K", "512K")
		image.WaitReplayed(t)
		image.AssertReplica(t)
	}
	daemon.Stop(t, stopTime)
}
