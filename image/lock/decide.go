package lock

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	cls "github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/ceph/notify"
	"github.com/rbdwarden/rbdwarden/rados"
)

// sight is what an acquirer knows when it decides: one look at lock and watchers
// of the object, taken at one moment, and how long it has been so.
type sight struct {
	Self      uint64 // our connection's global id
	Addresses string // our connection's addresses, as rados.Cluster gives them
	Cookie    string // what we take the lock with
	Tag       string // what we take the lock with

	Info     cls.Info
	Watchers []rados.Watcher
	// DeadFor is how long this very locker has been seen without its watch; 0 on
	// the first look.
	DeadFor time.Duration
	// KnownDead: Options.KnownDead says so of this very locker.
	KnownDead bool

	DeadGrace    time.Duration // see Options
	RewatchGrace time.Duration // see Options
}

// decision is what to do next: one of the types below.
type decision interface{ isDecision() }

// take: nobody holds the lock; take it.
type take struct{}

// have: we hold it already.
type have struct{}

// ask the living owner to release it.
type ask struct{ Owner cls.Locker }

// wait a little, until it is certain that the owner is dead.
type wait struct {
	Owner cls.Locker
	For   time.Duration
}

// fence the dead owner: blocklist its address, then break its lock.
type fence struct{ Owner cls.Locker }

// breakOnly: break the lock without a blocklist. The dead owner had the address
// that is ours now, so its process is gone, and to fence it would be to fence us.
type breakOnly struct{ Owner cls.Locker }

// adopt our own stale lock by changing its cookie.
type adopt struct{ Owner cls.Locker }

// giveUp: somebody holds the lock with whom there is no protocol.
type giveUp struct{ err error }

func (take) isDecision()      {}
func (have) isDecision()      {}
func (ask) isDecision()       {}
func (wait) isDecision()      {}
func (fence) isDecision()     {}
func (breakOnly) isDecision() {}
func (adopt) isDecision()     {}
func (giveUp) isDecision()    {}

// decide tells what an acquirer does next
// (src/librbd/managed_lock/GetLockerRequest.cc, BreakRequest.cc).
func decide(s sight) decision {
	if len(s.Info.Lockers) == 0 {
		return take{}
	}
	owner := s.Info.Lockers[0]
	handle, automatic := cls.ParseRBDCookie(owner.Cookie)
	switch {
	case s.Info.Tag != s.Tag, !automatic:
		return giveUp{&ForeignError{Owner: owner, Tag: s.Info.Tag, Reason: "it was not taken by an RBD client"}}
	case s.Info.Type != cls.Exclusive:
		return giveUp{&ForeignError{Owner: owner, Tag: s.Info.Tag, Reason: "it is a " + s.Info.Type.String() + " lock"}}
	case owner.Entity == cls.ClientName(s.Self) && owner.Cookie == s.Cookie:
		return have{}
	}

	grace := s.DeadGrace
	own := owner.Entity == cls.ClientName(s.Self)
	switch life := s.life(owner, handle); {
	case s.KnownDead && !own:
		grace = 0
	case life == alive:
		return ask{owner}
	case life == rewatching:
		if s.DeadFor < s.RewatchGrace {
			return ask{owner}
		}
		grace = s.RewatchGrace
	}
	switch {
	case s.DeadFor < grace:
		return wait{owner, grace - s.DeadFor}
	case own:
		return adopt{owner}
	case s.isOurs(owner.Address):
		return breakOnly{owner}
	case owner.Address.IsBlank():
		return giveUp{&ForeignError{Owner: owner, Tag: s.Info.Tag, Reason: "its owner is dead and left no address to blocklist"}}
	}
	return fence{owner}
}

type life uint8

const (
	dead       life = iota
	alive           // the owner's own watch is there
	rewatching      // its client watches, but under another handle
)

// life tells whether the owner lives. Either its name or its address will do: the
// aim is never to blocklist somebody who lives.
func (s sight) life(owner cls.Locker, handle uint64) life {
	found := dead
	for _, w := range s.Watchers {
		same := cls.ClientName(w.ClientID) == owner.Entity ||
			w.Address != "" && w.Address == owner.Address.Blocklist()
		switch {
		case same && w.Cookie == handle:
			return alive
		case same && w.ClientID != s.Self: // our own new watch says nothing about the old one
			found = rewatching
		}
	}
	return found
}

// isOurs tells whether an address is that of our own connection.
func (s sight) isOurs(a cls.EntityAddr) bool {
	own, err := cls.ParseEntityAddrs(s.Addresses)
	if err != nil {
		return false
	}
	for _, o := range own {
		if o.SameInstance(a) {
			return true
		}
	}
	return false
}

// reply is what came of asking for the lock.
type reply uint8

const (
	// noAnswer: nobody said that it owns the lock.
	noAnswer reply = iota + 1
	// releasing: the owner will release it.
	releasing
	// refused: the owner will not.
	refused
	// unclear: the answers make no sense, or the owner had an error; ask again.
	unclear
)

// heed reads the acknowledgements of a RequestLock: the owner's is the one that is
// not empty (src/librbd/image_watcher/NotifyLockOwner.cc,
// ImageWatcher::handle_request_lock).
func heed(r rados.NotifyReply) reply {
	found := noAnswer
	for _, a := range r.Acks {
		if len(a.Reply) == 0 {
			continue
		}
		if found != noAnswer {
			return unclear // two owners
		}
		resp, err := notify.DecodeResponse(a.Reply)
		switch {
		case err != nil:
			found = unclear
		case resp.Result == 0:
			found = releasing
		case syscall.Errno(-resp.Result) == syscall.EROFS:
			found = refused
		case syscall.Errno(-resp.Result) == syscall.ETIMEDOUT:
			found = noAnswer
		default:
			found = unclear
		}
	}
	return found
}

// RefusedError says that the owner of the lock lives and will not release it.
type RefusedError struct{ Owner cls.Locker }

func (e *RefusedError) Error() string {
	return fmt.Sprintf("the exclusive lock is held by %s at %s, who will not release it",
		e.Owner.Entity, e.Owner.Address.Blocklist())
}

// Unwrap is EROFS, what librbd answers.
func (e *RefusedError) Unwrap() error { return syscall.EROFS }

// ForeignError says that the lock is held in a way that we may not break.
type ForeignError struct {
	Owner  cls.Locker
	Tag    string
	Reason string
}

func (e *ForeignError) Error() string {
	return fmt.Sprintf("the exclusive lock is held by %s at %s (cookie %q, tag %q) and cannot be taken: %s; see \"rbd lock ls\"",
		e.Owner.Entity, e.Owner.Address.Blocklist(), e.Owner.Cookie, e.Tag, e.Reason)
}

// Unwrap is EBUSY.
func (e *ForeignError) Unwrap() error { return syscall.EBUSY }

// ErrTaken is the cause of a lock that was lost because another client holds it.
var ErrTaken = errors.New("the exclusive lock was taken away")
