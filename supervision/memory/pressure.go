package memory

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Pressure is what a Governor goes by.
type Pressure struct {
	// Stall is the share of the last ten seconds, in percent, in which some process of
	// the host, or of the worker's cgroup, waited for memory: "some avg10" of the
	// kernel's pressure stall information. 0 where the kernel does not tell.
	Stall float64
	// Resident is this process's memory, Limit its limit, in bytes; a Limit of 0: none.
	Resident, Limit int64
}

// Governor decides how large a budget may be. It is pure; Step it about once a second.
//
//	           Stall               Resident          the budget
//	tight      10 % or more   or   85 % of Limit     is halved, down to a sixteenth
//	uneasy     2 % or more    or   75 % of Limit     stays
//	easy       below               below             grows by an eighth of its full size
//
// Halving reacts within a second or two, before the kernel has to choose a victim;
// growing slowly finds out how much there is without running into it again.
type Governor struct {
	full, now int64 // bytes
}

// The levels of pressure.
const (
	tightStall, uneasyStall = 10.0, 2.0 // percent
	tightUse, uneasyUse     = 85, 75    // percent of the limit
)

// NewGovernor makes one for a budget of that full size in bytes.
func NewGovernor(full int64) *Governor { return &Governor{full: full, now: full} }

// Step takes the pressure of this moment and returns the budget's size in bytes.
func (g *Governor) Step(p Pressure) int64 {
	over := func(percent int64) bool { return p.Limit > 0 && p.Resident >= p.Limit/100*percent }
	switch {
	case p.Stall >= tightStall || over(tightUse):
		g.now = max(g.now/2, g.full/16)
	case p.Stall >= uneasyStall || over(uneasyUse):
	default:
		g.now = min(g.now+g.full/8, g.full)
	}
	return g.now
}

// Measure reads the pressure on this process, whose memory limit is given in bytes.
func Measure(limit int64) Pressure { return measure("/", limit) }

func measure(root string, limit int64) Pressure {
	p := Pressure{Limit: limit}
	files := []string{"proc/pressure/memory"}
	if data, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup")); err == nil {
		for line := range strings.Lines(string(data)) {
			if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
				files = append(files, filepath.Join(mountpoint, path, "memory.pressure"))
			}
		}
	}
	for _, f := range files {
		if data, err := os.ReadFile(filepath.Join(root, f)); err == nil {
			p.Stall = max(p.Stall, stall(string(data)))
		}
	}
	if data, err := os.ReadFile(filepath.Join(root, "proc/self/statm")); err == nil {
		var size, pages int64
		if _, err := fmt.Sscan(string(data), &size, &pages); err == nil {
			p.Resident = pages * int64(os.Getpagesize())
		}
	}
	return p
}

// stall reads "some avg10=1.50 avg60=...", 0 if it is not there.
func stall(text string) float64 {
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, "some avg10=")
		if !ok {
			continue
		}
		value, _, _ := strings.Cut(rest, " ")
		if v, err := strconv.ParseFloat(value, 64); err == nil && v >= 0 {
			return v
		}
	}
	return 0
}

// BudgetFor is the full size, in bytes, of the budget of a worker with that memory
// limit (0: none), of which the operator asks for no more than want. What is in flight is in memory up
// to three times (read, joined, sent) and leaves garbage behind, so a quarter of what is
// left beside the process itself is a budget.
func BudgetFor(want, limit int64) int64 {
	const itself = 128 << 20
	if limit <= 0 {
		return want
	}
	return min(want, max((limit-itself)/4, limit/32))
}
