package harness

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/lab"
)

// erasureRule puts all three shards on the cluster's one OSD: each step takes anew, and so may take what another one took.
const erasureRule = `rule one_osd {
	id 7
	type erasure
	min_size 3
	max_size 3
	step take default
	step choose indep 1 type osd
	step emit
	step take default
	step choose indep 1 type osd
	step emit
	step take default
	step choose indep 1 type osd
	step emit
}
`

// NewErasurePool is NewPlainPool with an erasure code, for data.
func NewErasurePool(t testing.TB, pair *lab.Pair, name string) {
	t.Helper()
	for _, c := range []*lab.Cluster{pair.Primary, pair.Secondary} {
		addRule(t, c)
		Run(t, c, "ceph", "osd", "erasure-code-profile", "set", "small", "k=2", "m=1", "stripe_unit=4096", "crush-failure-domain=osd")
		// Overwrites on something else than BlueStore are for tests only; they work.
		Run(t, c, "ceph", "config", "set", "mon", "mon_debug_no_require_bluestore_for_ec_overwrites", "true")
	}
	NewPlainPool(t, pair, name, "8", "8", "erasure", "small", "one_osd")
	for _, c := range []*lab.Cluster{pair.Primary, pair.Secondary} {
		Run(t, c, "ceph", "osd", "pool", "set", name, "min_size", "2")
		Eventually(t, Patience, func() string {
			if _, err := Try(c, "ceph", "osd", "pool", "set", name, "allow_ec_overwrites", "true"); err != nil {
				return err.Error()
			}
			return ""
		})
	}
}

// addRule adds the rule to a cluster's CRUSH map, if it has none.
func addRule(t testing.TB, c *lab.Cluster) {
	t.Helper()
	if strings.Contains(Run(t, c, "ceph", "osd", "crush", "rule", "ls"), "one_osd") {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir := t.TempDir()
	compiled, text := filepath.Join(dir, "map"), filepath.Join(dir, "text")
	tool := func(args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(ctx, "crushtool", args...).CombinedOutput(); err != nil {
			t.Fatalf("crushtool %v: %v: %s", args, err, out)
		}
	}
	Run(t, c, "ceph", "osd", "getcrushmap", "-o", compiled)
	tool("-d", compiled, "-o", text)
	rules, err := os.ReadFile(text)
	if err == nil {
		err = os.WriteFile(text, append(rules, erasureRule...), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	tool("-c", text, "-o", compiled)
	Run(t, c, "ceph", "osd", "setcrushmap", "-i", compiled)
}
