//go:build live && long

package live

import (
	"testing"
	"time"
)

// TestWorkersDieUnderLoadOfFiftyImages is TestWorkersDieUnderLoad with 50 images, every way to die, and each of them twice;
// and a burst on every image at once, of which nothing may die.
func TestWorkersDieUnderLoadOfFiftyImages(t *testing.T) {
	s := newStage(t, stageOptions{images: 50, workers: stageWorkers, pause: 400 * time.Millisecond,
		flags: []string{"--rbd-warden-bytes-in-flight", "2M"}})
	// Once only, and first: without a budget a worker reads whole journal objects, and what is in them stays for a while.
	s.boundless(func() { s.strike("kill -9 of a worker", s.kill, killed, "signal: 9 (killed)") })
	s.burst()
	for range 2 {
		s.strike("kill -9 of a worker", s.kill, killed, "signal: 9 (killed)")
		s.strike("abort in librados", s.abort, aborted, "signal: 6 (aborted)")
		s.strike("SIGSTOP of a worker", s.halt, silent, "silent")
		s.freeze()
		s.corrupt(17)
		s.killDaemon()
	}
	s.flood()
	s.finish()
}
