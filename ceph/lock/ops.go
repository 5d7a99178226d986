package lock

import (
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// The inputs of the class's methods (src/cls/lock/cls_lock_ops.h). Each is a
// versioned struct, version 1. They decode too, for dumps and for tests.

// lock: string name; u8 type; string cookie, tag, description; utime duration; u8 flags
func (r Request) encode(e *encoding.Encoder) {
	e.Struct(1, 1, func(e *encoding.Encoder) {
		e.String(r.Name)
		e.U8(uint8(r.Type))
		e.String(r.Cookie)
		e.String(r.Tag)
		e.String(r.Description)
		e.U32(uint32(r.Duration / time.Second))
		e.U32(uint32(r.Duration % time.Second))
		e.U8(uint8(r.Flags))
	})
}

func decodeRequest(d *encoding.Decoder) (r Request) {
	d.Struct(1, func(d *encoding.Decoder, _ uint8) {
		r.Name = d.String()
		r.Type = Type(d.U8())
		r.Cookie = d.String()
		r.Tag = d.String()
		r.Description = d.String()
		r.Duration = time.Duration(d.U32()) * time.Second
		r.Duration += time.Duration(d.U32())
		r.Flags = Flags(d.U8())
	})
	return r
}

// unlock: string name, cookie
type unlockOp struct{ Name, Cookie string }

func (o unlockOp) encode(e *encoding.Encoder) {
	e.Struct(1, 1, func(e *encoding.Encoder) {
		e.String(o.Name)
		e.String(o.Cookie)
	})
}

func decodeUnlockOp(d *encoding.Decoder) (o unlockOp) {
	d.Struct(1, func(d *encoding.Decoder, _ uint8) {
		o.Name, o.Cookie = d.String(), d.String()
	})
	return o
}

// break_lock: string name; entity name locker; string cookie. The locker and its
// cookie are not a locker_id_t: there is no struct header around them.
type breakOp struct {
	Name   string
	Locker LockerID
}

func (o breakOp) encode(e *encoding.Encoder) {
	e.Struct(1, 1, func(e *encoding.Encoder) {
		e.String(o.Name)
		o.Locker.Entity.Encode(e)
		e.String(o.Locker.Cookie)
	})
}

func decodeBreakOp(d *encoding.Decoder) (o breakOp) {
	d.Struct(1, func(d *encoding.Decoder, _ uint8) {
		o.Name = d.String()
		o.Locker.Entity = DecodeEntityName(d)
		o.Locker.Cookie = d.String()
	})
	return o
}

// get_info: string name
type getInfoOp struct{ Name string }

func (o getInfoOp) encode(e *encoding.Encoder) {
	e.Struct(1, 1, func(e *encoding.Encoder) { e.String(o.Name) })
}

func decodeGetInfoOp(d *encoding.Decoder) (o getInfoOp) {
	d.Struct(1, func(d *encoding.Decoder, _ uint8) { o.Name = d.String() })
	return o
}

// list_locks answers with: list of string
func decodeListReply(d *encoding.Decoder) (names []string) {
	d.Struct(1, func(d *encoding.Decoder, _ uint8) {
		for range d.Count(4) {
			names = append(names, d.String())
		}
	})
	return names
}

func encodeListReply(e *encoding.Encoder, names []string) {
	e.Struct(1, 1, func(e *encoding.Encoder) {
		e.U32(uint32(len(names)))
		for _, n := range names {
			e.String(n)
		}
	})
}

// assert_locked: string name; u8 type; string cookie, tag
type assertOp struct {
	Name   string
	Type   Type
	Cookie string
	Tag    string
}

func (o assertOp) encode(e *encoding.Encoder) {
	e.Struct(1, 1, func(e *encoding.Encoder) {
		e.String(o.Name)
		e.U8(uint8(o.Type))
		e.String(o.Cookie)
		e.String(o.Tag)
	})
}

func decodeAssertOp(d *encoding.Decoder) (o assertOp) {
	d.Struct(1, func(d *encoding.Decoder, _ uint8) {
		o.Name = d.String()
		o.Type = Type(d.U8())
		o.Cookie, o.Tag = d.String(), d.String()
	})
	return o
}

// set_cookie: string name; u8 type; string cookie, tag, new cookie
type setCookieOp struct {
	Name      string
	Type      Type
	Cookie    string
	Tag       string
	NewCookie string
}

func (o setCookieOp) encode(e *encoding.Encoder) {
	e.Struct(1, 1, func(e *encoding.Encoder) {
		e.String(o.Name)
		e.U8(uint8(o.Type))
		e.String(o.Cookie)
		e.String(o.Tag)
		e.String(o.NewCookie)
	})
}

func decodeSetCookieOp(d *encoding.Decoder) (o setCookieOp) {
	d.Struct(1, func(d *encoding.Decoder, _ uint8) {
		o.Name = d.String()
		o.Type = Type(d.U8())
		o.Cookie, o.Tag, o.NewCookie = d.String(), d.String(), d.String()
	})
	return o
}
