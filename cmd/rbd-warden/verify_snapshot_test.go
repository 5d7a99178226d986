package main

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/cluster/identity"
	"github.com/rbdwarden/rbdwarden/image"
)

// TestLeftoversOfComparisons tells what a killed process has left from what a living one needs, and from what is a user's.
func TestLeftoversOfComparisons(t *testing.T) {
	self, err := identity.Self()
	if err != nil {
		t.Fatal(err)
	}
	// A process that has ended: nobody has its number and its start.
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	dead := self
	dead.PID = ended.Process.Pid
	elsewhere := self
	elsewhere.Boot = "00000000-0000-0000-0000-000000000000"
	now := time.Now()
	h := &image.Header{}
	add := func(name string, age time.Duration) {
		h.Snapshots = append(h.Snapshots, image.Snapshot{SnapshotInfo: rbd.SnapshotInfo{
			Namespace: rbd.UserSnapshot{}, Name: name, Timestamp: now.Add(-age),
		}})
	}
	add("daily", 48*time.Hour)
	add(temporaryName(self), 48*time.Minute)
	add(temporaryName(dead), time.Second)
	add(temporaryName(elsewhere), time.Hour)
	elsewhere.PID = os.Getpid() + 1
	add(temporaryName(elsewhere), 25*time.Hour)
	add(temporaryPrefix+"0123456789abcdef", time.Hour)
	add(temporaryPrefix+"fedcba9876543210", 25*time.Hour)
	want := []string{temporaryName(dead), temporaryName(elsewhere), temporaryPrefix + "fedcba9876543210"}
	if d := cmp.Diff(want, leftovers(h, self, now)); d != "" {
		t.Error(d)
	}
}
