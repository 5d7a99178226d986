//go:build live

package live

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// TestPanicInOneImage injects a panic into the actor of one image of several that are written: once, then again and again.
// The image goes on from its checkpoint, and is parked where that does not help; no other image is started again or stands
// still; every view shows the cause. Then the primary's cluster falls silent: that is no crash of anything.
func TestPanicInOneImage(t *testing.T) {
	if harness.TestsUpstream() {
		t.Skip("what only ours promises")
	}
	s := newStage(t, stageOptions{images: 6, workers: stageWorkers, pause: 200 * time.Millisecond, flags: []string{
		"--rbd-warden-restart-intensity", "3", "--rbd-warden-parked-retry", "600", "--rbd-warden-osd-timeout", "5",
		"--rbd-warden-mon-timeout", "5", "--rbd-warden-connect-timeout", "5",
	}})
	const once, again = 2, 4
	crashed := func(guest, panics int) func(int) bool {
		it := func(n int) bool { return n == guest }
		s.fault(fmt.Sprintf("%d panics in one image", panics), it, func() time.Time {
			s.inject(guest, panics)
			return s.awaitEnds(report.LevelImage, "panic", uint64(panics))
		})
		return it
	}

	it := crashed(once, 1)
	s.told([]string{`"restarts":1`, "panic: injected by rbd_warden_inject_panic"}, it)
	s.only(map[int]int{once: 1})
	if trace := s.trace(once); !strings.Contains(trace, "panic") || !strings.Contains(trace, "START_REPLAY → REPLAYING") {
		t.Errorf("the trace of the image does not tell of its panic:\n%s", trace)
	}

	// Again and again: parked, the others untouched, until somebody has acted.
	parked := func(n int) bool { return n == again }
	began := time.Now()
	s.inject(again, 4)
	s.told([]string{"up+error", "parked after too many crashes", "panic: injected by rbd_warden_inject_panic"}, parked)
	s.othersGetOn(time.Now(), 4, parked)
	t.Logf("beside an image that crashes until it is parked the others stood still for %.1f s at most", s.neverPaused(began, parked).Seconds())
	s.only(map[int]int{once: 1, again: 4})
	if image := s.image(again); !image.Parked || image.LastCause == nil || image.LastCause.Why != report.WhyPanic || !image.NextStart.After(time.Now()) {
		t.Errorf("ps of the parked image: %+v", image)
	}
	s.awaitEnds(report.LevelImage, "panic", 5)
	s.daemon.AdminDo(s, "rbd mirror start "+s.load.Guests[again].Spec())
	s.settle()

	s.awayIsNoCrash()
	s.only(map[int]int{once: 1, again: 4})
	for level, of := range s.ps().Ends {
		for reason, n := range of {
			if n > 0 && (level != report.LevelImage || reason != "panic") {
				t.Errorf("%d ends of a %s by %s", n, level, reason)
			}
		}
	}
	s.finish()
}

// TestAWorkerAtFaultIsReplaced takes a worker's connections away, and its means to make new ones, while both clusters are
// well: no image of it can get on, and only another process can. The worker finds that out, ends and says why.
func TestAWorkerAtFaultIsReplaced(t *testing.T) {
	if harness.TestsUpstream() {
		t.Skip("what only ours promises")
	}
	s := newStage(t, stageOptions{images: 4, workers: 1, pause: 200 * time.Millisecond, flags: []string{
		"--rbd-warden-osd-timeout", "4", "--rbd-warden-mon-timeout", "4", "--rbd-warden-connect-timeout", "4",
	}})
	s.strike("no descriptors", func(pid int) time.Time {
		harness.Starve(t, pid)
		return harness.AwaitEnd(t, pid, 2*time.Minute)
	}, func(c report.Cause) bool {
		return c.Why == report.WhyEscalated && strings.Contains(c.Text, "this process cannot connect") && strings.Contains(c.Text, "too many open files")
	}, "escalated: this process cannot connect")
	if n := s.ps().Ends[report.LevelWorker]["escalated"]; n != 1 {
		t.Errorf("%d workers found themselves at fault", n)
	}
	s.finish()
}

// inject makes the actor of an image panic, so often.
func (s *stage) inject(guest, times int) {
	s.Helper()
	value := fmt.Sprintf("%s=%d", s.load.Guests[guest].Spec(), times)
	out, err := lab.Admin(s.Context(), s.daemon.Socket, map[string]any{"prefix": "config set", "var": "rbd_warden_inject_panic", "val": []string{value}})
	if err != nil || strings.Contains(string(out), "not observed") {
		s.Fatalf("config set: %s, %v", out, err)
	}
}

// awaitEnds waits until so many ends are counted, by the daemon's report and by its performance counters, and answers when.
func (s *stage) awaitEnds(level, reason string, want uint64) time.Time {
	s.Helper()
	harness.Eventually(s, within, func() string {
		if n := s.ps().Ends[level][reason]; n != want {
			return fmt.Sprintf("%d ends of %ss by %s, want %d", n, level, reason, want)
		}
		return ""
	})
	at := time.Now()
	var counters struct {
		Ends map[string]uint64 `json:"rbd_warden_ends"`
	}
	s.daemon.AdminJSON(s, &counters, "perf dump")
	if n := counters.Ends[level+"_"+reason]; n != want {
		s.Errorf("perf dump counts %d ends of %ss by %s, want %d", n, level, reason, want)
	}
	return at
}

// image is what ps tells of a guest.
func (s *stage) image(guest int) report.Image {
	s.Helper()
	for _, w := range s.ps().Workers {
		for _, image := range imagesOf(w) {
			if image.GlobalID == s.load.Guests[guest].GlobalID {
				return image
			}
		}
	}
	s.Fatalf("ps does not know %s", s.load.Guests[guest].Spec())
	panic("not reached")
}

// only fails the test unless exactly these images were started again, so often, and no worker was.
func (s *stage) only(restarts map[int]int) {
	s.Helper()
	for _, w := range s.ps().Workers {
		if w.Restarts > 0 {
			s.Errorf("worker %d was started again %d times: %s", w.Index, w.Restarts, w.LastCause)
		}
		for _, image := range imagesOf(w) {
			for n, g := range s.load.Guests {
				if g.GlobalID == image.GlobalID && image.Restarts != restarts[n] {
					s.Errorf("%s was started again %d times, want %d: %+v", g.Spec(), image.Restarts, restarts[n], image.History)
				}
			}
		}
	}
}

// trace is what `rbd-warden image trace` prints of a guest.
func (s *stage) trace(guest int) string {
	s.Helper()
	socket, err := filepath.Glob(filepath.Join(s.pair.Secondary.RunDir(), fmt.Sprintf("*.%d.warden.sock", s.daemon.PID())))
	if err != nil || len(socket) != 1 {
		s.Fatalf("control sockets %v, %v", socket, err)
	}
	out, complaints, code := harness.Warden(s, s.pair.Secondary, "image", "trace", s.load.Guests[guest].Spec(), "--socket", socket[0])
	if code != 0 {
		s.Errorf("image trace: exit code %d, %s", code, complaints)
	}
	return out
}

// awayIsNoCrash freezes the primary's cluster until each image has given up and says so, and sees all of them replay when
// it is back. Nothing is written meanwhile.
func (s *stage) awayIsNoCrash() {
	s.Helper()
	s.load.Stop()
	s.commits.WaitCaughtUp(s, harness.Patience)
	pause(s.T, s.pair.Primary)
	s.told([]string{"error", "did not answer in time"}, func(int) bool { return true })
	resume(s.T, s.pair.Primary)
	s.settle()
}
