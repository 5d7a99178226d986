//go:build live

package live

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// stage is a write load on many images, and a daemon with several workers that mirrors them while parts of it die.
type stage struct {
	*testing.T
	pair    *lab.Pair
	load    *harness.Load
	commits *harness.Commits
	daemon  *harness.Daemon
	flags   []string
	workers int
	pause   time.Duration
}

// stageOptions say how big a stage is.
type stageOptions struct {
	images, workers int
	// pause is between two writes to an image.
	pause time.Duration
	flags []string // of the daemon
}

const (
	// still is how long an image that is not hit may stand still while it has something to do: commit positions are
	// written about once a second, and the machine is shared.
	still = 5 * time.Second
	// recovery is how long an image may need to be replayed again after its owner's death.
	recovery = time.Minute
	// silence is how long a worker of a stage may be silent: longer than one that works on a busy machine.
	silence = 8 * time.Second
)

// newStage starts a daemon and a load and waits until every image replays.
func newStage(t *testing.T, o stageOptions) *stage {
	t.Helper()
	pair := harness.ParallelPair(t)
	pool := harness.NewPool(t, pair, lab.PoolMode)
	s := &stage{T: t, pair: pair, workers: o.workers, pause: o.pause, flags: append([]string{
		"--rbd-warden-workers", strconv.Itoa(o.workers), "--rbd-warden-heartbeat-timeout", fmt.Sprint(silence.Seconds()),
		"--rbd-warden-worker-memory-limit", strconv.Itoa(memoryLimit),
	}, o.flags...)}
	s.load = harness.NewLoad(t, pool, harness.LoadOptions{Images: o.images, Size: 2 << 20})
	s.load.Start(t, o.pause)
	s.start()
	s.commits = harness.WatchCommits(t, s.load, 100*time.Millisecond)
	// The first copies, under load, take their time.
	s.settleWithin(harness.Patience + time.Duration(o.images)*5*time.Second)
	return s
}

// start starts the daemon.
func (s *stage) start() {
	s.Helper()
	s.daemon = harness.StartDaemon(s, s.pair.Secondary, harness.Ours(s), s.flags...)
}

// ps is what the daemon tells of its workers.
func (s *stage) ps() report.Daemon {
	s.Helper()
	d, ok := s.daemon.Ps(s, s.pair.Secondary)
	if !ok {
		s.Fatal("the daemon does not answer")
	}
	return d
}

// settle waits until all workers are ready and every image replays in one of them and no more, and answers which, by guest.
func (s *stage) settle() (owners []int) {
	s.Helper()
	return s.settleWithin(harness.Patience)
}

func (s *stage) settleWithin(within time.Duration) (owners []int) {
	s.Helper()
	harness.Eventually(s, within, func() (why string) {
		owners, why = s.owners()
		return why
	})
	return owners
}

// owners tells which worker replays each image, and why that is not clear.
func (s *stage) owners() (owners []int, why string) {
	s.Helper()
	d, ok := s.daemon.Ps(s, s.pair.Secondary)
	if !ok || len(d.Workers) != s.workers {
		return nil, fmt.Sprintf("%d workers answer", len(d.Workers))
	}
	at := map[string][]int{}
	for _, w := range d.Workers {
		if w.State != report.WorkerReady {
			return nil, fmt.Sprintf("worker %d is %s", w.Index, w.State)
		}
		for _, image := range imagesOf(w) {
			if image.State == "replaying" {
				at[image.GlobalID] = append(at[image.GlobalID], w.Index)
			}
		}
	}
	for _, g := range s.load.Guests {
		workers := at[g.GlobalID]
		if len(workers) != 1 {
			return nil, fmt.Sprintf("%s is replayed by the workers %v", g.Spec(), workers)
		}
		owners = append(owners, workers[0])
	}
	return owners, ""
}

// imagesOf lists the images of a worker.
func imagesOf(w report.Worker) (images []report.Image) {
	for _, p := range w.Pools {
		images = append(images, p.Images...)
	}
	return images
}

// busiest is the worker with most images.
func busiest(owners []int) int {
	count := map[int]int{}
	for _, w := range owners {
		count[w]++
	}
	best := owners[0]
	for w, n := range count {
		if n > count[best] || n == count[best] && w < best {
			best = w
		}
	}
	return best
}

// fault does something that stops the images which are hit, waits until they get on again, and fails the test if any of
// the others stood still meanwhile. do answers since when the images were dead.
func (s *stage) fault(what string, hit func(guest int) bool, do func() time.Time) {
	s.Helper()
	began := time.Now()
	died := do()
	var took []time.Duration
	for n := range s.load.Guests {
		if hit(n) {
			took = append(took, s.commits.WaitResumed(s, n, died, recovery))
		}
	}
	longest := s.neverPaused(began, hit)
	if len(took) == 0 {
		s.Errorf("%s: hit no image", what)
		return
	}
	slices.Sort(took)
	s.Logf("%s: %d images replay again after %.1f s (first), %.1f s (median), %.1f s (last); the %d others stood still for %.1f s at most",
		what, len(took), took[0].Seconds(), took[len(took)/2].Seconds(), took[len(took)-1].Seconds(),
		len(s.load.Guests)-len(took), longest.Seconds())
}

