//go:build long

package sim

import (
	"testing"

	"github.com/rbdwarden/rbdwarden/test/sim/mutant"
)

var mutants = []mutant.Mutant{
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
		"\t\ta.restart = true\n\tdefault:\n", "\tdefault:\n"},
	{"replay begins before the sync point", "image/sync/sync.go", "if r.Copied != nil {", "if r.Copied != nil && false {"},
	{"a copy that begins again keeps what was removed", "image/sync/snapshots.go", "flattened || gone && !resumed)", "flattened)"},
	{"a snapshot is taken or the size changed whenever the outcome is known", "replay/kind.go", "\t\treturn atEvent\n", "\t\treturn anywhere\n"},
	{"a roll-back takes place at once", "replay/kind.go", "\t\treturn atFinish\n", "\t\treturn anywhere\n"},
	{"what failed on the primary is done", "replay/outcome.go", "if result < 0 {", "if result < -1000 {"},
	{"what a dead client left is not completed", "replay/plan.go",
		"\tp.clearPending(len(p.pending)) // the newer tag makes every outcome known", "\tp.pending = nil"},
	{"a smaller image keeps its data", "image/resize.go", "if err := im.trim(ctx, h, size); err != nil {", "if err := error(nil); err != nil {"},
	{"snapshots of a clone get no copy of what they share", "image/copyup.go", "case len(in.snapshots) == 0:", "case len(in.snapshots) >= 0:"},
	{"a tag undoes a promotion", "journal/tags.go", "if err := may(ctx); err != nil {", "if err := error(nil); err != nil {"},
	{"the planner is never full", "replay/planner.go", "return p.tight || p.held >= p.cfg.HeldBytes ||", "return p.tight ||"},
}

// TestMutants: each guard that is taken away is missed by some seed. Guards that have
// others behind them are not here: without one of them nothing happens.
func TestMutants(t *testing.T) { mutant.Run(t, "../..", "TestSimulation", "2000", mutants) }
