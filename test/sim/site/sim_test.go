package site

import (
	"io"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/test/sim/seed"
)

var flags = seed.NewFlags(150)

func TestMain(m *testing.M) { seed.Main(m) }

// TestSite does many short runs.
func TestSite(t *testing.T) {
	var sum counts
	var virtual, longest time.Duration
	slowest := uint64(0)
	runs, took := flags.Each(t, "sim-site", func(s uint64, verbose io.Writer) error {
		out := simulate(t, s, verbose)
		virtual += out.virtual
		sum.workers += out.counts.workers
		sum.writes += out.counts.writes
		sum.owners += out.counts.owners
		sum.fenced += out.counts.fenced
		sum.decisions += out.counts.decisions
		if out.settled > longest {
			longest, slowest = out.settled, s
		}
		return out.err
	})
	if runs > 0 {
		t.Logf("%d runs, %v of their own time, %v a run; %+v; at rest after %v at most (seed %d)",
			runs, virtual.Round(time.Second), took/time.Duration(runs), sum, longest, slowest)
	}
}

// TestSeedRepeats: the same seed is the same run.
func TestSeedRepeats(t *testing.T) {
	flags.Repeat(t, 10, 2, func(s uint64) seed.Print { return simulate(t, s, nil).print })
}
