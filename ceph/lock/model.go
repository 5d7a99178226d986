package lock

import (
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// Object is the locks of one object, by name: a model of what the object class
// does on the OSD (src/cls/lock/cls_lock.cc). Stores in memory use it, so that
// what is tested against them meets the class's own rules and error numbers. The
// zero value has no locks.
type Object struct {
	locks map[string]Info
}

// Caller is who makes a call, as the OSD knows it from the connection.
type Caller struct {
	Entity  EntityName
	Address EntityAddr
}

// Call performs a method of the class at the time now. It changes the object only
// if it returns no error. remove says that the object itself is to be removed (an
// ephemeral lock has ended). The existence of the object is the caller's business:
// all methods but lock need it, and lock creates it.
func (o *Object) Call(method string, in []byte, c Caller, now time.Time) (out []byte, remove bool, err error) {
	d := encoding.NewDecoder("lock."+method, in)
	switch method {
	case "lock":
		r := decodeRequest(d)
		if d.Err() != nil {
			return nil, false, syscall.EINVAL
		}
		return nil, false, o.lock(r, c, now)
	case "unlock":
		op := decodeUnlockOp(d)
		if d.Err() != nil {
			return nil, false, syscall.EINVAL
		}
		remove, err = o.unlock(op.Name, LockerID{c.Entity, op.Cookie}, now)
		return nil, remove, err
	case "break_lock":
		op := decodeBreakOp(d)
		if d.Err() != nil {
			return nil, false, syscall.EINVAL
		}
		remove, err = o.unlock(op.Name, op.Locker, now)
		return nil, remove, err
	case "get_info":
		op := decodeGetInfoOp(d)
		if d.Err() != nil {
			return nil, false, syscall.EINVAL
		}
		e := encoding.NewEncoder(64)
		o.live(op.Name, now).Encode(e)
		return e.Bytes(), false, nil
	case "list_locks":
		e := encoding.NewEncoder(64)
		encodeListReply(e, o.Names())
		return e.Bytes(), false, nil
	case "assert_locked":
		op := decodeAssertOp(d)
		if d.Err() != nil {
			return nil, false, syscall.EINVAL
		}
		_, _, err = o.find(op.Name, op.Type, LockerID{c.Entity, op.Cookie}, op.Tag, now)
		return nil, false, err
	case "set_cookie":
		op := decodeSetCookieOp(d)
		if d.Err() != nil {
			return nil, false, syscall.EINVAL
		}
		return nil, false, o.setCookie(op, c, now)
	}
	return nil, false, syscall.EOPNOTSUPP
}

// Names lists the locks that there are or have been.
func (o *Object) Names() []string {
	names := make([]string, 0, len(o.locks))
	for n := range o.locks {
		names = append(names, n)
	}
	slices.SortFunc(names, strings.Compare)
	return names
}

// Lockers are the holders of a lock, also those that have expired.
func (o *Object) Lockers(name string) []Locker { return slices.Clone(o.locks[name].Lockers) }

// live is a lock without the lockers that have expired.
func (o *Object) live(name string, now time.Time) Info {
	i := o.locks[name]
	i.Lockers = slices.DeleteFunc(slices.Clone(i.Lockers), func(l Locker) bool {
		return !l.Expiration.IsZero() && l.Expiration.Before(now)
	})
	return i
}

func (o *Object) put(name string, i Info) {
	if o.locks == nil {
		o.locks = make(map[string]Info)
	}
	slices.SortFunc(i.Lockers, func(a, b Locker) int { return a.LockerID.compare(b.LockerID) })
	o.locks[name] = i
}

func index(i Info, id LockerID) int {
	return slices.IndexFunc(i.Lockers, func(l Locker) bool { return l.LockerID == id })
}

func valid(t Type) bool { return t >= Exclusive && t <= ExclusiveEphemeral }

func (o *Object) lock(r Request, c Caller, now time.Time) error {
	mayRenew, mustRenew := r.Flags&MayRenew != 0, r.Flags&MustRenew != 0
	if !valid(r.Type) || r.Name == "" || mayRenew && mustRenew {
		return syscall.EINVAL
	}
	i := o.live(r.Name, now)
	if len(i.Lockers) > 0 && i.Tag != r.Tag {
		return syscall.EBUSY
	}
	id := LockerID{c.Entity, r.Cookie}
	switch at := index(i, id); {
	case at >= 0 && !mayRenew && !mustRenew:
		return syscall.EEXIST
	case at >= 0:
		i.Lockers = slices.Delete(i.Lockers, at, at+1)
	case mustRenew:
		return syscall.ENOENT
	}
	if len(i.Lockers) > 0 && (r.Type != Shared || i.Type != Shared) {
		return syscall.EBUSY
	}
	l := Locker{LockerID: id, LockerInfo: LockerInfo{Address: c.Address, Description: r.Description}}
	l.Address.Type = AddrLegacy
	if r.Duration > 0 {
		l.Expiration = now.Add(r.Duration)
	}
	o.put(r.Name, Info{Lockers: append(i.Lockers, l), Type: r.Type, Tag: r.Tag})
	return nil
}

func (o *Object) unlock(name string, id LockerID, now time.Time) (remove bool, err error) {
	i := o.live(name, now)
	at := index(i, id)
	if at < 0 {
		return false, syscall.ENOENT
	}
	i.Lockers = slices.Delete(i.Lockers, at, at+1)
	o.put(name, i)
	return i.Type == ExclusiveEphemeral, nil
}

func (o *Object) find(name string, t Type, id LockerID, tag string, now time.Time) (Info, int, error) {
	if !valid(t) || name == "" {
		return Info{}, 0, syscall.EINVAL
	}
	i := o.live(name, now)
	at := index(i, id)
	if at < 0 || i.Type != t || i.Tag != tag {
		return Info{}, 0, syscall.EBUSY
	}
	return i, at, nil
}

func (o *Object) setCookie(op setCookieOp, c Caller, now time.Time) error {
	i, at, err := o.find(op.Name, op.Type, LockerID{c.Entity, op.Cookie}, op.Tag, now)
	if err != nil {
		return err
	}
	id := LockerID{c.Entity, op.NewCookie}
	if index(i, id) >= 0 {
		return syscall.EBUSY
	}
	i.Lockers[at].Cookie = id.Cookie
	o.put(op.Name, i)
	return nil
}
