package process

import (
	"bufio"
	"bytes"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// oomProbe reads the kernel's counters of out-of-memory kills. The signal alone does
// not tell: an out-of-memory kill is a SIGKILL like any other.
type oomProbe struct {
	root string // "/", or a stand-in in tests
}

// oomCounts are counters at one time. Counters that cannot be read are missing.
type oomCounts struct {
	groups []groupCounts // of our cgroup and its ancestors, innermost first
	host   int64         // kills on the whole host; -1 if unknown
}

type groupCounts struct {
	path  string // as a person would look for it, under /sys/fs/cgroup
	kills int64  // processes of it and its descendants that were killed
	hits  int64  // times that its own limit was the reason; -1 if unknown
}

// read takes the counters of the cgroup that this process is in, and of those around
// it. Workers are in it, too, or in a group of their own below it.
func (p oomProbe) read() oomCounts {
	counts := oomCounts{host: -1}
	if v, ok := p.counter("proc/vmstat", "oom_kill"); ok {
		counts.host = v
	}
	dir, unified := p.cgroup()
	for ; dir != ""; dir = path.Dir(dir) {
		g := groupCounts{path: "/" + dir, hits: -1}
		var ok bool
		if unified {
			g.kills, ok = p.counter(dir+"/memory.events", "oom_kill")
			if hits, known := p.counter(dir+"/memory.events.local", "oom"); known {
				g.hits = hits
			}
		} else {
			g.kills, ok = p.counter(dir+"/memory.oom_control", "oom_kill")
			if hits, known := p.number(dir + "/memory.failcnt"); known {
				g.hits = hits
			}
		}
		if ok {
			counts.groups = append(counts.groups, g)
		}
		if base := path.Base(dir); base == "cgroup" || !unified && base == "memory" {
			break
		}
	}
	return counts
}

// cgroup finds the directory of our memory cgroup, without the leading slash. It is
// "" if there is none.
func (p oomProbe) cgroup() (dir string, unified bool) {
	data, err := os.ReadFile(filepath.Join(p.root, "proc/self/cgroup"))
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(string(data)) {
		// hierarchy-ID:controllers:path; the unified hierarchy is "0::path".
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		for _, controller := range strings.Split(parts[1], ",") {
			if controller == "memory" {
				return path.Join("sys/fs/cgroup/memory", parts[2]), false
			}
		}
		if parts[0] == "0" && parts[1] == "" {
			dir, unified = path.Join("sys/fs/cgroup", parts[2]), true
		}
	}
	return dir, unified
}

// counter reads one "name value" line of a file.
func (p oomProbe) counter(file, name string) (int64, bool) {
	data, err := os.ReadFile(filepath.Join(p.root, file))
	if err != nil {
		return 0, false
	}
	for sc := bufio.NewScanner(bytes.NewReader(data)); sc.Scan(); {
		key, value, _ := strings.Cut(sc.Text(), " ")
		if key == name {
			v, err := strconv.ParseInt(value, 10, 64)
			return v, err == nil
		}
	}
	return 0, false
}

// number reads a file that has one number.
func (p oomProbe) number(file string) (int64, bool) {
	data, err := os.ReadFile(filepath.Join(p.root, file))
	if err != nil {
		return 0, false
	}
	v, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return v, err == nil
}

// killedSince tells which limit killed something between two readings, "" if none
// did. With the counter of our own cgroup it is certain that the victim was in it.
// The host's counter is only used where there is no other, because the victim may
// have been somebody else's.
func (before oomCounts) killedSince(after oomCounts) string {
	old := map[string]groupCounts{}
	for _, g := range before.groups {
		old[g.path] = g
	}
	if len(after.groups) == 0 {
		if before.host >= 0 && after.host > before.host {
			return "host, probably"
		}
		return ""
	}
	innermost := after.groups[0]
	if innermost.kills <= old[innermost.path].kills {
		return ""
	}
	return before.limitHitSince(after)
}

// limitHitSince tells, of a kill that happened, whose limit was the reason: the
// innermost that was met, or the host's memory. In version 1 a limit may also be met
// without harm.
func (before oomCounts) limitHitSince(after oomCounts) string {
	old := map[string]groupCounts{}
	for _, g := range before.groups {
		old[g.path] = g
	}
	for _, g := range after.groups {
		if g.hits < 0 {
			return g.path // it is not known whose limit it was
		}
		if g.hits > max(0, old[g.path].hits) {
			return g.path
		}
	}
	return "host"
}
