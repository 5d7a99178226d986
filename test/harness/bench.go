package harness

import (
	"testing"

	"github.com/ceph/go-ceph/rados"

	"github.com/rbdwarden/rbdwarden/lab"
)

// Connect opens a pool on a cluster as its administrator, until the test ends. Options are names and values of Ceph's.
func Connect(t testing.TB, pool *Pool, c *lab.Cluster, options ...string) *rados.IOContext {
	t.Helper()
	_, ioctx := connect(t, pool, c, options...)
	return ioctx
}

// Processes lists the daemon's living processes, itself first.
func (d *Daemon) Processes() []int {
	return append([]int{d.PID()}, d.descendants()...)
}
