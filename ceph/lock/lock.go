// Package lock speaks to Ceph's advisory object locks, the object class "lock"
// (cls_lock): the calls as data and the codecs of what they carry.
//
// A lock lives in an attribute of the object, so it is taken, asserted and
// broken in the same atomic operation as other steps on that object. One object
// may have several locks, told apart by name. A lock has lockers, each a client
// ("client.4123") and a cookie of that client's choice; all lockers of a lock
// share its type and its tag.
//
// The class learns the locker's name and address from the connection that the
// call came over; a call cannot lock or unlock for somebody else. It can break
// somebody's lock, but that stops nobody who does not look: to be safe against a
// paused owner, blocklist its address first (see package image/lock).
//
// Errors of the calls: EBUSY somebody else holds it, or with another tag or
// type; EEXIST this client and cookie hold it already (Lock without flags);
// ENOENT no such locker (Unlock, Break) or no such object; EINVAL bad argument.
//
// Source of the facts: ceph/ceph src/cls/lock/cls_lock_types.h, cls_lock_ops.h,
// cls_lock.cc; src/msg/msg_types.h for names and addresses.
package lock

import (
	"fmt"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// className is the object class's name.
const className = "lock"

// Type is how a lock is held (ClsLockType).
type Type uint8

// The types of locks.
const (
	None      Type = 0
	Exclusive Type = 1
	Shared    Type = 2
	// ExclusiveEphemeral is Exclusive on an object that is removed when it is
	// unlocked or its last locker expires.
	ExclusiveEphemeral Type = 3
)

func (t Type) String() string {
	switch t {
	case None:
		return "none"
	case Exclusive:
		return "exclusive"
	case Shared:
		return "shared"
	case ExclusiveEphemeral:
		return "exclusive-ephemeral"
	}
	return fmt.Sprintf("Type(%d)", uint8(t))
}

// Flags modify Lock. At most one of the two may be set.
type Flags uint8

const (
	// MayRenew makes Lock succeed if this client and cookie hold the lock already.
	MayRenew Flags = 1
	// MustRenew makes Lock fail with ENOENT unless they do.
	MustRenew Flags = 2
)

// Request is what Lock asks for.
type Request struct {
	Name        string // which of the object's locks; not empty
	Type        Type
	Cookie      string        // tells this client's lockers apart
	Tag         string        // must equal the tag of the lockers there are
	Description string        // free text kept with the locker
	Duration    time.Duration // how long until the locker expires by itself; 0: never
	Flags       Flags
}

// Lock takes a lock for the calling client.
func Lock(r Request) class.Call {
	e := encoding.NewEncoder(64)
	r.encode(e)
	return class.Call{Class: className, Method: "lock", In: e.Bytes()}
}

// Unlock gives up the calling client's lock. ENOENT if it does not hold it.
func Unlock(name, cookie string) class.Call {
	e := encoding.NewEncoder(32)
	unlockOp{Name: name, Cookie: cookie}.encode(e)
	return class.Call{Class: className, Method: "unlock", In: e.Bytes()}
}

// Break removes another client's lock. ENOENT if that client and cookie do not
// hold it, so a lock that has changed hands meanwhile is not broken.
func Break(name string, locker LockerID) class.Call {
	e := encoding.NewEncoder(48)
	breakOp{Name: name, Locker: locker}.encode(e)
	return class.Call{Class: className, Method: "break_lock", In: e.Bytes()}
}

// Assert fails with EBUSY unless the calling client holds the lock in just this
// way. Put it first in a write operation, and a client that has lost the lock
// cannot perform that operation. It may be part of a read operation, too.
func Assert(name string, t Type, cookie, tag string) class.Call {
	e := encoding.NewEncoder(48)
	assertOp{Name: name, Type: t, Cookie: cookie, Tag: tag}.encode(e)
	return class.Call{Class: className, Method: "assert_locked", In: e.Bytes()}
}

// SetCookie changes the cookie of a lock that the calling client holds, without a
// moment in between in which it is not held. EBUSY if it does not hold it, or if
// the new cookie is in use.
func SetCookie(name string, t Type, cookie, tag, newCookie string) class.Call {
	e := encoding.NewEncoder(64)
	setCookieOp{Name: name, Type: t, Cookie: cookie, Tag: tag, NewCookie: newCookie}.encode(e)
	return class.Call{Class: className, Method: "set_cookie", In: e.Bytes()}
}

// GetInfo tells who holds a lock. A lock that nobody holds, or that never was,
// gives an Info without lockers; ENOENT means that there is no object.
func GetInfo(name string) class.Query[Info] {
	e := encoding.NewEncoder(32)
	getInfoOp{Name: name}.encode(e)
	return class.Query[Info]{
		Call:   class.Call{Class: className, Method: "get_info", In: e.Bytes()},
		Decode: DecodeInfo,
	}
}

// List names the locks that the object has or has had.
func List() class.Query[[]string] {
	return class.Query[[]string]{
		Call: class.Call{Class: className, Method: "list_locks"},
		Decode: func(reply []byte) ([]string, error) {
			d := encoding.NewDecoder("lock.ListLocks", reply)
			names := decodeListReply(d)
			return names, d.Err()
		},
	}
}
