package sim

import (
	"io"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/test/sim/seed"
)

var flags = seed.NewFlags(1500)

func TestMain(m *testing.M) { seed.Main(m) }

// TestSimulation does many short runs.
func TestSimulation(t *testing.T) {
	lines, longest, slowest := 0, time.Duration(0), uint64(0)
	runs, took := flags.Each(t, "sim", func(s uint64, verbose io.Writer) error {
		out := simulate(t, s, verbose)
		lines += out.print.Lines
		if out.trouble > longest {
			longest, slowest = out.trouble, s
		}
		return out.err
	})
	if runs > 0 {
		t.Logf("%d runs, %d lines of trace, %v a run; in order again after %v at most (seed %d)", runs, lines, took/time.Duration(runs), longest, slowest)
	}
}

// TestSeedRepeats: the same seed is the same run; of three thousand runs two were not.
func TestSeedRepeats(t *testing.T) {
	flags.Repeat(t, 20, 2, func(s uint64) seed.Print { return simulate(t, s, nil).print })
}
