package site

import (
	"math/rand/v2"
	"time"

	"github.com/rbdwarden/rbdwarden/cluster/placement"
)

// settings is the shape of a run.
type settings struct {
	hosts      int
	seats      int      // workers of all hosts
	namespaces []string // of the pool, the default one first
	images     int      // in each at first
	together   bool     // all workers start within a millisecond
	actions    int      // how much happens in the time of trouble
	gap        time.Duration
	hop        time.Duration // between two writes of an owner, about
	placement  placement.Options
	forget     time.Duration // after it the cluster drops the watches of who does not answer
	lonely     bool          // in the end a seat stays empty
	calm       bool          // nothing goes wrong but deaths
	pidfd      bool          // ends of processes of one's own host are awaited, and not asked about
	headless   bool          // members lose the images' headers for long, and others come and go
	deaf       bool          // hosts do not hear the primary's cluster for a while, one or all
}

// draw gives the settings of a run.
func draw(rng *rand.Rand) settings {
	pick := func(n ...int) int { return n[rng.IntN(len(n))] }
	s := settings{
		seats: 3 + rng.IntN(4), namespaces: []string{""}, images: pick(1, 4, 9, 14), together: rng.IntN(2) == 0,
		actions: 6 + rng.IntN(8), gap: time.Duration(pick(1, 3, 8)) * time.Second, hop: time.Duration(pick(200, 600, 1500)) * time.Millisecond,
		forget: time.Duration(pick(5, 30)) * time.Second, lonely: rng.IntN(4) == 0, calm: rng.IntN(12) == 0,
	}
	s.hosts = 1 + rng.IntN(s.seats)
	if rng.IntN(3) == 0 {
		s.namespaces, s.images = append(s.namespaces, "ns"), min(s.images, 6)
	}
	s.placement = placement.Defaults()
	s.placement.MigrationThrottle = time.Duration(pick(2, 10, 10, 60)) * time.Second
	if rng.IntN(4) == 0 {
		s.placement.Policy = placement.Simple
	}
	s.headless = rng.IntN(8) == 0
	s.pidfd = rng.IntN(3) > 0
	s.deaf = rng.IntN(6) == 0
	return s
}
