// Package mutant takes guards out of the product, one at a time, and wants a simulation to miss each.
package mutant

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Mutant is the product without a guard: its name, a file from the project's root, the guard as it stands there once, and what
// stands there instead.
type Mutant [4]string

// Run wants each mutant to fail the simulation that is the test of that name in the working folder, in so many seeds. Guards
// that have others behind them are not found so: without one of them nothing happens.
func Run(t *testing.T, root, test, seeds string, mutants []Mutant) {
	t.Helper()
	root, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutants {
		name, file, guard, without := m[0], m[1], m[2], m[3]
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			source, err := os.ReadFile(filepath.Join(root, file))
			if err != nil || strings.Count(string(source), guard) != 1 {
				t.Fatalf("%s has the guard %d times (%v)", file, strings.Count(string(source), guard), err)
			}
			changed := filepath.Join(t.TempDir(), "changed.go")
			write(t, changed, []byte(strings.Replace(string(source), guard, without, 1)))
			overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(root, file): changed}})
			if err != nil {
				t.Fatal(err)
			}
			list := filepath.Join(t.TempDir(), "overlay.json")
			write(t, list, overlay)
			out, err := exec.CommandContext(t.Context(), "go", "test", "-count", "1", "-timeout", "20m", "-overlay", list,
				"-run", test+"$", ".", "-seeds", seeds).CombinedOutput()
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
