package lock

import (
	"context"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph/notify"
)

// State is where in its life a lock is; see the package's picture.
type State uint8

// The states of a lock.
const (
	Acquiring State = iota + 1
	Held
	Suspended
	ReleasingLock
	Released
	Lost
)

func (s State) String() string {
	switch s {
	case Acquiring:
		return "acquiring"
	case Held:
		return "held"
	case Suspended:
		return "suspended"
	case ReleasingLock:
		return "releasing"
	case Released:
		return "released"
	case Lost:
		return "lost"
	}
	return "unknown"
}

// Perform decides about an operation that another client asks the lock's owner
// for. It must be quick; what it returns runs in a goroutine of its own, and its
// error's errno is the requester's answer. nil refuses.
type Perform func(p notify.Payload) func(ctx context.Context) error

// reaction is what a watcher does about a notification. The acknowledgement is
// always sent: empty, or with answer, or with what the policy says.
type reaction struct {
	answer    *notify.Response
	askPolicy bool // a RequestLock: the policy's word is the answer
	offer     bool // an operation: Perform's word is the answer
	refresh   bool // tell the policy that the header has changed
	wake      bool // the lock may have become free
}

// react tells how to react to a notification, given the lock's state and our own
// watch's id (src/librbd/ImageWatcher.cc, handle_payload).
func react(s State, self notify.ClientID, p notify.Payload) reaction {
	answer := func(result int32) reaction { return reaction{answer: &notify.Response{Result: result}} }
	owner := s == Held
	switch p := p.(type) {
	case notify.RequestLock:
		switch {
		case p.Client == self:
			return reaction{} // our own
		case s == Held || s == Suspended:
			return reaction{askPolicy: true}
		case s == ReleasingLock:
			return answer(0) // wait for it
		}
		return reaction{}
	case notify.AcquiredLock, notify.ReleasedLock:
		return reaction{wake: true}
	case notify.HeaderUpdate:
		r := answer(0)
		r.refresh = true
		return r
	case notify.Quiesce:
		// Nothing of ours goes to the image on a user's behalf, so there is nothing
		// to hold back.
		return answer(0)
	case notify.Unknown:
		if owner {
			return answer(-int32(syscall.EOPNOTSUPP))
		}
		return reaction{}
	}
	if p.Op().IsRequest() && owner {
		return reaction{offer: true}
	}
	// The end of a quiesce needs no answer. Progress and completion of requests: we
	// make none. A request while we are
	// not the owner, or not certain of it: an empty acknowledgement makes the
	// requester look for the owner again.
	return reaction{}
}
