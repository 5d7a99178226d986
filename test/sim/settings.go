package sim

import (
	"flag"
	"math/rand/v2"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/rbd"
)

// What is not in order yet, and left out for that.
var twoMakers = flag.Bool("two-makers", false, "an image may be moved between workers while its copy is being made")

// settings is the shape of a run.
type settings struct {
	images       int
	workers      int
	sectors      int // of an image at most
	size         int // sectors that it has at first
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
	budget       int64         // bytes that all images of a worker may hold
	reserve      int64         // bytes of it that each image may have at any time
	commit       time.Duration // between two commits
	replayRate   int64         // bytes a second that a worker replays; 0: no limit
	syncRate     int64         // the same, of first copies
	actions      int           // how much happens in the time of trouble
	promote      bool          // an image is promoted by force
	clone        bool          // the second image is a clone of the first
	cloneFormat  uint8
	overlap      int  // sectors that a clone shares with its parent
	sessions     bool // the primary's client changes
	twoMakers    bool // an image may be moved between workers while its copy is being made
	calm         bool // nothing goes wrong
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
	s.budget, s.reserve = int64(pick(0, 32<<10, 1<<20, 16<<20)), int64(pick(1<<10, 8<<10))
	if rng.IntN(4) > 0 {
		s.features |= rbd.FeatureObjectMap | rbd.FeatureFastDiff
	}
	if rng.IntN(3) == 0 {
		s.images = 2
	}
	if rng.IntN(4) > 0 {
		s.features |= rbd.FeatureLayering
	}
	s.twoMakers = *twoMakers
	s.size = s.sectors - pick(0, 0, s.sectors/4)
	s.sessions = rng.IntN(2) == 0
	if rng.IntN(4) == 0 {
		s.clone, s.images, s.cloneFormat = true, 2, uint8(pick(1, 2))
		s.features |= rbd.FeatureLayering
		if rng.IntN(2) == 0 {
			s.features |= rbd.FeatureDeepFlatten
		}
		s.overlap = s.size/pick(1, 1, 2) - pick(0, 3)
	}
	// Limits are drawn last: what was drawn before them stays as it was.
	s.replayRate, s.syncRate = int64(pick(0, 0, 32<<10, 1<<20)), int64(pick(0, 0, 64<<10, 1<<20))
	return s
}
