package random

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// strikeWorker does something to one of a site's workers, and answers whether it ended, or was paused, by that. What the
// daemon tells of the end must be true.
func (r *Run) strikeWorker(f Fault, s *Site, t witness) (hit bool) {
	workers := s.daemon.Workers()
	var indexes []int
	for index := range workers {
		indexes = append(indexes, index)
	}
	if len(indexes) == 0 {
		t.log.Printf(t.who, "there is no worker now")
		return false
	}
	slices.Sort(indexes)
	index := indexes[f.Which%len(indexes)]
	pid, began := workers[index], time.Now()
	var err error
	switch f.Kind {
	case KillWorker:
		err = syscall.Kill(pid, syscall.SIGKILL)
	case AbortWorker:
		err = harness.AbortInside(pid)
	case ExhaustWorker:
		err = harness.Exhaust(pid, time.Minute)
	case PauseWorker:
		if err = syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			break
		}
		for harness.Running(pid) && time.Since(began) < f.For {
			time.Sleep(20 * time.Millisecond)
		}
		if harness.Running(pid) {
			return syscall.Kill(pid, syscall.SIGCONT) == nil
		}
	}
	if err != nil { // it may have ended meanwhile, or be too young
		t.log.Printf(t.who, "worker %d: %v", index, err)
		return false
	}
	s.tracker.struckSince(f.Kind, index, began)
	return r.told(f.Kind, s, t, index, pid, began)
}

// told waits until a site's daemon tells how a worker has ended, and answers whether it was by what was done to it. What
// is neither that nor something that came first is an untruth, which fails the run.
func (r *Run) told(kind FaultKind, s *Site, t witness, index, pid int, began time.Time) (hit bool) {
	var cause *report.Cause
	harness.Eventually(t, time.Minute, func() string {
		d, err := s.daemon.Ask(r.t.Context(), s.Cluster)
		if err != nil {
			return err.Error()
		}
		if w := d.Workers[index]; w.PID != pid && w.LastCause != nil && w.LastCause.When.After(began) {
			cause = w.LastCause
			return ""
		}
		return fmt.Sprintf("the daemon does not know that worker %d, process %d, has ended by %q", index, pid, kind)
	})
	switch {
	case isOf(kind, cause):
		return true
	case cause.Why == report.WhySilent || cause.Why == report.WhyError:
		t.log.Printf(t.who, "worker %d ended before: %s", index, cause)
	default:
		t.Errorf("worker %d of %s ended by %q, and its daemon says %q", index, s, kind, cause)
	}
	return false
}

// isOf says whether a cause is what the daemon must tell of a worker to which that was done.
func isOf(kind FaultKind, c *report.Cause) bool {
	switch kind {
	case KillWorker:
		return c.Why == report.WhySignal && c.Signal == "9 (killed)"
	case AbortWorker:
		return c.Why == report.WhySignal && strings.HasPrefix(c.Signal, "6 (")
	case ExhaustWorker:
		return c.Why == report.WhyOOM && strings.HasPrefix(c.Limit, "its own memory group")
	case PauseWorker:
		return c.Why == report.WhySilent
	}
	return false
}
