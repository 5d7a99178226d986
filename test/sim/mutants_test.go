//go:build long

package sim

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// mutant is a guard taken out of the product.
type mutant struct{ name, file, guard, without string }

var mutants = []mutant{
	{"a commit position passes what is not safe", "replay/checkpoint.go",
		"for n < len(c.segments) && c.segments[n].safe {", "for n < len(c.segments) {"},
	{"writes of different flush epochs run side by side", "replay/flight.go",
		"case !f.isWrites(), f.epoch != next.epoch, overlap(", "case !f.isWrites(), overlap("},
	{"writes that overlap run side by side", "replay/flight.go",
		"f.epoch != next.epoch, overlap(f.extents, next.extents):", "f.epoch != next.epoch:"},
	{"a flush does not end its batch", "replay/plan.go", "\tp.epoch++\n", "\tp.epoch += 0\n"},
	{"a lock is broken without fencing its owner", "image/lock/acquire.go",
		"if err := l.io.Cluster().Blocklist(ctx, d.Owner.Address.Blocklist(), l.opts.BlocklistExpire); err != nil {",
		"if err := error(nil); err != nil {"},
	{"a compare-and-write has no checkpoints", "replay/plan.go", "isolate := !rollback", "isolate := rollback && !rollback"},
	{"operations run beside writes", "replay/flight.go", "return len(p.flying) == 0", "return len(p.flying) < 100"},
	{"a step that failed counts as applied", "actors/replayer/apply.go",
		"\tif err != nil {\n\t\treturn nil, err\n\t}\n\treturn applied, nil", "\t_ = err\n\treturn applied, nil"},
	{"a start of an image that is stopping is lost", "actors/replayer/actor.go",
		"\t\ta.restart = true\n\t\treturn\n\t}\n\ta.nextAt", "\t}\n\ta.nextAt"},
	{"replay begins before the sync point", "image/sync/sync.go", "if r.Copied != nil {", "if r.Copied != nil && false {"},
	{"a copy that begins again keeps what was removed", "image/sync/snapshots.go", "flattened || gone && !resumed)", "flattened)"},
	{"the planner is never full", "replay/planner.go", "return p.held >= p.cfg.HeldBytes ||", "return"},
}

// TestMutants: each guard that is taken away is missed by some seed. Guards that have
// others behind them are not here: without one of them nothing happens.
func TestMutants(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutants {
		t.Run(strings.ReplaceAll(m.name, " ", "-"), func(t *testing.T) {
			source, err := os.ReadFile(filepath.Join(root, m.file))
			if err != nil || strings.Count(string(source), m.guard) != 1 {
				t.Fatalf("%s has the guard %d times (%v)", m.file, strings.Count(string(source), m.guard), err)
			}
			changed := filepath.Join(t.TempDir(), "changed.go")
			write(t, changed, []byte(strings.Replace(string(source), m.guard, m.without, 1)))
			overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(root, m.file): changed}})
			if err != nil {
				t.Fatal(err)
			}
			list := filepath.Join(t.TempDir(), "overlay.json")
			write(t, list, overlay)
			out, err := exec.Command("go", "test", "-count", "1", "-timeout", "20m", "-overlay", list, "-run", "TestSimulation$", ".", "-seeds", "2000").CombinedOutput()
			found := regexp.MustCompile(`seed (\d+): .*`).FindString(string(out))
			if err == nil || found == "" {
				t.Fatalf("no seed misses the guard: %v\n%s", err, out)
			}
			t.Log(found)
		})
	}
}

func write(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
