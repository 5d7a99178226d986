package mirror

import (
	"slices"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// Event is a notification on rbd_mirroring: ModeUpdated, ImageUpdated or
// UnknownEvent. The layout is a struct of version 1 with the operation's number as
// u32 and its fields (src/librbd/mirroring_watcher/Types.cc).
type Event interface {
	operation() uint32
	encodeFields(e *encoding.Encoder)
}

// ModeUpdated says that the pool's mode has changed.
type ModeUpdated struct {
	Mode Mode
}

// ImageUpdated says that an image's record has changed. ImageDisabled means that it
// is gone.
type ImageUpdated struct {
	State    ImageState
	ImageID  string
	GlobalID string
}

// UnknownEvent is a notification that this code does not know.
type UnknownEvent struct {
	Operation uint32
	Raw       []byte
}

func (ModeUpdated) operation() uint32    { return 0 }
func (ImageUpdated) operation() uint32   { return 1 }
func (u UnknownEvent) operation() uint32 { return u.Operation }

func (m ModeUpdated) encodeFields(e *encoding.Encoder) { e.U32(uint32(m.Mode)) }

func (i ImageUpdated) encodeFields(e *encoding.Encoder) {
	e.U32(uint32(i.State))
	e.String(i.ImageID)
	e.String(i.GlobalID)
}

func (u UnknownEvent) encodeFields(e *encoding.Encoder) { e.Raw(u.Raw) }

// EncodeEvent makes a notification's payload.
func EncodeEvent(ev Event) []byte {
	var e encoding.Encoder
	e.Struct(1, 1, func(e *encoding.Encoder) {
		e.U32(ev.operation())
		ev.encodeFields(e)
	})
	return e.Bytes()
}

// DecodeEvent reads a notification's payload.
func DecodeEvent(b []byte) (Event, error) {
	return decode("mirror.Event", b, func(d *encoding.Decoder) (ev Event) {
		d.Struct(1, func(d *encoding.Decoder, _ uint8) { ev = readEvent(d) })
		return ev
	})
}

func readEvent(d *encoding.Decoder) Event {
	switch op := d.U32(); op {
	case 0:
		return ModeUpdated{Mode: Mode(d.U32())}
	case 1:
		state := ImageState(d.U32())
		image := d.String()
		return ImageUpdated{State: state, ImageID: image, GlobalID: d.String()}
	default:
		return UnknownEvent{Operation: op, Raw: slices.Clone(d.Rest())}
	}
}
