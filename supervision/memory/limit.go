package memory

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Plan is what the limit of a worker is derived from, in bytes.
type Plan struct {
	// Own is rbd_warden_worker_memory_limit: it counts as it is. 0: derived.
	Own int64
	// Target is rbd_mirror_memory_target, which the daemon's workers share. Autotune is
	// rbd_mirror_memory_autotune: without it there is no derived limit.
	Target   int64
	Autotune bool
	Workers  int
	Host     int64 // what this host, or this container, has; 0: unknown
}

// MinWorker is the least that a derived limit gives a worker with all its connections,
// in bytes.
const MinWorker = 512 << 20

// Limit is the limit of each worker in bytes; 0 is none.
//
// Without a limit of its own a worker gets an equal part of rbd_mirror_memory_target,
// though at least MinWorker. All workers together never get more than half of the
// host's memory: that comes before the minimum.
func (p Plan) Limit() int64 {
	if p.Own > 0 {
		return p.Own
	}
	if !p.Autotune || p.Target <= 0 {
		return 0
	}
	workers := int64(max(p.Workers, 1))
	limit := max(p.Target/workers, MinWorker)
	if p.Host > 0 {
		limit = min(limit, p.Host/2/workers)
	}
	return limit
}

// HostMemory is what this host has, or the smallest limit of the cgroups that this
// process is in, if that is less; 0 if it cannot be told. In bytes.
func HostMemory() int64 { return hostMemory("/") }

func hostMemory(root string) int64 {
	host := int64(math.MaxInt64)
	if data, err := os.ReadFile(filepath.Join(root, "proc/meminfo")); err == nil {
		for line := range strings.Lines(string(data)) {
			if f := strings.Fields(line); len(f) == 3 && f[0] == "MemTotal:" {
				if kib, err := strconv.ParseInt(f[1], 10, 64); err == nil {
					host = kib << 10
				}
			}
		}
	}
	data, _ := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	for line := range strings.Lines(string(data)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		top, file := "", ""
		switch {
		case parts[1] == "":
			top, file = mountpoint, "memory.max"
		case strings.Contains(","+parts[1]+",", ",memory,"):
			top, file = mountpoint+"/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		top = filepath.Join(root, top)
		for dir := filepath.Join(top, parts[2]); strings.HasPrefix(dir, top); dir = filepath.Dir(dir) {
			if n, err := readCounter(filepath.Join(dir, file), ""); err == nil && n > 0 {
				host = min(host, n)
			}
		}
	}
	if host == math.MaxInt64 {
		return 0
	}
	return host
}
