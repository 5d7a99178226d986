package imagemap

import (
	"bytes"
	"fmt"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	"github.com/rbdwarden/rbdwarden/ceph/mirror"
)

// Entry says who runs an image.
type Entry struct {
	// Owner is the instance id of the member that runs the image. rbd-mirror ends with
	// a failed assertion when it reads an entry without one, so none is ever written.
	Owner string
	// Mapped is when Owner got the image.
	Mapped time.Time
	// Seat is the owner's seat (see package membership), by which a restarted worker is
	// known as the heir even when its predecessor's record is gone; "" if rbd-mirror
	// wrote the entry.
	Seat string
	// Pin is the seat that a command gave the image to; "" if none did.
	Pin string
	// Moved is when the image was last moved for balance's sake, zero if it never was. What
	// rbd-mirror wrote has Mapped here: it cannot be told why it was.
	Moved time.Time
}

// extrasMagic starts what we keep behind the policy data that rbd-mirror knows.
var extrasMagic = []byte("rbdwarden\x00")

// record is the entry in Ceph's form. Its policy data are of the kind "none", whose
// reader skips what follows its (no) fields.
func (e Entry) record() mirror.ImageMap {
	var x encoding.Encoder
	x.Raw(extrasMagic)
	x.Struct(1, 1, func(x *encoding.Encoder) {
		x.String(e.Seat)
		x.String(e.Pin)
		x.Time(e.Moved)
	})
	data := mirror.PolicyData{Kind: mirror.PolicyNone, Raw: x.Bytes()}
	return mirror.ImageMap{InstanceID: e.Owner, MappedTime: e.Mapped, Data: data.Bytes()}
}

func (e Entry) encode() []byte {
	var x encoding.Encoder
	e.record().Encode(&x)
	return x.Bytes()
}

// decodeEntry reads an entry of either daemon. Policy data of kinds that we do not know
// are those of a newer rbd-mirror: they are no error, and say nothing to us.
func decodeEntry(b []byte) (Entry, error) {
	m, err := mirror.DecodeImageMap(b)
	if err != nil {
		return Entry{}, err
	}
	e := Entry{Owner: m.InstanceID, Mapped: m.MappedTime, Moved: m.MappedTime}
	if len(m.Data) == 0 {
		return e, nil
	}
	p, err := mirror.DecodePolicyData(m.Data)
	if err != nil {
		return Entry{}, err
	}
	extras, ours := bytes.CutPrefix(p.Raw, extrasMagic)
	if p.Kind != mirror.PolicyNone || !ours {
		return e, nil
	}
	d := encoding.NewDecoder("imagemap.Entry", extras)
	d.Struct(1, func(d *encoding.Decoder, _ uint8) {
		e.Seat, e.Pin, e.Moved = d.String(), d.String(), d.Time()
	})
	if err := d.Err(); err != nil {
		return Entry{}, err
	}
	return e, nil
}

// encodeDelta is the value of a delta: the images that a write changed.
func encodeDelta(ids []string) []byte {
	var x encoding.Encoder
	x.Struct(1, 1, func(x *encoding.Encoder) {
		x.U32(uint32(len(ids)))
		for _, id := range ids {
			x.String(id)
		}
	})
	return x.Bytes()
}

func decodeDelta(key string, b []byte) (ids []string, err error) {
	d := encoding.NewDecoder(fmt.Sprintf("image map's key %s", key), b)
	d.Struct(1, func(d *encoding.Decoder, _ uint8) {
		for range d.Count(4) {
			ids = append(ids, d.String())
		}
	})
	return ids, d.Err()
}
