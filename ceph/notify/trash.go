package notify

import (
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// TrashMessage is a notification on rbd_trash
// (librbd::trash_watcher::NotifyMessage).
type TrashMessage struct {
	Payload TrashPayload
}

// TrashPayload is what a notification on rbd_trash says: TrashAdded, TrashRemoved
// or TrashUnknown.
type TrashPayload interface {
	trashOp() uint32
	encode(e *encoding.Encoder)
}

// TrashAdded says that an image was moved to the trash.
type TrashAdded struct {
	ImageID string
	Spec    TrashSpec
}

// TrashRemoved says that an image left the trash, restored or gone for good.
type TrashRemoved struct {
	ImageID string
}

// TrashUnknown is a notification of a newer Ceph.
type TrashUnknown struct {
	Operation uint32
	Raw       []byte
}

// TrashSpec says why and for how long an image is in the trash
// (cls::rbd::TrashImageSpec).
//
//	struct v2 { u8 source; string name; utime deleted, deferred until; u8 state (v2) }
type TrashSpec struct {
	Source        uint8 // 0 user, 1 mirroring, 2 migration, 3 removal, 4 parent in the user's trash (TrashImageSource)
	Name          string
	Deleted       time.Time
	DeferredUntil time.Time
	State         uint8 // TrashImageState
}

const (
	trashAdded   = 0
	trashRemoved = 1
)

func (TrashAdded) trashOp() uint32     { return trashAdded }
func (TrashRemoved) trashOp() uint32   { return trashRemoved }
func (p TrashUnknown) trashOp() uint32 { return p.Operation }

func (p TrashAdded) encode(e *encoding.Encoder) {
	e.String(p.ImageID)
	e.Struct(2, 1, func(e *encoding.Encoder) {
		e.U8(p.Spec.Source)
		e.String(p.Spec.Name)
		e.Time(p.Spec.Deleted)
		e.Time(p.Spec.DeferredUntil)
		e.U8(p.Spec.State)
	})
}

func (p TrashRemoved) encode(e *encoding.Encoder) { e.String(p.ImageID) }

func (p TrashUnknown) encode(e *encoding.Encoder) { e.Raw(p.Raw) }

// Encode encodes the message.
func (m TrashMessage) Encode() []byte {
	e := encoding.NewEncoder(64)
	e.Struct(1, 1, func(e *encoding.Encoder) {
		e.U32(m.Payload.trashOp())
		m.Payload.encode(e)
	})
	return e.Bytes()
}

// DecodeTrash decodes a notification on rbd_trash.
func DecodeTrash(b []byte) (TrashMessage, error) {
	var m TrashMessage
	d := encoding.NewDecoder("notify.TrashMessage", b)
	d.Struct(1, func(d *encoding.Decoder, _ uint8) {
		switch op := d.U32(); {
		case d.Err() != nil:
		case op == trashAdded:
			p := TrashAdded{ImageID: d.String()}
			d.Struct(2, func(d *encoding.Decoder, version uint8) {
				p.Spec = TrashSpec{
					Source: d.U8(), Name: d.String(), Deleted: d.Time(), DeferredUntil: d.Time(),
				}
				if version >= 2 {
					p.Spec.State = d.U8()
				}
			})
			m.Payload = p
		case op == trashRemoved:
			m.Payload = TrashRemoved{ImageID: d.String()}
		default:
			m.Payload = TrashUnknown{Operation: op, Raw: append([]byte(nil), d.Rest()...)}
		}
	})
	if d.Err() != nil {
		return TrashMessage{}, d.Err()
	}
	return m, nil
}
