package placement

import (
	"fmt"
	"time"
)

// Policy says by what images are placed.
type Policy uint8

// The policies.
const (
	// Balanced evens out the counts, then the measured loads. The default.
	Balanced Policy = iota
	// Simple evens out the counts only.
	Simple
	// None leaves everything to the leader.
	None
)

// ForCeph is the policy for a value of rbd_mirror_image_policy_type. "simple" is that
// option's default, so it cannot be told whether anybody asked for it; Balanced gives
// the same counts.
func ForCeph(option string) (Policy, error) {
	switch option {
	case "", "simple":
		return Balanced, nil
	case "none":
		return None, nil
	}
	return Balanced, fmt.Errorf("rbd_mirror_image_policy_type: unknown policy %q", option)
}

func (p Policy) String() string {
	switch p {
	case Balanced:
		return "balanced"
	case Simple:
		return "simple"
	case None:
		return "none"
	}
	return fmt.Sprintf("Policy(%d)", uint8(p))
}

// Member is a process that can run images.
type Member struct {
	ID   string // instance id, the owner in the image map
	Seat string // what a restarted worker has in common with its predecessor; "" if it has no seat
	// Host and Daemon name whose worker it is, and Workers how many that daemon has
	// (0: unknown).
	Host, Daemon string
	Workers      int
	// Started orders the members of one seat: only the latest counts.
	Started  time.Time
	Draining bool
	// Silent: the primary's cluster does not answer it. It gets no image while others may, but keeps its own.
	Silent bool
	// Cut: the primary's cluster does not answer it, and does answer others. It gives its images away, and gets none.
	Cut bool
	// DeadSince is when it was found dead; zero while it lives.
	DeadSince time.Time
	// Weight is its capacity relative to the others'; 0 means 1.
	Weight float64
}

// Image is an image to be run by somebody.
type Image struct {
	ID    string // global image id
	Owner string // who runs it by the map; "" if nobody
	Seat  string // the owner's seat by the map: for owners of whom nothing else is known
	Pin   string // the seat that a command gave it to
	// Load is what running it takes, in any unit that is the same for all; 0 if that is
	// not known.
	Load float64
	// Mapped is when its owner got it, for whatever reason: until it has been there for
	// a while, its load is not known.
	Mapped time.Time
	// Moved is when it was last moved for balance's sake; zero if it never was. What a death
	// or an operator moved may be moved again at once: an image that goes to and fro with a
	// member that comes and goes is moved for balance once in Options.MigrationThrottle.
	Moved time.Time
}

// Options are the settings; Defaults has good ones.
type Options struct {
	Policy Policy
	// HeirGrace is how long images wait for a dead member's successor, and, when a term
	// begins, those that have nobody for the missing workers of the daemons at hand.
	HeirGrace time.Duration
	// UpdateThrottle is the least time between decisions that move images of living
	// members (rbd_mirror_image_policy_update_throttle_interval).
	UpdateThrottle time.Duration
	// MigrationThrottle is how long an image that was moved for balance's sake is not moved
	// for it again; a tenth of it while somebody has less than half of its share (rbd_mirror_image_policy_migration_throttle).
	MigrationThrottle time.Duration
	// RebalanceTimeout is how long no image must have been moved for balance's sake before
	// loads are evened out, and how long a member must have an image before its load counts (rbd_mirror_image_policy_rebalance_timeout; 0, Ceph's default: a minute).
	RebalanceTimeout time.Duration
	// LeastLoad is by how much the hottest member must exceed the mean, relative to its weight,
	// before loads are evened out at all, in the unit of Image.Load: where next to nothing is
	// written, nothing is moved for it.
	LeastLoad float64
}

// Defaults are Ceph's defaults, and ours.
func Defaults() Options {
	return Options{
		Policy: Balanced, HeirGrace: 2 * time.Second, UpdateThrottle: time.Second,
		MigrationThrottle: 5 * time.Minute, RebalanceTimeout: 0,
	}
}

// settled is RebalanceTimeout with its default.
func (o Options) settled() time.Duration {
	if o.RebalanceTimeout > 0 {
		return o.RebalanceTimeout
	}
	return time.Minute
}

// Input is what a decision is made on.
type Input struct {
	Options
	Leader  string    // id of the member that decides
	Begun   time.Time // when its term began; zero: long ago
	Now     time.Time
	Members []Member
	Images  []Image // ids are unique
}

// Reason says why an image is given to a member.
type Reason uint8

// The reasons.
const (
	Placed    Reason = iota + 1 // it had nobody
	Inherited                   // the owner's worker was started again
	Failover                    // the owner is dead or gone
	Pinned                      // a command says so
	Drained                     // the owner is draining
	CutOff                      // the owner does not reach the primary's cluster
	ByPolicy                    // the policy is None
	Evened                      // the owner had more images than its share
	Cooled                      // the owner had more load than the others
)

func (r Reason) String() string {
	switch r {
	case Placed:
		return "placed"
	case Inherited:
		return "inherited"
	case Failover:
		return "failover"
	case Pinned:
		return "pinned"
	case Drained:
		return "drained"
	case CutOff:
		return "cut off"
	case ByPolicy:
		return "by policy"
	case Evened:
		return "evened"
	case Cooled:
		return "cooled"
	}
	return fmt.Sprintf("Reason(%d)", uint8(r))
}

// Move gives an image to a member: from now on it is mapped to that one, and Image.Mapped
// is the time of the decision.
type Move struct {
	Image    string
	From, To string // member ids; From is "" if nobody had it
	Seat     string // To's
	Reason   Reason
	// Moved is Image.Moved from now on: the time of the decision if that is for balance's
	// sake, and what it was otherwise.
	Moved time.Time
}

// Decision is what to write.
type Decision struct {
	Moves []Move // in order of the images' ids; at most one an image
	// Waiting are the images that have nobody who lives, until an heir or missing
	// workers come, at the latest at Next. In order.
	Waiting []string
	// Next is when the same members and images may lead to another decision; zero: never.
	Next time.Time
}
