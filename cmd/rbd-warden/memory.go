package main

import (
	"runtime/debug"

	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/config"
	"github.com/rbdwarden/rbdwarden/supervision/daemon"
	"github.com/rbdwarden/rbdwarden/supervision/memory"
)

// workerMemory is the limit of each worker's memory in bytes; 0: none.
func workerMemory(o config.Options, host int64) int64 {
	return memory.Plan{
		Own: int64(o.Warden.WorkerMemoryLimit), Target: int64(o.MemoryTarget), Autotune: o.MemoryAutotune,
		Workers: o.Warden.WorkerCount(), Host: host,
	}.Limit()
}

// openGroups makes the place where workers get memory cgroups, for the user that the
// daemon is going to be. Nothing depends on it, so there is no error, only a reason.
func openGroups(p config.Process, limit int64) (groups *memory.Root, why string) {
	if limit == 0 {
		return nil, ""
	}
	groups, err := memory.Open()
	if err != nil {
		return nil, err.Error()
	}
	if uid, gid, changes := daemon.WillBecome(p.SetUser, p.SetGroup); changes {
		if err := groups.GiveTo(uid, gid); err != nil {
			groups.Close()
			return nil, err.Error()
		}
	}
	return groups, ""
}

// boundMemory makes Go's garbage collector work harder as the process nears its
// memory limit, instead of taking twice the live heap.
func boundMemory(limit int64, log zerolog.Logger) {
	if limit <= 0 {
		return
	}
	debug.SetMemoryLimit(limit / 10 * 9)
	log.Debug().Int64("bytes", limit).Msg("memory limit")
}

// nativeMemory is what makes librados, in a worker, spare with memory. The C library gives each thread that
// allocates an arena of its own, up to eight for each processor, and keeps what was freed there:
// with librados' forty threads that is as much as all of Go's heap of a hundred images. Two arenas take no
// longer, for most of what is allocated there is small and short-lived.
func nativeMemory(getenv func(string) string) (env []string) {
	if getenv("MALLOC_ARENA_MAX") == "" {
		env = append(env, "MALLOC_ARENA_MAX=2")
	}
	return env
}
