package harness

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/lab"
)

// laggyLooks is how many looks in a row, serveEvery apart, must find a cluster laggy before it is helped: a cluster that
// goes on by itself does so at once.
const (
	laggyLooks = 3
	serveEvery = 4 * time.Second
)

// KeepServing looks after a cluster that a test stops for a while, until the test ends. A cluster of one OSD that was
// stopped for longer than its lease for reads may find its placement groups laggy and delay all operations for ever, since
// nobody else is there to renew the lease with. To mark the OSD down, which it then denies, makes it begin anew and harms
// nobody. The test prints how often that was needed.
func KeepServing(t testing.TB, c *lab.Cluster) {
	helped := 0
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() {
		defer close(over)
		for laggy := 0; ; {
			select {
			case <-ctx.Done():
				return
			case <-time.After(serveEvery):
			}
			if !isLaggy(ctx, c) {
				laggy = 0
				continue
			}
			if laggy++; laggy < laggyLooks {
				continue
			}
			laggy = 0
			if _, err := c.CLI(ctx, "ceph", "osd", "down", "0"); err == nil {
				helped++
			}
		}
	}()
	t.Cleanup(func() { // before the cluster ends
		cancel()
		<-over
		if helped > 0 {
			t.Logf("%s was laggy and needed help %d times", c.Name(), helped)
		}
	})
}

// isLaggy says whether a cluster tells that placement groups are laggy. One that is stopped tells nothing.
func isLaggy(ctx context.Context, c *lab.Cluster) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := c.CLI(ctx, "ceph", "pg", "stat", "--format", "json")
	var stat struct {
		Summary struct {
			States []struct{ Name string } `json:"num_pg_by_state"`
		} `json:"pg_summary"`
	}
	if err != nil || json.Unmarshal([]byte(out), &stat) != nil {
		return false
	}
	for _, s := range stat.Summary.States {
		for word := range strings.SplitSeq(s.Name, "+") {
			if word == "laggy" || word == "wait" {
				return true
			}
		}
	}
	return false
}
