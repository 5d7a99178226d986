package memory

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Group is the memory cgroup of one worker process.
type Group struct {
	dir   string
	limit int64 // bytes
	v1    cgroup1.Cgroup
	v2    *cgroup2.Manager
}

// Group makes the cgroup of that name, with a hard limit in bytes: a worker that needs
// more is ended by the kernel, and nothing else on the host suffers. There is no swap
// for it beyond the limit. The error wraps ErrUnavailable.
func (r *Root) Group(name string, limit int64) (*Group, error) {
	path := filepath.Join(r.path, name)
	g := &Group{dir: filepath.Join(r.mount, path), limit: limit}
	// One that is left over would bring its counters along.
	_ = os.Remove(g.dir)
	var err error
	if r.v2 {
		g.v2, err = cgroup2.NewManager(r.mount, path, &cgroup2.Resources{Memory: &cgroup2.Memory{Max: &limit}})
		if err == nil {
			_ = os.WriteFile(filepath.Join(g.dir, "memory.swap.max"), []byte("0"), 0) // where there is swap
		}
	} else {
		memory := &specs.LinuxMemory{Limit: &limit}
		if _, err := os.Stat(filepath.Join(r.dir(), "memory.memsw.limit_in_bytes")); err == nil {
			// Memory and swap together. A little more, or that limit would be met first:
			// there are kernels that do not count it (memory.memsw.failcnt; Linux 6.18).
			both := limit + 1<<20
			memory.Swap = &both
		}
		g.v1, err = cgroup1.New(cgroup1.StaticPath(path), &specs.LinuxResources{Memory: memory},
			cgroup1.WithHierarchy(memoryOnly))
	}
	if err != nil {
		_ = os.Remove(g.dir)
		return nil, fmt.Errorf("%w: make %s: %w", ErrUnavailable, g.dir, err)
	}
	return g, nil
}

// memoryOnly keeps a worker where it is in the other hierarchies of version 1.
func memoryOnly() ([]cgroup1.Subsystem, error) {
	return []cgroup1.Subsystem{cgroup1.NewMemory(mountpoint)}, nil
}

// Path is the cgroup's directory, as a person would look for it.
func (g *Group) Path() string { return g.dir }

// Limit is the hard limit in bytes.
func (g *Group) Limit() int64 { return g.limit }

// Add moves a process into the cgroup. What it has used so far stays on its old
// cgroup's account.
func (g *Group) Add(pid int) error {
	if g.v1 != nil {
		return g.v1.AddProc(uint64(pid))
	}
	return g.v2.AddProc(uint64(pid))
}

// Usage is what a cgroup has used, in bytes.
type Usage struct {
	Current, Peak int64
	// OOMKills counts processes of the group that the kernel's out-of-memory killer
	// has ended, whatever limit was the reason; LimitHits how often its own limit was
	// reached. In version 1 that may also have been without harm.
	OOMKills, LimitHits int64
}

// Usage reads the cgroup's counters.
func (g *Group) Usage() (Usage, error) {
	var u Usage
	var err error
	read := func(into *int64, v1, v2 string) {
		name := v1
		if g.v2 != nil {
			name = v2
		}
		file, key, _ := strings.Cut(name, " ")
		n, e := readCounter(filepath.Join(g.dir, file), key)
		if *into = n; e != nil && err == nil {
			err = e
		}
	}
	read(&u.Current, "memory.usage_in_bytes", "memory.current")
	read(&u.OOMKills, "memory.oom_control oom_kill", "memory.events oom_kill")
	read(&u.LimitHits, "memory.failcnt", "memory.events.local oom")
	fatal := err
	read(&u.Peak, "memory.max_usage_in_bytes", "memory.peak") // Linux before 5.19 has no memory.peak
	return u, fatal
}

// OwnLimit tells whether an out-of-memory kill in the group was for its own limit, and
// not for that of a cgroup around it or for want of memory on the host.
func (u Usage) OwnLimit(limit int64, v2 bool) bool {
	if u.OOMKills == 0 || u.LimitHits == 0 {
		return false
	}
	// Version 1 does not tell. Its kernel charges in steps below this, so a group that
	// was killed for its own limit has come that near to it.
	const near = 4 << 20
	return v2 || u.Peak >= limit-min(near, limit/16)
}

// KilledByOwnLimit reads the counters: killed says that the out-of-memory killer ended
// a process of the group, own that the group's own limit was the reason.
func (g *Group) KilledByOwnLimit() (killed, own bool, err error) {
	u, err := g.Usage()
	return u.OOMKills > 0, u.OwnLimit(g.limit, g.v2 != nil), err
}

// Close removes the cgroup, whose processes must be dead.
func (g *Group) Close() error {
	if g.v1 != nil {
		return g.v1.Delete()
	}
	return g.v2.Delete()
}

// readCounter reads a file that has one number, or the line of that key in one that has
// a number for each key.
func readCounter(file, key string) (int64, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	if key == "" {
		return strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	}
	for line := range strings.Lines(string(data)) {
		if k, v, _ := strings.Cut(strings.TrimSpace(line), " "); k == key {
			return strconv.ParseInt(v, 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no %q", file, key)
}