// neverPaused fails the test for images that stood still since a moment, those apart that were hit.
func (s *stage) neverPaused(since time.Time, hit func(guest int) bool) (longest time.Duration) {
	s.Helper()
	now := time.Now()
	for n, g := range s.load.Guests {
		if hit(n) {
			continue
		}
		pause := s.commits.Pause(n, since, now)
		longest = max(longest, pause)
		if pause > still {
			s.Errorf("%s, which was not hit, stood still for %v", g.Spec(), pause)
		}
	}
	return longest
}

// choose waits until all is well and chooses the busiest worker; hit says which guests are its.
func (s *stage) choose() (victim int, hit func(guest int) bool) {
	s.Helper()
	owners := s.settle()
	victim = busiest(owners)
	return victim, func(n int) bool { return owners[n] == victim }
}

// strike does something to the process of the busiest worker, waits until its images get on, and until the daemon tells a
// cause of which it is true, and the images' statuses have the words.
func (s *stage) strike(what string, do func(pid int) time.Time, is func(report.Cause) bool, words ...string) {
	s.Helper()
	victim, hit := s.choose()
	before := s.ps()
	pid := s.daemon.Workers()[victim]
	if pid == 0 || pid != before.Workers[victim].PID {
		s.Fatalf("worker %d is process %d, and by ps %d", victim, pid, before.Workers[victim].PID)
	}
	s.fault(what, hit, func() time.Time { return do(pid) })
	s.verdict(what, victim, before, is)
	s.told(words, s.inherited(what, victim, hit))
}

// inherited waits until all is well and answers which images of those that were hit the new process of their worker has.
// Another worker may have taken them while it was silent: that one tells nothing of deaths that were not its own.
func (s *stage) inherited(what string, victim int, hit func(guest int) bool) func(guest int) bool {
	s.Helper()
	owners, elsewhere := s.settle(), 0
	for n := range owners {
		if hit(n) && owners[n] != victim {
			elsewhere++
		}
	}
	if elsewhere > 0 {
		s.Logf("%s: %d images are another worker's now", what, elsewhere)
	}
	return func(n int) bool { return hit(n) && owners[n] == victim }
}

// verdict fails the test unless the daemon tells a cause of which it is true for the one worker that was struck, and of
// nothing else that it was started again: neither another worker, nor an image of one.
func (s *stage) verdict(what string, victim int, before report.Daemon, is func(report.Cause) bool) {
	s.Helper()
	harness.Eventually(s, recovery, func() string {
		if w := s.ps().Workers[victim]; w.PID == before.Workers[victim].PID || w.State != report.WorkerReady {
			return fmt.Sprintf("%s: worker %d, process %d, is %s", what, victim, w.PID, w.State)
		}
		return ""
	})
	s.settle()
	after := s.ps()
	was, now := before.Workers[victim], after.Workers[victim]
	if c := now.LastCause; c == nil || !is(*c) || now.Restarts != was.Restarts+1 || now.PID == was.PID {
		s.Errorf("%s: ps says of worker %d: %d restarts (%d before), process %d (%d before), %+v", what, victim,
			now.Restarts, was.Restarts, now.PID, was.PID, c)
	} else {
		s.Logf("%s: ps says: %s", what, c)
	}
	s.noneRestarted(what, before, after, func(worker int, _ report.Image) bool { return worker == victim })
}

// noneRestarted fails the test for workers and images that were started again, but for those that were hit: of a
// worker, hit is asked with no image.
func (s *stage) noneRestarted(what string, before, after report.Daemon, hit func(worker int, image report.Image) bool) {
	s.Helper()
	for i, was := range before.Workers {
		now := after.Workers[i]
		if hit(i, report.Image{}) {
			continue
		}
		if now.PID != was.PID || now.Restarts != was.Restarts {
			s.Errorf("%s: worker %d, which was not hit, was process %d and is process %d: %v", what, i, was.PID, now.PID, now.LastCause)
		}
		restarts := map[string]int{}
		for _, image := range imagesOf(now) {
			restarts[image.GlobalID] = image.Restarts
		}
		for _, image := range imagesOf(was) {
			if n := restarts[image.GlobalID]; n > image.Restarts && !hit(i, image) { // one that has moved here counts anew
				s.Errorf("%s: %s, which was not hit, was started again %d times", what, image.Name, n-image.Restarts)
			}
		}
	}
}

