package harness

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/report"
)

// Ps is what "rbd-warden ps --json" tells of this daemon; false if it does not answer.
func (d *Daemon) Ps(t testing.TB, c *lab.Cluster) (report.Daemon, bool) {
	t.Helper()
	sockets, err := filepath.Glob(filepath.Join(c.RunDir(), fmt.Sprintf("*.%d.warden.sock", d.PID())))
	if err != nil {
		t.Fatal(err)
	}
	if len(sockets) != 1 {
		return report.Daemon{}, false // it does not listen yet, or any more
	}
	out, complaints, code := Warden(t, c, "ps", "--json", "--socket", sockets[0])
	var all []report.Daemon
	if err := json.Unmarshal([]byte(out), &all); err != nil || code == 0 && len(all) != 1 {
		t.Fatalf("ps: %v in %q, %q", err, out, complaints)
	}
	if code != 0 || len(all) == 0 {
		return report.Daemon{}, false
	}
	return all[0], true
}

// Workers lists the daemon's living worker processes by their index, with their process ids.
func (d *Daemon) Workers() map[int]int {
	workers := map[int]int{}
	for _, pid := range d.descendants() {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		// Its name and, once it has one, its options; "worker" and the index are always there (see cmd/rbd-warden).
		words := strings.Split(string(line), "\x00")
		if at := slices.Index(words, "worker"); at >= 0 && at+1 < len(words) {
			if index, err := strconv.Atoi(words[at+1]); err == nil {
				workers[index] = pid
			}
		}
	}
	return workers
}

// AwaitEnd waits until a process is dead, and answers when it was seen to be.
func AwaitEnd(t testing.TB, pid int, within time.Duration) time.Time {
	t.Helper()
	for deadline := time.Now().Add(within); running(pid); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d lives on for %v", pid, within)
		}
	}
	return time.Now()
}

// AbortInside makes one of librados's own threads abort its process, as a failed assertion in it does: the signal is that
// thread's and nobody else's.
func AbortInside(t testing.TB, pid int) {
	t.Helper()
	names, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/comm", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range names {
		name, _ := os.ReadFile(path)
		if !strings.HasPrefix(string(name), "msgr-worker") {
			continue
		}
		thread, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err == nil {
			err = unix.Tgkill(pid, thread, syscall.SIGABRT)
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("process %d has no thread of librados's messenger", pid)
}

// PeakRSS is the most memory that a living process has had resident, in bytes; 0 if it is not there.
func PeakRSS(pid int) int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	return 0
}
