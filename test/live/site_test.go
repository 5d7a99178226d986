//go:build live

package live

import (
	"strings"
	"syscall"
	"testing"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// pause makes a cluster fall silent, as a lost site does, until the test ends or resume.
func pause(t *testing.T, c *lab.Cluster) {
	t.Helper()
	t.Cleanup(func() { c.Signal(syscall.SIGCONT) })
	if err := c.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
}

// resume ends a pause, and sees to it that the cluster serves again.
func resume(t *testing.T, c *lab.Cluster) {
	t.Helper()
	if err := c.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	harness.KeepServing(t, c)
}

// underWay says whether any of the images has a sync point at work.
func underWay(t *testing.T, images []*harness.Image) bool {
	t.Helper()
	for _, image := range images {
		if meta, ok := image.PeerMeta(t); ok && len(meta.SyncPoints) > 0 {
			return true
		}
	}
	return false
}

// containsSyncPoint says whether a list of snapshots names one that mirroring made for itself.
func containsSyncPoint(list string) bool { return strings.Contains(list, ".rbd-mirror.") }
