package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/lab"
)

// benchPatience is after how long a write of rbd bench is taken for one that hangs.
const benchPatience = 100 * time.Second

// Bench writes with rbd bench on the primary: pattern rand or seq, sizes as rbd takes them (4K, 1M).
func (i *Image) Bench(t testing.TB, pattern, ioSize, total string) {
	t.Helper()
	BenchOn(t, i.Primary(), i, "--io-pattern", pattern, "--io-size", ioSize, "--io-total", total)
}

// BenchOn writes to an image with rbd bench on a cluster; args are all but the type of I/O and the image.
//
// Ceph's client has races of its own on a busy machine: 16.2.15's rbd bench may abort (AsyncOpTracker.cc, "m_pending_ops
// == 0"), or hang with the image's lock in its hands. Only that is tried again, and told: a lock that outlives its
// client, so that another one has it or keeps it from being taken, fails the test.
func BenchOn(t testing.TB, c *lab.Cluster, i *Image, args ...string) {
	t.Helper()
	argv := slices.Concat([]string{"bench", "--io-type", "write"}, args, []string{i.Spec()})
	for try := 1; ; try++ {
		ctx, cancel := context.WithTimeout(context.Background(), benchPatience)
		hung := make(chan string, 1)
		timer := time.AfterFunc(benchPatience-15*time.Second, func() { hung <- lockOf(c, i) })
		_, err := c.CLI(ctx, "rbd", argv...)
		cancel()
		if err == nil {
			timer.Stop()
			return
		}
		why := ""
		switch {
		case try == 3:
		case ended(err) == syscall.SIGABRT:
			why = "aborted"
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			owner := <-hung
			if left := lockOf(c, i); left != "" && (left == owner || owner == "") && watches(c, i, left) {
				t.Fatalf("%s hangs, for the lock of the image belongs to %s, which lives: %v", strings.Join(argv, " "), left, err)
			}
			why = fmt.Sprintf("hung for %v, the lock being %q's, which is gone", benchPatience, owner)
		}
		timer.Stop()
		if why == "" {
			t.Fatal(err)
		}
		t.Logf("%s %s, once more: %.300s", strings.Join(argv, " "), why, err)
	}
}

// ended is the signal that ended a program, 0 if none did.
func ended(err error) syscall.Signal {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return status.Signal()
		}
	}
	return 0
}

// lockOf is the client that has the image's lock ("client.4123"), "" if nobody has or nobody can tell.
func lockOf(c *lab.Cluster, i *Image) string {
	var locks []struct {
		Locker string `json:"locker"`
	}
	out, err := Try(c, "rbd", "lock", "ls", "--format", "json", i.Spec())
	if err != nil || json.Unmarshal([]byte(out), &locks) != nil || len(locks) == 0 {
		return ""
	}
	return locks[0].Locker
}

// watches tells whether a client watches the image, as all do that live and have it open. Who was killed is seen for
// half a minute longer, by Ceph's defaults.
func watches(c *lab.Cluster, i *Image, client string) bool {
	deadline := time.Now().Add(Patience)
	for time.Now().Before(deadline) {
		out, err := Try(c, "rbd", "status", i.Spec())
		if err == nil && !strings.Contains(out, " "+client+" ") {
			return false
		}
		time.Sleep(time.Second)
	}
	return true
}
