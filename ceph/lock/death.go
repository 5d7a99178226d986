package lock

import "time"

// DeathWatch remembers since when an owner has been seen dead: without a watch on the
// object that it locks. One look is not enough, for a living client may be about to watch
// again. The zero value has seen nothing.
type DeathWatch struct {
	owner LockerID
	since time.Time
}

// Seen is told of each look at the owner, and answers for how long it has been dead.
func (d *DeathWatch) Seen(owner LockerID, dead bool, now time.Time) time.Duration {
	if !dead {
		*d = DeathWatch{}
		return 0
	}
	if d.since.IsZero() || d.owner != owner {
		*d = DeathWatch{owner, now}
	}
	return now.Sub(d.since)
}
