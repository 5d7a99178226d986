//go:build live

package live

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// memoryLimit is the limit of each worker's memory on a stage, in bytes: about twice what it uses under load.
const memoryLimit = 192 << 20

// boundless does something during which workers that are started have no budget of bytes in flight.
func (s *stage) boundless(do func()) {
	s.Helper()
	set := func(value string) {
		s.Helper()
		if out, code := s.daemon.Admin(s, s.pair.Secondary, "config", "set", "rbd_warden_inject_no_budget", value); code != 0 {
			s.Fatalf("%d: %s", code, out)
		}
	}
	set("true")
	do()
	set("false")
}

// burst lets a burst larger than a worker's memory wait in the journals of its images, all at once. The worker has no
// budget, so the kernel kills it. The next one has a budget, and gets through.
func (s *stage) burst() {
	s.Helper()
	const what = "OOM kill in a burst"
	owners, before := s.settle(), s.ps()
	victim := -1
	for _, w := range before.Workers {
		if w.Budget == nil {
			victim = w.Index
		}
		if w.Memory == nil || w.Memory.Group == "" {
			s.Fatalf("the kernel cannot be asked to kill a worker: %+v", w.Memory)
		}
	}
	var guests []*harness.Guest
	for n, g := range s.load.Guests {
		if owners[n] == victim {
			guests = append(guests, g)
		}
	}
	if len(guests) == 0 {
		s.Fatalf("no worker with images is without a budget: %d, %v", victim, owners)
	}
	s.hoard(guests, memoryLimit/2*3/len(guests))
	pid := before.Workers[victim].PID
	hit := func(n int) bool { return owners[n] == victim }
	s.fault(what, hit, func() time.Time {
		s.release(guests)
		died := harness.AwaitEnd(s, pid, recovery)
		s.release(guests) // what was not begun before the end
		return died
	})
	s.verdict(what, victim, before, outOfMemory)
	s.told([]string{fmt.Sprintf("OOM kill by the limit of its own memory group (%d bytes)", memoryLimit)}, s.inherited(what, victim, hit))
}

// flood lets ten times the budget of a worker wait in the journal of every image, all at once, and sees each worker take
// that in within its limit.
func (s *stage) flood() {
	s.Helper()
	s.settle()
	before := s.ps()
	for _, w := range before.Workers {
		if w.Budget == nil || w.Budget.Full != before.Workers[0].Budget.Full {
			s.Fatalf("worker %d has another budget: %+v", w.Index, w.Budget)
		}
	}
	each := 10 * int(before.Workers[0].Budget.Full)
	s.hoard(s.load.Guests, each)
	s.load.Hold()
	began := time.Now()
	s.release(s.load.Guests)
	s.commits.WaitCaughtUp(s, harness.Patience+time.Duration(len(s.load.Guests))*10*time.Second) // so little fits at a time
	s.Logf("%d MiB in each of %d journals were replayed within %.1f s", each>>20, len(s.load.Guests), time.Since(began).Seconds())
	for i, w := range s.ps().Workers {
		s.Logf("worker %d: %s, %d MiB in flight at most, of %d", i, s.peaks(w), w.Budget.Peak>>20, w.Budget.Full>>20)
		if was := before.Workers[i]; w.PID != was.PID || w.Restarts != was.Restarts {
			s.Errorf("worker %d was process %d and is process %d: %v", i, was.PID, w.PID, w.LastCause)
		}
		if rss := harness.PeakRSS(w.PID); rss == 0 || rss >= memoryLimit || w.Memory.Peak >= memoryLimit {
			s.Errorf("worker %d: %s", i, s.peaks(w))
		}
	}
	s.load.Start(s, s.pause)
}

// peaks is the most memory that a worker has had since it was started.
func (s *stage) peaks(w report.Worker) string {
	return fmt.Sprintf("at most %d MiB of %d resident, %d charged to its cgroup", harness.PeakRSS(w.PID)>>20, memoryLimit>>20, w.Memory.Peak>>20)
}

// hoard stops images and writes so many bytes to each: they wait in its journal.
func (s *stage) hoard(guests []*harness.Guest, each int) {
	s.Helper()
	for _, g := range guests {
		s.daemon.AdminDo(s, "rbd mirror stop "+g.Spec())
	}
	for _, g := range guests {
		g.WaitState(s, "up+stopped")
	}
	var wait sync.WaitGroup
	turns := make(chan struct{}, 4)
	for _, g := range guests {
		wait.Go(func() {
			turns <- struct{}{}
			g.Fill(each)
			<-turns
		})
	}
	wait.Wait()
}

// release starts images that were stopped. Their worker may die of it, so nobody waits for answers.
func (s *stage) release(guests []*harness.Guest) {
	var wait sync.WaitGroup
	for _, g := range guests {
		wait.Go(func() {
			_, _ = lab.Admin(s.Context(), s.daemon.Socket, map[string]any{"prefix": "rbd mirror start " + g.Spec()})
		})
	}
	wait.Wait()
}

// outOfMemory is what the daemon must say of a worker that the kernel has killed for the limit of its own cgroup.
func outOfMemory(c report.Cause) bool {
	return c.Why == report.WhyOOM && strings.Contains(c.Limit, "its own memory group")
}
