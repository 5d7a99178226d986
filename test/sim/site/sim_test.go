package site

import (
	"flag"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

var (
	seed  = flag.Uint64("seed", 0, "print the trace of one run")
	seeds = flag.Uint64("seeds", 150, "how many runs")
	first = flag.Uint64("first", 1, "the first seed of the runs")
	long  = flag.Duration("duration", 0, "runs of random seeds for so long, until one fails")
)

// TestMain lets one goroutine run at a time: those that wake at the same moment of virtual
// time then do so in the same order in each run of a seed.
func TestMain(m *testing.M) {
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(400) // what a run leaves behind is small
	os.Exit(m.Run())
}

// TestSite does many short runs.
func TestSite(t *testing.T) {
	if *seed != 0 {
		out := simulate(t, *seed, os.Stdout)
		if out.err != nil {
			t.Errorf("seed %d: %v", *seed, out.err)
		}
		return
	}
	start, runs := time.Now(), uint64(0)
	var sum counts
	var virtual, longest time.Duration
	slowest := uint64(0)
	if *long > 0 {
		*first, *seeds = uint64(start.UnixNano())%1e12, math.MaxUint64>>1
	}
	for s := *first; s < *first+*seeds && (*long == 0 || time.Since(start) < *long); s++ {
		out := simulate(t, s, nil)
		runs++
		virtual += out.virtual
		sum.workers += out.counts.workers
		sum.writes += out.counts.writes
		sum.owners += out.counts.owners
		sum.fenced += out.counts.fenced
		sum.decisions += out.counts.decisions
		if out.settled > longest {
			longest, slowest = out.settled, s
		}
		if out.err != nil {
			t.Fatalf("seed %d: %v\nmake sim-site SEED=%d repeats it and prints its trace", s, out.err, s)
		}
	}
	t.Logf("%d runs, %v of their own time, %v a run; %+v; at rest after %v at most (seed %d)",
		runs, virtual.Round(time.Second), time.Since(start)/time.Duration(runs), sum, longest, slowest)
}

// TestSeedRepeats: the same seed is the same run, to the last operation. Where two channels are
// ready at the same moment Go picks one by dice of its own; few runs come to such a crossing
// where it matters.
func TestSeedRepeats(t *testing.T) {
	const runs, others = 10, 2
	differ := 0
	for s := *first; s < *first+runs; s++ {
		a, b := simulate(t, s, nil), simulate(t, s, nil)
		if a.hash != b.hash || a.lines != b.lines {
			differ++
			t.Logf("seed %d: %d lines with the sum %x, then %d with %x", s, a.lines, a.hash, b.lines, b.hash)
		}
	}
	if differ > others {
		t.Errorf("%d of %d seeds did not repeat", differ, runs)
	}
}
