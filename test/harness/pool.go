package harness

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/rbdwarden/rbdwarden/lab"
)

// pools counts the pools that were made, for their names.
var pools atomic.Int64

// Pool is a mirrored pool of one test, on both clusters.
type Pool struct {
	Pair *lab.Pair
	Name string
}

// NewPool creates a mirrored pool with a name of its own. It is deleted when the test ends.
func NewPool(t testing.TB, pair *lab.Pair, mode lab.MirrorMode) *Pool {
	t.Helper()
	p := &Pool{Pair: pair, Name: fmt.Sprintf("pool%d", pools.Add(1))}
	if err := pair.MirrorPool(t.Context(), p.Name, mode); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, c := range []*lab.Cluster{pair.Primary, pair.Secondary} {
			// Gone already where the test itself deleted it, or the cluster is not there to ask.
			if err := c.DeletePool(context.Background(), p.Name); err != nil {
				t.Logf("pool %s is left on %s: %v", p.Name, c.Name(), err)
			}
		}
	})
	return p
}
