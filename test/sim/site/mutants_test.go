//go:build long

package site

import (
	"flag"
	"testing"

	"github.com/rbdwarden/rbdwarden/test/sim/mutant"
)

var mutantSeeds = flag.String("mutant-seeds", "1000", "how many runs a mutant gets at most")

var mutants = []mutant.Mutant{
	{"the leader's lock is not asserted in a decision", "cluster/imagemap/term.go",
		"\tfor _, call := range t.assert {\n\t\top.Exec(call)\n\t}\n\tif", "\tif"},
	{"a new owner does not wait until the others have let go", "cluster/coordinator/portion.go",
		"if g.epoch <= applied || now.Sub(g.at) >= p.handover {", "if applied < 1<<63 || now.Sub(g.at) >= p.handover {"},
	{"a new owner waits for the living only", "cluster/coordinator/portion.go", "\t\tif !d.Fenced {\n", "\t\tif false {\n"},
	{"a member begins before it has seen the others", "cluster/coordinator/coordinator.go", "membership.View{Frozen: true}, // until", "membership.View{}, // until"},
	{"a frozen view is acted on", "cluster/coordinator/namespace.go", "if !n.portion.known || in.view.Frozen {", "if !n.portion.known {"},
	{"the dead are not fenced", "cluster/coordinator/reign.go", "\t\tif d.Fenced {\n", "\t\tif true {\n"},
	{"the dead are buried without being refused", "cluster/membership/fence.go",
		"if err := g.io.Cluster().Blocklist(ctx, address, g.opt.BlocklistExpire); err != nil {", "if err := error(nil); err != nil {"},
	{"a stall of the cluster counts as silence", "cluster/membership/table.go",
		"\tif passed > t.ttl {\n\t\treturn 0, true\n\t}\n\treturn min(passed, t.roundCap), false", "\treturn passed, false"},
	{"who was removed goes on", "cluster/membership/run.go", "\t\tg.opt.Lost(err)\n", ""},
	{"an image's lock is broken without fencing its owner", "image/lock/acquire.go",
		"if err := l.io.Cluster().Blocklist(ctx, d.Owner.Address.Blocklist(), l.opts.BlocklistExpire); err != nil {", "if err := error(nil); err != nil {"},
	{"a leader does not look whether it has its lock", "cluster/leader/leader.go", "\t\top.Exec(assertCall(cookie))\n", ""},
}

// TestMutants: each guard that is taken away is missed by some seed.
func TestMutants(t *testing.T) { mutant.Run(t, "../../..", "TestSite", *mutantSeeds, mutants) }
