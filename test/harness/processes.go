package harness

import (
	"context"
	"encoding/json"
	"errors"
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
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/rbdwarden/rbdwarden/lab"
	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/report"
)

// ControlSocket is where the daemon takes control messages; empty while it does not.
func (d *Daemon) ControlSocket(c *lab.Cluster) string {
	sockets, _ := filepath.Glob(filepath.Join(c.RunDir(), fmt.Sprintf("*.%d.warden.sock", d.PID())))
	if len(sockets) != 1 {
		return ""
	}
	return sockets[0]
}

// Ps is what "rbd-warden ps --json" tells of this daemon; false if it does not answer.
func (d *Daemon) Ps(t testing.TB, c *lab.Cluster) (report.Daemon, bool) {
	t.Helper()
	socket := d.ControlSocket(c)
	if socket == "" {
		return report.Daemon{}, false // it does not listen yet, or any more
	}
	out, complaints, code := Warden(t, c, "ps", "--json", "--socket", socket)
	var all []report.Daemon
	if err := json.Unmarshal([]byte(out), &all); err != nil || code == 0 && len(all) != 1 {
		t.Fatalf("ps: %v in %q, %q", err, out, complaints)
	}
	if code != 0 || len(all) == 0 {
		return report.Daemon{}, false
	}
	return all[0], true
}

// Ask is Ps without a program: for asking often.
func (d *Daemon) Ask(ctx context.Context, c *lab.Cluster) (r report.Daemon, err error) {
	socket := d.ControlSocket(c)
	if socket == "" {
		return r, errors.New("the daemon does not listen")
	}
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	reply, err := controlv1.NewControlClient(conn).Ps(ctx, &controlv1.PsRequest{})
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(reply.ReportJson, &r)
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
	for deadline := time.Now().Add(within); Running(pid); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d lives on for %v", pid, within)
		}
	}
	return time.Now()
}

// AbortInside makes one of librados's own threads abort its process, as a failed assertion in it does: the signal is that
// thread's and nobody else's.
func AbortInside(pid int) error {
	names, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/comm", pid))
	if err != nil {
		return err
	}
	for _, path := range names {
		name, _ := os.ReadFile(path)
		if !strings.HasPrefix(string(name), "msgr-worker") {
			continue
		}
		thread, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return err
		}
		return unix.Tgkill(pid, thread, syscall.SIGABRT)
	}
	return fmt.Errorf("process %d has no thread of librados's messenger", pid)
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
