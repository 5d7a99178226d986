package config

import "runtime"

// WorkerCount is how many worker processes a daemon has: what was configured, or else what the
// host's cores suggest. One process replays faster than most clusters write; there are
// several so that the end of one leaves the others' images alone.
func (w Warden) WorkerCount() int { return workerCount(int(w.Workers), runtime.NumCPU()) }

func workerCount(configured, cores int) int {
	switch {
	case configured > 0:
		return configured
	case cores < 2:
		return 1
	}
	return min(4, max(2, cores/2))
}
