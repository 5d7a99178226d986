//go:build live

package live

import (
	"strings"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// stageWorkers is how many workers the daemon of a stage has.
const stageWorkers = 2

// What supervision must say of how a worker ended.
func killed(c report.Cause) bool { return c.Why == report.WhySignal && c.Signal == "9 (killed)" }
func aborted(c report.Cause) bool {
	return c.Why == report.WhySignal && strings.HasPrefix(c.Signal, "6 (")
}
func silent(c report.Cause) bool { return c.Why == report.WhySilent }

// TestWorkersDieUnderLoad lets parts of a daemon die while a dozen images are written. What was hit replays again within
// seconds, nothing else stands still, and nothing is lost or done twice. Its long brother has 50 images and more deaths.
func TestWorkersDieUnderLoad(t *testing.T) {
	if harness.TestsUpstream() {
		t.Skip("what only ours promises")
	}
	s := newStage(t, stageOptions{images: 12, workers: stageWorkers, pause: 200 * time.Millisecond})
	s.boundless(func() {
		s.strike("kill -9 of a worker", s.kill, killed, `"restarts":1`, "signal: 9 (killed)")
	})
	s.burst()
	s.strike("abort in librados", s.abort, aborted, "signal: 6 (aborted)")
	s.strike("SIGSTOP of a worker", s.halt, silent, "silent")
	s.freeze()
	s.corrupt(3)
	s.finish()
}
