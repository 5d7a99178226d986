package lock

import (
	"cmp"
	"slices"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// LockerID tells a locker of a lock apart from the others: who, and which of its
// handles (rados::cls::lock::locker_id_t).
//
//	struct v1 { entity name; string cookie }
type LockerID struct {
	Entity EntityName
	Cookie string
}

// Locker is one holder of a lock (a locker_id_t with its locker_info_t).
type Locker struct {
	LockerID
	LockerInfo
}

// LockerInfo is what the class keeps about a locker.
//
//	struct v1 { utime expiration; entity address; string description }
type LockerInfo struct {
	Expiration  time.Time // zero: never
	Address     EntityAddr
	Description string
}

// Info is the state of one lock (cls_lock_get_info_reply, which has the same
// layout as the stored lock_info_t).
//
//	struct v1 { map locker id → locker info; u8 type; string tag }
type Info struct {
	Lockers []Locker // in ascending order of their ids
	Type    Type
	Tag     string
}

// Encode appends the id.
func (id LockerID) Encode(e *encoding.Encoder) {
	e.Struct(1, 1, func(e *encoding.Encoder) {
		id.Entity.Encode(e)
		e.String(id.Cookie)
	})
}

// DecodeLockerID reads an id.
func DecodeLockerID(d *encoding.Decoder) (id LockerID) {
	d.Struct(1, func(d *encoding.Decoder, _ uint8) {
		id.Entity = DecodeEntityName(d)
		id.Cookie = d.String()
	})
	return id
}

// Encode appends the info.
func (i LockerInfo) Encode(e *encoding.Encoder) {
	e.Struct(1, 1, func(e *encoding.Encoder) {
		e.Time(i.Expiration)
		i.Address.Encode(e)
		e.String(i.Description)
	})
}

// DecodeLockerInfo reads an info.
func DecodeLockerInfo(d *encoding.Decoder) (i LockerInfo) {
	d.Struct(1, func(d *encoding.Decoder, _ uint8) {
		i.Expiration = d.Time()
		i.Address = DecodeEntityAddr(d)
		i.Description = d.String()
	})
	return i
}

// Encode appends the lock's state.
func (i Info) Encode(e *encoding.Encoder) {
	lockers := slices.Clone(i.Lockers)
	slices.SortFunc(lockers, func(a, b Locker) int { return a.LockerID.compare(b.LockerID) })
	e.Struct(1, 1, func(e *encoding.Encoder) {
		e.U32(uint32(len(lockers)))
		for _, l := range lockers {
			l.LockerID.Encode(e)
			l.LockerInfo.Encode(e)
		}
		e.U8(uint8(i.Type))
		e.String(i.Tag)
	})
}

// DecodeInfo decodes a lock's state: the reply of get_info or the stored attribute.
func DecodeInfo(b []byte) (Info, error) {
	d := encoding.NewDecoder("lock.Info", b)
	var i Info
	d.Struct(1, func(d *encoding.Decoder, _ uint8) {
		const smallest = 2*6 + 9 + 4 + 8 + 1 + 4 // two struct headers and their fixed fields
		n := d.Count(smallest)
		for range n {
			i.Lockers = append(i.Lockers, Locker{DecodeLockerID(d), DecodeLockerInfo(d)})
			if d.Err() != nil {
				return
			}
		}
		i.Type = Type(d.U8())
		i.Tag = d.String()
	})
	if d.Err() != nil {
		return Info{}, d.Err()
	}
	return i, nil
}

func (id LockerID) compare(o LockerID) int {
	return cmp.Or(
		cmp.Compare(id.Entity.Type, o.Entity.Type),
		cmp.Compare(id.Entity.Num, o.Entity.Num),
		cmp.Compare(id.Cookie, o.Cookie),
	)
}
