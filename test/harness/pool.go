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

// Pool is a mirrored pool of one test, on both clusters, or a mirrored namespace in one.
type Pool struct {
	Pair *lab.Pair
	Name string
	// Namespace is empty for the pool's default namespace.
	Namespace string
}

// Spec is the pool's name, with the namespace's.
func (p *Pool) Spec() string {
	if p.Namespace == "" {
		return p.Name
	}
	return p.Name + "/" + p.Namespace
}

// NewNamespace creates a namespace with mirroring of its own in the pool, on both clusters. It goes with the pool.
func (p *Pool) NewNamespace(t testing.TB, name string, mode lab.MirrorMode) *Pool {
	t.Helper()
	ns := &Pool{Pair: p.Pair, Name: p.Name, Namespace: name}
	for _, c := range []*lab.Cluster{p.Pair.Primary, p.Pair.Secondary} {
		Run(t, c, "rbd", "namespace", "create", ns.Spec())
		Run(t, c, "rbd", "mirror", "pool", "enable", ns.Spec(), string(mode))
	}
	return ns
}

// place are the arguments by which rbd and rados name the pool and its namespace.
func (p *Pool) place() []string {
	args := []string{"--pool", p.Name}
	if p.Namespace != "" {
		args = append(args, "--namespace", p.Namespace)
	}
	return args
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
