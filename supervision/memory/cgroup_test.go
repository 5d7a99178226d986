package memory

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Whoever passes the limit of its group is ended by the kernel, which counts that; and
// nothing of the group is left.
func TestGroupEndsWhatPassesItsLimit(t *testing.T) {
	root, err := Open()
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	}
	t.Cleanup(func() {
		root.Close()
		if _, err := os.Stat(root.dir()); err == nil && !root.v2 {
			t.Errorf("%s is left behind", root.dir())
		}
	})
	g, err := root.Group("worker-0", 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { g.Close() }()
	wait := burst(t, g, "128M")
	if err := wait(); err == nil {
		t.Error("the process survived")
	}
	u, err := g.Usage()
	if err != nil {
		t.Fatal(err)
	}
	if u.OOMKills != 1 || u.LimitHits == 0 || u.Peak < 60<<20 || u.Peak > 64<<20 {
		t.Errorf("usage %+v, want a kill at the limit of 64 MiB", u)
	}
	if killed, own, err := g.KilledByOwnLimit(); !killed || !own || err != nil {
		t.Errorf("killed %v, for its own limit %v, %v", killed, own, err)
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	// The next of that name begins with counters of its own.
	if g, err = root.Group("worker-0", 64<<20); err != nil {
		t.Fatal(err)
	}
	if err := burst(t, g, "1M")(); err != nil {
		t.Errorf("a process that keeps within its limit: %v", err)
	}
	if killed, own, err := g.KilledByOwnLimit(); killed || own || err != nil {
		t.Errorf("after the restart: killed %v, for its own limit %v, %v", killed, own, err)
	}
}

// burst starts a process in a group that takes so much memory, and returns what waits
// for its end.
func burst(t *testing.T, g *Group, size string) func() error {
	t.Helper()
	// It waits until it is in the group.
	cmd := exec.Command("/bin/sh", "-c", "read go; head -c "+size+" /dev/zero | tail -c "+size+" >/dev/null")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := g.Add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in, "go")
	return cmd.Wait
}

func TestWhoseLimitItWas(t *testing.T) {
	const limit = 1 << 30
	for _, c := range []struct {
		name string
		u    Usage
		v2   bool
		want bool
	}{
		{"not killed", Usage{Peak: limit, LimitHits: 3}, false, false},
		{"the limit was hit", Usage{Peak: limit, LimitHits: 3, OOMKills: 1}, false, true},
		{"killed for the host, far below its limit", Usage{Peak: limit / 2, LimitHits: 3, OOMKills: 1}, false, false},
		{"killed for the host", Usage{Peak: limit, OOMKills: 1}, false, false},
		{"version 2 tells", Usage{LimitHits: 1, OOMKills: 1}, true, true},
		{"version 2 tells that it was another", Usage{Peak: limit, OOMKills: 1}, true, false},
	} {
		if got := c.u.OwnLimit(limit, c.v2); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// What a dead daemon has left is removed, a living one's is not.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"rbd-warden.10.77/worker-0", "rbd-warden.10.77/daemon", "rbd-warden.11.88/worker-0", "rbd-warden.odd", "other"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sweep(dir, func(pid int, start uint64) bool { return pid == 11 && start == 88 })
	var left []string
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if got := fmt.Sprint(left); got != "[other rbd-warden.11.88 rbd-warden.odd]" {
		t.Errorf("left: %s", got)
	}
	if start, ok := startTime(os.Getpid()); !ok || !alive(os.Getpid(), start) || alive(os.Getpid(), start+1) {
		t.Errorf("this process, started at %d (%v), is not known to be alive", start, ok)
	}
}

// A cgroup of version 2 is divided only where it was handed to us.
func TestDelegated(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		fails bool
	}{
		"ours alone":      {files: map[string]string{"cgroup.type": "domain\n", "cgroup.controllers": "cpu memory\n", "cgroup.procs": "7\n"}},
		"the root":        {files: map[string]string{"cgroup.controllers": "cpu memory\n", "cgroup.procs": "7\n"}, fails: true},
		"no controller":   {files: map[string]string{"cgroup.type": "domain\n", "cgroup.controllers": "cpu\n", "cgroup.procs": "7\n"}, fails: true},
		"with a shell":    {files: map[string]string{"cgroup.type": "domain\n", "cgroup.controllers": "memory\n", "cgroup.procs": "6\n7\n"}, fails: true},
		"no cgroup there": {fails: true},
	} {
		dir := t.TempDir()
		for file, text := range c.files {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := os.Stat("/run/systemd/system"); err == nil {
			c.fails = true // nobody has marked it
		}
		if err := delegated(dir, 7); (err != nil) != c.fails {
			t.Errorf("%s: %v", name, err)
		}
	}
}
