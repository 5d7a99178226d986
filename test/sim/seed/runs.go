package seed

import (
	"flag"
	"io"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

// Flags say which runs a test is to do.
type Flags struct {
	one, runs, first *uint64
	long             *time.Duration
}

// NewFlags defines the flags of a test binary that does so many runs unless it is told otherwise.
func NewFlags(runs uint64) Flags {
	return Flags{
		one:   flag.Uint64("seed", 0, "print the trace of one run"),
		runs:  flag.Uint64("seeds", runs, "how many runs"),
		first: flag.Uint64("first", 1, "the first seed of the runs"),
		long:  flag.Duration("duration", 0, "runs of random seeds for so long, until one fails"),
	}
}

// Main lets one goroutine run at a time: those that wake at the same moment of virtual time then
// do so in the same order in each run of a seed.
func Main(m *testing.M) {
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(400) // what a run leaves behind is small
	os.Exit(m.Run())
}

// Each does the runs, until one fails. again is the make target that repeats one. The trace of a
// single run goes to verbose; then none is counted.
func (f Flags) Each(t *testing.T, again string, run func(seed uint64, verbose io.Writer) error) (runs int, took time.Duration) {
	t.Helper()
	if *f.one != 0 {
		if err := run(*f.one, os.Stdout); err != nil {
			t.Errorf("seed %d: %v", *f.one, err)
		}
		return 0, 0
	}
	start, first, last := time.Now(), *f.first, *f.first+*f.runs
	if *f.long > 0 {
		first, last = uint64(start.UnixNano())%1e12, math.MaxUint64>>1
	}
	for s := first; s < last && (*f.long == 0 || time.Since(start) < *f.long); s++ {
		runs++
		if err := run(s, nil); err != nil {
			t.Fatalf("seed %d: %v\nmake %s SEED=%d repeats it and prints its trace", s, err, again, s)
		}
	}
	return runs, time.Since(start)
}

// Repeat does runs twice: the same seed is the same run, to the last operation. What begins at one
// moment Go runs in an order that is the same nearly always, for which see Main: not when it takes the
// processor from a goroutine meanwhile, nor where two channels are ready. So few runs, others at
// most, may differ.
func (f Flags) Repeat(t *testing.T, runs, others int, run func(seed uint64) Print) {
	t.Helper()
	differ := 0
	for n := range runs {
		s := *f.first + uint64(n)
		if a, b := run(s), run(s); a != b {
			differ++
			t.Logf("seed %d: %d lines with the sum %x, then %d with %x", s, a.Lines, a.Sum, b.Lines, b.Sum)
		}
	}
	if differ > others {
		t.Errorf("%d of %d seeds did not repeat", differ, runs)
	}
}
