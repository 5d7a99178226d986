package main

import (
	"os"
	"runtime"
)

// shareProcessors leaves this worker its share of the processors for Go: the workers of a daemon
// have the same work to do. What waits in librados, and librados itself, runs beside that.
//
// More would not only be of little use: whenever something happens in a process that is otherwise
// idle, Go wakes another thread to look for more work, for as many processors as it may use. That is most
// of what an idle worker costs.
func shareProcessors(workers int) {
	if os.Getenv("GOMAXPROCS") != "" {
		return
	}
	runtime.GOMAXPROCS(max(1, runtime.GOMAXPROCS(0)/max(1, workers)))
}