// told waits until the status of each image has all of the words.
func (s *stage) told(words []string, of func(guest int) bool) {
	s.Helper()
	harness.Eventually(s, within, func() string {
		texts := map[string]string{}
		for _, image := range s.load.Pool.PoolStatusOn(s, s.pair.Secondary).Images {
			texts[image.Name] = image.State + ", " + image.Description
		}
		for n, g := range s.load.Guests {
			for _, word := range words {
				if of(n) && !strings.Contains(texts[g.Name], word) {
					return fmt.Sprintf("%s lacks %q: %q", g.Spec(), word, texts[g.Name])
				}
			}
		}
		return ""
	})
}

// shown waits until ps shows an image in a state with a description that has a word.
func (s *stage) shown(g *harness.Guest, state, word string) {
	s.Helper()
	harness.Eventually(s, within, func() string {
		for _, w := range s.ps().Workers {
			for _, image := range imagesOf(w) {
				if image.GlobalID == g.GlobalID && image.State == state && strings.Contains(image.Description, word) {
					return ""
				}
			}
		}
		return fmt.Sprintf("ps does not show %s in the state %s with %q", g.Spec(), state, word)
	})
}

// othersGetOn waits until each image that is not hit has got on so many times since a moment.
func (s *stage) othersGetOn(since time.Time, times int, hit func(guest int) bool) {
	s.Helper()
	for n, g := range s.load.Guests {
		harness.Eventually(s, recovery, func() string {
			if seen := s.commits.Advances(n, since); !hit(n) && seen < times {
				return fmt.Sprintf("%s got on %d times", g.Spec(), seen)
			}
			return ""
		})
	}
}

// kill ends the worker's process as the kernel does.
func (s *stage) kill(pid int) time.Time {
	syscall.Kill(pid, syscall.SIGKILL)
	return harness.AwaitEnd(s, pid, 10*time.Second)
}

// abort makes librados abort in the worker.
func (s *stage) abort(pid int) time.Time {
	if err := harness.AbortInside(pid); err != nil {
		s.Fatal(err)
	}
	return harness.AwaitEnd(s, pid, 10*time.Second)
}

// halt stops the worker's process, which its images feel at once.
func (s *stage) halt(pid int) time.Time {
	syscall.Kill(pid, syscall.SIGSTOP)
	return time.Now()
}

// killDaemon kills the daemon process only, sees its workers gone, and starts it again.
func (s *stage) killDaemon() {
	s.Helper()
	s.settle()
	workers := s.daemon.Workers()
	if len(workers) != s.workers {
		s.Errorf("the daemon has the workers %v", workers)
	}
	all := func(int) bool { return true }
	s.fault("kill -9 of the daemon process", all, func() time.Time {
		syscall.Kill(s.daemon.PID(), syscall.SIGKILL)
		died := time.Now()
		for _, pid := range workers {
			harness.AwaitEnd(s, pid, 10*time.Second)
		}
		s.Logf("all workers were gone %.3f s after their daemon", time.Since(died).Seconds())
		<-s.daemon.Exited()
		s.start()
		return died
	})
	s.settle()
}

// finish ends the load and compares.
func (s *stage) finish() {
	s.Helper()
	s.load.Stop()
	s.commits.WaitCaughtUp(s, harness.Patience)
	s.load.AssertEqual(s)
	operations := 0
	for _, g := range s.load.Guests {
		operations += g.Writer.Operations
	}
	if !s.Failed() {
		s.Logf("%d operations on %d images are on both sites, once each", operations, len(s.load.Guests))
	}
	for _, w := range s.ps().Workers {
		s.Logf("worker %d: %s", w.Index, s.peaks(w))
	}
	s.daemon.Stop(s, stopTime)
}

// corrupt damages one image's journal ahead of its mirror, sees that this image says so and no other stands still, and
// repairs it.
func (s *stage) corrupt(guest int) {
	s.Helper()
	s.settle()
	g := s.load.Guests[guest]
	it := func(n int) bool { return n == guest }
	began := time.Now()
	s.daemon.AdminDo(s, "rbd mirror stop "+g.Spec())
	g.WaitState(s, "up+stopped")
	injury := g.Damage(s)
	s.daemon.AdminDo(s, "rbd mirror start "+g.Spec())
	s.told([]string{"up+error", injury.Object, strconv.Itoa(injury.Offset)}, it)
	s.shown(g, "error", injury.Object)
	seen := time.Now()
	s.othersGetOn(seen, 4, it)
	if s.commits.Advances(guest, seen) > 0 {
		s.Errorf("%s got on although its journal is damaged", g.Spec())
	}
	longest := s.neverPaused(began, it)
	s.Logf("damaged journal: the %d other images stood still for %.1f s at most", len(s.load.Guests)-1, longest.Seconds())
	s.fault("repair of a journal", it, func() time.Time {
		if err := injury.Repair(); err != nil {
			s.Fatal(err)
		}
		return time.Now()
	})
}
