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
	KillWorkers  FaultKind = iota // kill -9 of the worker processes; the daemon is to replace them
	KillAll                       // kill -9 of daemon and workers; started again after For
	Terminate                     // SIGTERM; started again after For
	PauseWorkers                  // SIGSTOP of the workers for For
	PauseAll                      // of the daemon, too
	PauseOSD                      // of the site's OSD
	PauseSite                     // of all of the site's Ceph daemons
	faultKinds
)

var faultNames = [faultKinds]string{
	"kill workers", "kill all", "terminate", "pause workers", "pause all", "pause the OSD", "pause the cluster",
}

func (k FaultKind) String() string { return faultNames[k] }

var faultWeights = [faultKinds]int{
	KillWorkers: 5, KillAll: 4, Terminate: 3, PauseWorkers: 4, PauseAll: 4, PauseOSD: 3, PauseSite: 1,
}

// Fault is something bad, drawn with all that belongs to it.
type Fault struct {
	Kind  FaultKind
	Site  int           // 0 or 1
	After time.Duration // since the fault before
	For   time.Duration
}

func (f Fault) String() string {
	return fmt.Sprintf("%s on %d for %v, after %v", f.Kind, f.Site, f.For, f.After)
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
	f := Fault{Site: random.IntN(2)}
	at := random.IntN(total)
	for ; at >= faultWeights[f.Kind]; f.Kind++ {
		at -= faultWeights[f.Kind]
	}
	f.After = between(random, 200*time.Millisecond, 6*time.Second)
	length := pauses[[]int{0, 0, 0, 0, 0, 0, 1, 1, 2}[random.IntN(9)]]
	if f.Kind == KillAll || f.Kind == Terminate {
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
	s, t := r.sites[f.Site], r.witness("fault")
	t.log.Printf(t.who, "%s on %s for %v", f.Kind, s, f.For)
	pause := func(signal func(syscall.Signal)) {
		signal(syscall.SIGSTOP)
		time.Sleep(f.For)
		signal(syscall.SIGCONT)
	}
	switch f.Kind {
	case KillWorkers:
		s.daemon.KillWorkers()
	case KillAll:
		s.daemon.Kill()
		time.Sleep(f.For)
		s.start(t)
	case Terminate:
		s.daemon.Stop(t, time.Minute)
		time.Sleep(f.For)
		s.start(t)
	case PauseWorkers, PauseAll:
		daemon := s.daemon
		pause(func(signal syscall.Signal) { daemon.Signal(signal, f.Kind == PauseWorkers) })
	case PauseOSD:
		pause(func(signal syscall.Signal) { r.check(s.Cluster.SignalDaemon("osd.0", signal)) })
	case PauseSite:
		pause(func(signal syscall.Signal) { r.check(s.Cluster.Signal(signal)) })
	}
	t.log.Printf(t.who, "%s is over", f.Kind)
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
