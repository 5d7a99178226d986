package membership

import (
	"maps"
	"slices"
	"strconv"
	"time"
)

// Object is where a pool's members are, in its default namespace.
const Object = "rbd_warden_members"

// Member is one worker process, as its record says.
type Member struct {
	// ID is the instance id of its client of the local cluster, in decimal. A process
	// that starts anew has another.
	ID string
	// Host is its host's name, for people.
	Host string
	// Identity is the process as cluster/identity writes it, and as it stands in the
	// description of every lock that the process takes.
	Identity string
	// Seat names the place that this process fills (host, daemon, index of the
	// worker): its successor has the same. Index is the worker's index alone.
	Seat  string
	Index int
	// Started is when it started by its own clock: for people only.
	Started time.Time
	// Draining: it gives its images away, and wants no new ones.
	Draining bool
	// Address and Fingerprint are where it listens to other members and with which
	// certificate. Empty if it does not.
	Address, Fingerprint string
	// Extra is whatever else members tell each other. Do not change it in place.
	Extra map[string]string
}

func (m Member) clone() Member {
	m.Extra = maps.Clone(m.Extra)
	return m
}

// compareIDs orders ids by their number, and what is no number behind, as text.
func compareIDs(a, b string) int {
	x, errX := strconv.ParseUint(a, 10, 64)
	y, errY := strconv.ParseUint(b, 10, 64)
	switch {
	case errX == nil && errY == nil && x != y:
		if x < y {
			return -1
		}
		return 1
	case errX == nil && errY != nil:
		return -1
	case errX != nil && errY == nil:
		return 1
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Dead is a member that is dead, or is taken for dead.
type Dead struct {
	Member
	// Since is when the observer found it so, by the observer's clock.
	Since time.Time
	// Fenced: the OSDs refuse its client for certain. Otherwise somebody has to Fence
	// it yet, and it may come back.
	Fenced bool
	// Cause says why it is taken for dead.
	Cause string
}

// View is what one observer knows of the members of a pool.
type View struct {
	// Members live, the observer among them, in ascending order of their ids' numbers.
	Members []Member
	// Dead are those that died or were fenced lately, in the same order.
	Dead []Dead
	// Frozen: for TTL nothing could be read, or the own beat could not be written. The
	// rest is what was last known; nobody leaves a frozen view, but for those whose
	// process is known to be gone on this host.
	Frozen bool
	// Epoch counts this observer's views: another view has a higher one. It cannot be
	// compared with that of another observer.
	Epoch uint64
	// Damaged are records that cannot be read, one error for each, naming object and
	// key. Their members are as they were last known.
	Damaged []error
}

// Find gives the living member with that id.
func (v View) Find(id string) (Member, bool) {
	i := slices.IndexFunc(v.Members, func(m Member) bool { return m.ID == id })
	if i < 0 {
		return Member{}, false
	}
	return v.Members[i], true
}

// Fenced tells whether a process was fenced, by its identity or by the description of a
// lock, which has the identity in it. Who asks for the owner of an image's lock has to
// fence all the same before it breaks the lock, but need not wait for the owner's watch.
func (v View) Fenced(identity string) bool {
	return identity != "" && slices.ContainsFunc(v.Dead, func(d Dead) bool { return d.Fenced && d.Identity == identity })
}

// KnownDead is Fenced for suspicions, too: the process was silent for TTL, or is known to
// be dead on this host. Only for who fences it before anything else, such as a candidate
// for the leadership: all candidates wait for each other otherwise.
func (v View) KnownDead(identity string) bool {
	return identity != "" && slices.ContainsFunc(v.Dead, func(d Dead) bool { return d.Identity == identity })
}
