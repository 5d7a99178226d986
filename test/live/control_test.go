//go:build live

package live

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// locked tells whether the copy of an image has an owner.
func locked(t *testing.T, image *harness.Image) bool {
	t.Helper()
	var owners []any
	out := harness.Run(t, image.Secondary(), "rbd", "lock", "ls", "--format", "json", image.Spec())
	if err := json.Unmarshal([]byte(out), &owners); err != nil {
		t.Fatalf("rbd lock ls: %v in %q", err, out)
	}
	return len(owners) > 0
}

// TestControlMessages gives every command twice, to a daemon with two workers, while writes flow; what it acknowledges is
// so at that moment. Traces go on over restarts and the death of a worker.
func TestControlMessages(t *testing.T) {
	pair := harness.ParallelPair(t)
	pool := harness.NewPool(t, pair, lab.PoolMode)
	one, other := pool.Create(t, "one", harness.ImageOptions{SizeMiB: 16}), pool.Create(t, "other", harness.ImageOptions{SizeMiB: 16})
	c := pair.Secondary
	daemon := harness.StartDaemon(t, c, harness.Ours(t), "--rbd-warden-workers", "2")
	one.WaitReplayed(t)
	other.WaitReplayed(t)
	sockets, err := filepath.Glob(filepath.Join(c.RunDir(), fmt.Sprintf("*.%d.warden.sock", daemon.PID())))
	if err != nil || len(sockets) != 1 {
		t.Fatalf("control sockets %v, %v", sockets, err)
	}
	if info, err := os.Stat(sockets[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("control socket: %v, %v", info, err)
	}
	warden := func(code int, want string, args ...string) string {
		t.Helper()
		out, complaints, got := harness.Warden(t, c, append(args, "--socket", sockets[0])...)
		if got != code || !strings.Contains(out+complaints, want) {
			t.Errorf("%v: exit code %d, %q, %q; want %d, %q", args, got, out, complaints, code, want)
		}
		return out
	}
	stop := writeUntilStopped(t, []*harness.Image{one, other})
	spec := one.Spec()
	said := "image " + spec + ": "

	// Let go of, and taken again.
	warden(0, said+"was replaying, stopped", "image", "stop", spec)
	if locked(t, one) {
		t.Error("a stop was acknowledged before the lock was free")
	}
	warden(0, said+"is stopped already", "image", "stop", spec)
	one.WaitState(t, "up+stopped", "stopped by ")
	warden(1, "holds no lock that a pause could keep", "image", "pause", spec)
	warden(0, said+"was stopped, replaying", "image", "start", spec)
	warden(0, said+"is replaying already", "image", "start", spec)
	if !locked(t, one) {
		t.Error("a start was acknowledged before the image was owned")
	}

	// Held still: owned, at its place, while the other goes on.
	warden(0, said+"was replaying, paused", "image", "pause", spec)
	at := one.JournalOn(t, pair.Primary).Mirror()
	warden(0, said+"is paused already", "image", "pause", spec)
	one.WaitState(t, "up+stopped", "paused by ", "keeps the image's lock")
	before := other.JournalOn(t, pair.Primary).Mirror()
	harness.Eventually(t, harness.Patience, func() string {
		if now := other.JournalOn(t, pair.Primary).Mirror(); !before.Before(now) {
			return fmt.Sprintf("the other image stays at %v", now)
		}
		return ""
	})
	if now := one.JournalOn(t, pair.Primary).Mirror(); now != at || !locked(t, one) {
		t.Errorf("a paused image went from %v to %v, or lost its lock", at, now)
	}

	// So it stays when its worker dies, and the trace tells of that.
	pids, killed := map[int]int{}, time.Now()
	for index, pid := range daemon.Workers() {
		pids[index] = pid
		syscall.Kill(pid, syscall.SIGKILL)
	}
	if len(pids) != 2 {
		t.Errorf("workers %v", pids)
	}
	harness.Eventually(t, harness.Patience, func() string {
		d, ok := daemon.Ps(t, c)
		for _, w := range d.Workers {
			for _, p := range w.Pools {
				for _, i := range p.Images {
					if i.Name == one.Name && w.PID != 0 && w.PID != pids[w.Index] && i.Paused && i.Step == "PAUSED" && i.Since.After(killed) {
						return "" // not what the dead worker said last
					}
				}
			}
		}
		return fmt.Sprintf("paused nowhere: %v, %+v", ok, d)
	})
	if now := one.JournalOn(t, pair.Primary).Mirror(); now != at {
		t.Errorf("a paused image went from %v to %v when its worker died", at, now)
	}
	trace := warden(0, "signal: 9 (killed)", "image", "trace", spec)
	for _, want := range []string{"START_REPLAY → REPLAYING", "→ PAUSED", " ended", "STOPPED → PREPARE_LOCAL_IMAGE"} {
		if !strings.Contains(trace, want) {
			t.Errorf("the trace lacks %q:\n%s", want, trace)
		}
	}
	if strings.LastIndex(trace, " ended") > strings.LastIndex(trace, "→ PAUSED") || strings.Index(trace, " ended") < strings.Index(trace, "→ PAUSED") {
		t.Errorf("the trace is not what happened before and after the worker's death:\n%s", trace)
	}
	// From here on images may move between the workers at any time, which share them anew. Commands to a pool name
	// the images that some worker has at that moment; as others they may be given again.
	whole := func(want string, args ...string) {
		t.Helper()
		harness.Eventually(t, harness.Patience, func() string {
			out, complaints, code := harness.Warden(t, c, append(args, "--socket", sockets[0])...)
			if code != 0 || !strings.Contains(out, want) {
				return fmt.Sprintf("%v: exit code %d, %q, %q; want %q", args, code, out, complaints, want)
			}
			return ""
		})
	}
	warden(0, "replaying\n", "image", "resume", spec)
	warden(0, said, "image", "resume", spec)

	// Begun anew, committed, and asked for what is not there.
	for range 2 {
		warden(0, ", replaying\n", "image", "restart", spec)
		warden(0, ", flushed\n", "image", "flush", spec)
		whole("image "+other.Spec()+": ", "pool", "flush", pool.Name)
	}
	var image report.Image
	if err := json.Unmarshal([]byte(warden(0, "", "image", "trace", spec, "--json")), &image); err != nil || len(image.Trace) == 0 || len(image.Trace) > 64 {
		t.Errorf("trace as JSON: %v, %d lines", err, len(image.Trace))
	}
	warden(1, "no image "+pool.Name+"/absent is mirrored by this daemon, which knows of o", "image", "stop", pool.Name+"/absent")
	warden(1, "pool absent is not mirrored by this daemon", "pool", "stop", "absent")

	// All of a pool, and workers one after the other.
	for range 2 {
		whole(said, "pool", "stop", pool.Name)
		if locked(t, one) || locked(t, other) {
			t.Error("a pool's stop was acknowledged before the locks were free")
		}
	}
	warden(0, "worker 1: was ready", "worker", "restart", "all")
	one.WaitState(t, "up+stopped", "stopped by ")
	warden(0, "", "pool", "start", pool.Name)
	whole(said, "pool", "start", pool.Name)
	whole(", replaying\n", "pool", "restart", pool.Name)

	// A worker that does not answer.
	daemon.Signal(syscall.SIGSTOP, true)
	began := time.Now()
	warden(1, "does not answer; the stop is noted", "image", "stop", spec, "--timeout", "1s")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("said after %v that a worker does not answer", took)
	}
	daemon.Signal(syscall.SIGCONT, true)
	warden(0, "replaying", "image", "start", spec)

	stop()
	for _, image := range []*harness.Image{one, other} {
		image.WaitReplayed(t)
		image.AssertEqual(t)
	}
	tree := warden(0, "pool "+pool.Name+" from ", "ps", "--pool", pool.Name)
	for _, want := range []string{"worker 0: ready", "worker 1: ready", "replaying"} {
		if !strings.Contains(tree, want) {
			t.Errorf("ps lacks %q:\n%s", want, tree)
		}
	}
	daemon.Stop(t, stopTime)
}
