package random

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"
)

// FaultKind is a kind of fault.
type FaultKind int

// The kinds.
const (
	KillWorkers   FaultKind = iota // kill -9 of the worker processes; the daemon is to replace them
	KillAll                        // kill -9 of daemon and workers; started again after For
	Terminate                      // SIGTERM; started again after For
	PauseWorkers                   // SIGSTOP of the workers for For
	PauseAll                       // of the daemon, too
	PauseOSD                       // of the site's OSD
	PauseSite                      // of all of the site's Ceph daemons
	KillWorker                     // kill -9 of one worker
	AbortWorker                    // SIGABRT in a thread of librados in one worker
	PauseWorker                    // SIGSTOP of one worker for For, or until the daemon has replaced it
	ExhaustWorker                  // the memory cgroup of one worker is filled until the kernel kills the worker
	KillDaemon                     // kill -9 of the daemon process only; started again after For
	PauseDaemon                    // SIGSTOP of the daemon process only
	DamageJournal                  // a byte of a journal on the primary is flipped for For
	faultKinds
)

var faultNames = [faultKinds]string{
	"kill workers", "kill all", "terminate", "pause workers", "pause all", "pause the OSD", "pause the cluster",
	"kill a worker", "abort a worker", "pause a worker", "exhaust a worker", "kill the daemon", "pause the daemon",
	"damage a journal",
}

func (k FaultKind) String() string { return faultNames[k] }

var faultWeights = [faultKinds]int{
	KillWorkers: 2, KillAll: 3, Terminate: 3, PauseWorkers: 2, PauseAll: 3, PauseOSD: 3, PauseSite: 1,
	KillWorker: 5, AbortWorker: 3, PauseWorker: 4, ExhaustWorker: 3, KillDaemon: 3, PauseDaemon: 2, DamageJournal: 4,
}

// Fault is something bad, drawn with all that belongs to it.
type Fault struct {
	Kind  FaultKind
	Site  int           // 0 or 1
	Which int           // of the workers, or of the families
	After time.Duration // since the fault before
	For   time.Duration
}

func (f Fault) String() string {
	return fmt.Sprintf("%s (%d) on %d for %v, after %v", f.Kind, f.Which, f.Site, f.For, f.After)
}

// pauses are the lengths of pauses: shorter than anything that times out, about as long as what does, and longer than the
// 15 s of a worker's heartbeat and of an owner's watch, and than the 30 s of other watches.
var pauses = []struct{ from, to time.Duration }{
	{100 * time.Millisecond, 4 * time.Second},
	{8 * time.Second, 16 * time.Second},
	{17 * time.Second, 40 * time.Second},
}

// drawFault draws the next fault, with no pause longer than the longest.
func drawFault(random *rand.Rand, longest time.Duration) Fault {
	total := 0
	for _, w := range faultWeights {
		total += w
	}
	f := Fault{Site: random.IntN(2), Which: random.IntN(60)}
	at := random.IntN(total)
	for ; at >= faultWeights[f.Kind]; f.Kind++ {
		at -= faultWeights[f.Kind]
	}
	f.After = between(random, 200*time.Millisecond, 6*time.Second)
	length := pauses[[]int{0, 0, 0, 0, 0, 0, 1, 1, 2}[random.IntN(9)]]
	if f.Kind == KillAll || f.Kind == Terminate || f.Kind == KillDaemon {
		length = pauses[0]
	}
	f.For = min(between(random, length.from, length.to), longest)
	return f
}

// between draws a time, in milliseconds.
func between(random *rand.Rand, from, to time.Duration) time.Duration {
	return (from + time.Duration(random.Int64N(int64(to-from)))).Truncate(time.Millisecond)
}

// inflict makes a fault happen and ends it again: afterwards every process runs.
func (r *Run) inflict(f Fault) {
	t := r.witness("fault")
	t.log.Printf(t.who, "%s", f)
	hit := r.befall(f, t)
	r.inflicted[f.Kind]++
	if hit {
		r.hit[f.Kind]++
	}
	t.log.Printf(t.who, "%s is over, it hit: %v", f.Kind, hit)
}

// befall makes a fault happen and ends it, and answers whether it hit anything.
func (r *Run) befall(f Fault, t witness) (hit bool) {
	s := r.sites[f.Site]
	daemon := s.daemon
	pause := func(signal func(syscall.Signal) int) bool {
		n := signal(syscall.SIGSTOP)
		time.Sleep(f.For)
		signal(syscall.SIGCONT)
		return n > 0
	}
	again := func() bool {
		time.Sleep(f.For)
		s.start(t)
		s.tracker.struck(f.Kind, everyWorker)
		return true
	}
	cluster := func(signal func(syscall.Signal) error) bool {
		return pause(func(sig syscall.Signal) int { r.check(signal(sig)); return 1 })
	}
	switch f.Kind {
	case KillWorkers:
		n := daemon.KillWorkers()
		s.tracker.struck(f.Kind, everyWorker)
		return n > 0
	case KillAll:
		daemon.Kill()
		return again()
	case Terminate:
		daemon.Stop(t, time.Minute)
		return again()
	case KillDaemon:
		daemon.KillProcess(t)
		return again()
	case PauseWorkers, PauseAll:
		return pause(func(sig syscall.Signal) int { return daemon.Signal(sig, f.Kind == PauseWorkers) })
	case PauseDaemon:
		return pause(func(sig syscall.Signal) int { syscall.Kill(daemon.PID(), sig); return 1 })
	case PauseOSD:
		return cluster(func(sig syscall.Signal) error { return s.Cluster.SignalDaemon("osd.0", sig) })
	case PauseSite:
		return cluster(s.Cluster.Signal)
	case DamageJournal:
		r.families[f.Which%len(r.families)].injure(f.For)
		return false // whether it does is known later: see report
	}
	return r.strikeWorker(f, s, t)
}

// check fails the run for an error of the machinery.
func (r *Run) check(err error) {
	if err != nil {
		r.witness("run").Error(err)
	}
}

// faulting inflicts faults until the function that it answers is called, and that waits until the last is over.
func (r *Run) faulting(t testing.TB) (stop func()) {
	done, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		for !t.Failed() {
			f := drawFault(r.faults, r.opt.LongestPause)
			select {
			case <-done:
				return
			case <-time.After(f.After):
			}
			r.inflict(f)
		}
	}()
	return func() { close(done); <-over }
}
