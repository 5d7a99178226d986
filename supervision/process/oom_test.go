package process

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// files writes a stand-in for the root of the file system.
func files(t *testing.T, root string, contents map[string]string) {
	t.Helper()
	for name, text := range contents {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOOMProbe(t *testing.T) {
	const (
		v2    = "0::/system.slice/warden.service\n"
		v1    = "12:cpu:/x\n5:memory:/docker/abc\n0::/x\n"
		own   = "sys/fs/cgroup/system.slice/warden.service/"
		slice = "sys/fs/cgroup/system.slice/"
	)
	for _, c := range []struct {
		name          string
		before, after map[string]string
		want          string
	}{
		{"nothing happened", map[string]string{
			"proc/self/cgroup": v2, "proc/vmstat": "nr_free 1\noom_kill 3\n", own + "memory.events": "max 1\noom_kill 1\n",
		}, nil, ""},
		{"our own limit", map[string]string{
			"proc/self/cgroup": v2, own + "memory.events": "oom 0\noom_kill 1\n", own + "memory.events.local": "oom 4\n",
			slice + "memory.events": "oom_kill 7\n", slice + "memory.events.local": "oom 2\n",
		}, map[string]string{
			own + "memory.events": "oom 5\noom_kill 2\n", own + "memory.events.local": "oom 5\n", slice + "memory.events": "oom_kill 8\n",
		}, "/sys/fs/cgroup/system.slice/warden.service"},
		{"the limit of a slice around us", map[string]string{
			"proc/self/cgroup": v2, own + "memory.events": "oom_kill 1\n", own + "memory.events.local": "oom 4\n",
			slice + "memory.events": "oom_kill 7\n", slice + "memory.events.local": "oom 2\n",
		}, map[string]string{
			own + "memory.events": "oom_kill 2\n", slice + "memory.events": "oom_kill 8\n", slice + "memory.events.local": "oom 3\n",
		}, "/sys/fs/cgroup/system.slice"},
		{"the host", map[string]string{
			"proc/self/cgroup": v2, own + "memory.events": "oom_kill 1\n", own + "memory.events.local": "oom 4\n",
		}, map[string]string{own + "memory.events": "oom_kill 2\n"}, "host"},
		{"somebody else was killed", map[string]string{
			"proc/self/cgroup": v2, "proc/vmstat": "oom_kill 3\n", own + "memory.events": "oom_kill 1\n",
			slice + "memory.events": "oom_kill 7\n",
		}, map[string]string{"proc/vmstat": "oom_kill 4\n", slice + "memory.events": "oom_kill 8\n"}, ""},
		{"version 1", map[string]string{
			"proc/self/cgroup": v1, "sys/fs/cgroup/memory/docker/abc/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
		}, map[string]string{
			"sys/fs/cgroup/memory/docker/abc/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
		}, "/sys/fs/cgroup/memory/docker/abc"},
		{"version 1, the limit of a group around us", map[string]string{
			"proc/self/cgroup": v1, "sys/fs/cgroup/memory/docker/abc/memory.oom_control": "oom_kill 0\n", "sys/fs/cgroup/memory/docker/abc/memory.failcnt": "3\n",
			"sys/fs/cgroup/memory/docker/memory.oom_control": "oom_kill 0\n", "sys/fs/cgroup/memory/docker/memory.failcnt": "5\n",
		}, map[string]string{
			"sys/fs/cgroup/memory/docker/abc/memory.oom_control": "oom_kill 1\n", "sys/fs/cgroup/memory/docker/memory.failcnt": "6\n",
		}, "/sys/fs/cgroup/memory/docker"},
		{"version 1, the host", map[string]string{
			"proc/self/cgroup": v1, "sys/fs/cgroup/memory/docker/abc/memory.oom_control": "oom_kill 0\n", "sys/fs/cgroup/memory/docker/abc/memory.failcnt": "3\n",
		}, map[string]string{"sys/fs/cgroup/memory/docker/abc/memory.oom_control": "oom_kill 1\n"}, "host"},
		{"no cgroup", map[string]string{"proc/vmstat": "oom_kill 3\n"}, map[string]string{"proc/vmstat": "oom_kill 4\n"}, "host, probably"},
		{"nothing readable", nil, nil, ""},
		{"damaged counters", map[string]string{"proc/self/cgroup": "garbage\n0::/\n", "proc/vmstat": "oom_kill many\n"},
			map[string]string{"proc/vmstat": "oom_kill 4\n"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := oomProbe{root: t.TempDir()}
			files(t, p.root, c.before)
			before := p.read()
			files(t, p.root, c.after)
			if got := before.killedSince(p.read()); got != c.want {
				t.Errorf("got %q, want %q (%+v)", got, c.want, before)
			}
		})
	}
}

func TestCapture(t *testing.T) {
	long := strings.Repeat("x", 3*maxLine)
	in := "starting\n" + long + "\npanic: boom\n\ngoroutine 1 [running]:\n" + strings.Repeat("frame\n", 10000) + "last\xff"
	var lines []string
	c := newCapture(strings.NewReader(in), func(s string) { lines = append(lines, s) })
	<-c.done
	crash, tail := c.kept()
	if !strings.HasPrefix(crash, "panic: boom\n") || len(crash) > maxCrash {
		t.Errorf("crash of %d bytes: %.100q", len(crash), crash)
	}
	if !strings.HasSuffix(tail, "frame\nlast\uFFFD\n") || len(tail) > maxTail {
		t.Errorf("tail of %d bytes: %q", len(tail), tail[len(tail)-30:])
	}
	if lines[0] != "starting" || len(lines[1]) > maxLine || lines[2] != "panic: boom" {
		t.Errorf("lines: %.20q, %d bytes, %q", lines[0], len(lines[1]), lines[2])
	}
	if len(lines) != 10005 { // the empty line is not worth an event
		t.Errorf("%d lines", len(lines))
	}
}
