//go:build live && long

package live

import (
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/report"
)

// TestWorkersDieUnderLoadOfFiftyImages is TestWorkersDieUnderLoad with 50 images, every way to die, and each of them twice;
// and a burst on every image at once, of which nothing may die.
func TestWorkersDieUnderLoadOfFiftyImages(t *testing.T) {
	s := newStage(t, stageOptions{images: 50, workers: stageWorkers, pause: 400 * time.Millisecond,
		flags: []string{"--rbd-warden-bytes-in-flight", "2M"}})
	// Once only, and first: without a budget a worker reads whole journal objects, and what is in them stays for a while.
	s.boundless(func() { s.strike("kill -9 of a worker", s.kill, killed, "signal: 9 (killed)") })
	s.burst()
	for round := range 2 {
		s.strike("kill -9 of a worker", s.kill, killed, "signal: 9 (killed)")
		s.strike("abort in librados", s.abort, aborted, "signal: 6 (aborted)")
		s.strike("SIGSTOP of a worker", s.halt, silent, "silent")
		s.panics(31 + round)
		s.freeze()
		s.corrupt(17)
		s.killDaemon()
	}
	s.flood()
	s.finish()
}

// panics injects a panic into the actor of one image; no other is started again or stands still.
func (s *stage) panics(guest int) {
	s.Helper()
	const what = "panic in one image"
	s.settle()
	before := s.ps()
	it := func(n int) bool { return n == guest }
	s.fault(what, it, func() time.Time {
		s.inject(guest, 1)
		return s.awaitEnds(report.LevelImage, "panic", before.Ends[report.LevelImage]["panic"]+1)
	})
	s.told([]string{"panic: injected by rbd_warden_inject_panic"}, it)
	s.settle()
	s.noneRestarted(what, before, s.ps(), func(_ int, image report.Image) bool {
		return image.GlobalID == s.load.Guests[guest].GlobalID
	})
}
