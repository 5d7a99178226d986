//go:build live

package live

import (
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/test/harness"
)

// TestTakeover: of three daemons on three hosts, one that follows and then the one that leads are killed with kill -9
// under a write load. Others replay their images within seconds, and nobody writes to what is another's.
func TestTakeover(t *testing.T) {
	const generous = 30 * time.Second // the machine is busy with other tests
	s := newTeam(t, harness.ParallelPair(t), teamOptions{
		images: 24, size: 1 << 20, pause: 400 * time.Millisecond, path: harness.Ours(t), flags: []string{"--rbd-warden-workers", "1"},
	})
	p := s.settle()
	victim := s.follower(p)
	s.takeover("kill -9 of a follower", p, victim, generous, victim.kill)
	p = s.settle()
	s.takeover("kill -9 of the leader", p, p.leader, generous, p.leader.kill)
	s.settle()
	s.finish()
}
