package sim

import (
	"math/rand/v2"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/rbd"
)

// settings is the shape of a run.
type settings struct {
	images       int
	workers      int
	sectors      int // of an image
	maxSectors   int // of one write
	objectOrder  uint8
	journalOrder uint8
	splay        uint8
	features     rbd.Features
	readBytes    int
	bufferBytes  int
	stepBytes    int
	stepOps      int
	tailBudget   int64
	commit       time.Duration // between two commits
	actions      int           // how much happens in the time of trouble
	promote      bool          // an image is promoted by force
	calm         bool          // nothing goes wrong
}

// draw gives the settings of a run.
func draw(rng *rand.Rand) settings {
	pick := func(n ...int) int { return n[rng.IntN(len(n))] }
	s := settings{
		images: 1, workers: 1 + rng.IntN(2),
		sectors: pick(64, 128, 256), maxSectors: pick(1, 8, 40),
		objectOrder: uint8(pick(12, 13, 15)), journalOrder: uint8(pick(15, 16, 20)), splay: uint8(1 + rng.IntN(5)),
		features:  rbd.FeatureExclusiveLock | rbd.FeatureJournaling,
		readBytes: pick(4<<10, 64<<10), stepBytes: pick(2<<10, 16<<10, 1<<20), stepOps: pick(1, 4, 64),
		tailBudget: int64(pick(8<<10, 1<<20)), commit: time.Duration(pick(50, 1000, 5000)) * time.Millisecond,
		actions: 12 + rng.IntN(16), promote: rng.IntN(4) == 0, calm: rng.IntN(20) == 0,
	}
	s.bufferBytes = s.readBytes * pick(1, 4)
	if rng.IntN(4) > 0 {
		s.features |= rbd.FeatureObjectMap | rbd.FeatureFastDiff
	}
	if rng.IntN(3) == 0 {
		s.images = 2
	}
	return s
}
