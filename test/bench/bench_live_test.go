//go:build live && long

package bench

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/test/harness"
)

// Without flags the bench tries itself out: a little of the cases that take seconds.
var (
	only    = flag.String("cases", "drain/rand4k,drain/images", "cases or groups of them, separated by commas; all")
	rounds  = flag.Int("rounds", 1, "turns that each side gets in each case")
	who     = flag.String("sides", "", "only these sides, separated by commas")
	scale   = flag.String("scale", string(Small), "how much work: small or full")
	out     = flag.String("out", "", "directory for records, tables and plots")
	version = flag.String("ours", "unknown", "version of this tree")
)

func TestMain(m *testing.M) { harness.Main(m) }

// TestBench runs the cases. An interrupt ends the turn that is under way; what was measured by then is kept and shown.
func TestBench(t *testing.T) {
	cases, err := Select(Cases(), *only)
	if err != nil {
		t.Fatal(err)
	}
	dir := *out
	if dir == "" {
		dir = t.TempDir()
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	upstream, err := exec.Command(harness.Upstream, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		c.Sides = slices.DeleteFunc(slices.Clone(c.Sides), func(s Side) bool {
			return *who != "" && !slices.Contains(strings.Split(*who, ","), string(s))
		})
		record := Record{
			Case: c.Name, About: c.About, Scale: Scale(*scale), Began: time.Now().UTC().Truncate(time.Second),
			Machine: thisMachine(strings.TrimSpace(string(upstream)), *version),
		}
		b := Bench{Ctx: ctx, Scale: record.Scale, Rounds: *rounds, Keep: func(_ string, samples []Sample) error {
			record.Samples = samples
			return record.Save(dir)
		}}
		t.Run(c.Name, func(t *testing.T) { b.Run(t, c) })
	}
	records, err := Load(dir, names(Cases()))
	if err != nil {
		t.Fatal(err)
	}
	table := Table(rows(records))
	fmt.Print("\n", table)
	if err := os.WriteFile(filepath.Join(dir, "table.md"), []byte(table), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, plot := range plots(rows(records)) {
		if err := os.WriteFile(filepath.Join(dir, name+".svg"), []byte(plot.SVG()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
