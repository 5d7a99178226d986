package rbd

import (
	"fmt"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// TrashSource says who put an image into the trash (cls_rbd_types.h).
type TrashSource uint8

// The sources.
const (
	TrashUser       TrashSource = 0
	TrashMirroring  TrashSource = 1 // rbd-mirror: to be deleted after the delay
	TrashMigration  TrashSource = 2
	TrashRemoving   TrashSource = 3
	TrashUserParent TrashSource = 4
)

// String is the name that "rbd trash ls" shows.
func (s TrashSource) String() string {
	switch s {
	case TrashUser:
		return "user"
	case TrashMirroring:
		return "mirroring"
	case TrashMigration:
		return "migration"
	case TrashRemoving:
		return "removing"
	case TrashUserParent:
		return "user_parent"
	}
	return fmt.Sprintf("unknown (%d)", uint8(s))
}

// TrashState guards a trashed image against two clients that change it at once.
type TrashState uint8

// The states.
const (
	TrashNormal    TrashState = 0
	TrashMoving    TrashState = 1
	TrashBeingGone TrashState = 2 // REMOVING: an image removal is under way
	TrashRestoring TrashState = 3
)

// TrashSpec describes an image in the trash (cls::rbd::TrashImageSpec).
type TrashSpec struct {
	Source        TrashSource
	Name          string
	DeletionTime  time.Time // when it was moved to the trash
	DefermentEnds time.Time // not to be removed before
	State         TrashState
}

// Encode appends the record.
func (t TrashSpec) Encode(e *encoding.Encoder) {
	e.Struct(2, 1, func(e *encoding.Encoder) {
		e.U8(uint8(t.Source))
		e.String(t.Name)
		e.Time(t.DeletionTime)
		e.Time(t.DefermentEnds)
		e.U8(uint8(t.State))
	})
}

func readTrashSpec(d *encoding.Decoder) (t TrashSpec) {
	d.Struct(2, func(d *encoding.Decoder, v uint8) {
		t.Source = TrashSource(d.U8())
		t.Name = d.String()
		t.DeletionTime = d.Time()
		t.DefermentEnds = d.Time()
		if v >= 2 {
			t.State = TrashState(d.U8())
		}
	})
	return t
}

// DecodeTrashSpec reads the record, for example rbd_trash's omap value.
func DecodeTrashSpec(b []byte) (TrashSpec, error) { return decode("rbd.TrashSpec", b, readTrashSpec) }

// TrashAdd enters an image by id in rbd_trash; EEXIST if it is there.
func TrashAdd(id string, spec TrashSpec) class.Call {
	return call("trash_add", func(e *encoding.Encoder) {
		e.String(id)
		spec.Encode(e)
	})
}

// TrashRemove deletes an image's entry; ENOENT if there is none.
func TrashRemove(id string) class.Call { return call("trash_remove", text(id)) }

// TrashGet asks for one entry; ENOENT if there is none.
func TrashGet(id string) class.Query[TrashSpec] { return query("trash_get", text(id), readTrashSpec) }

// TrashList lists up to max entries whose ids come after start.
func TrashList(start string, max uint64) class.Query[map[string]TrashSpec] {
	return query("trash_list", page(start, max), func(d *encoding.Decoder) map[string]TrashSpec {
		n := d.Count(4 + 6)
		m := make(map[string]TrashSpec, n)
		for i := 0; i < n && d.Err() == nil; i++ {
			id := d.String()
			m[id] = readTrashSpec(d)
		}
		return m
	})
}

// TrashStateSet changes an entry's state; ESTALE unless it was expect (or is
// already state).
func TrashStateSet(id string, state, expect TrashState) class.Call {
	return call("trash_state_set", func(e *encoding.Encoder) {
		e.String(id)
		e.U8(uint8(state))
		e.U8(uint8(expect))
	})
}
