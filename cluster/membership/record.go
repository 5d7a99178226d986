package membership

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	"github.com/rbdwarden/rbdwarden/rados"
)

// Prefixes of the keys in the object's omap; the id follows.
const (
	memberPrefix = "member_"
	beatPrefix   = "beat_"
	fencedPrefix = "fenced_"
)

// record is what member_<id> has.
//
//	struct v1 {
//	  u32 revision
//	  string id, host, identity, seat; i32 index
//	  utime started; bool draining
//	  string address, fingerprint
//	  map string → string extra
//	}
type record struct {
	revision uint32 // how often the member has changed its record
	member   Member
}

func (r record) encode(e *encoding.Encoder) {
	m := r.member
	e.Struct(1, 1, func(e *encoding.Encoder) {
		e.U32(r.revision)
		for _, s := range []string{m.ID, m.Host, m.Identity, m.Seat} {
			e.String(s)
		}
		e.I32(int32(m.Index))
		e.Time(m.Started)
		e.Bool(m.Draining)
		e.String(m.Address)
		e.String(m.Fingerprint)
		e.U32(uint32(len(m.Extra)))
		for _, k := range slices.Sorted(maps.Keys(m.Extra)) {
			e.String(k)
			e.String(m.Extra[k])
		}
	})
}

func readRecord(d *encoding.Decoder) (r record) {
	d.Struct(1, func(d *encoding.Decoder, _ uint8) {
		r.revision = d.U32()
		m := &r.member
		m.ID, m.Host, m.Identity, m.Seat = d.String(), d.String(), d.String(), d.String()
		m.Index = int(d.I32())
		m.Started = d.Time()
		m.Draining = d.Bool()
		m.Address, m.Fingerprint = d.String(), d.String()
		n := d.Count(8)
		for i := 0; i < n && d.Err() == nil; i++ {
			if m.Extra == nil {
				m.Extra = make(map[string]string, n)
			}
			k := d.String()
			m.Extra[k] = d.String()
		}
	})
	return r
}

// beat is what beat_<id> has.
//
//	struct v1 { u64 count; u32 revision }
type beat struct {
	count    uint64
	revision uint32 // of the record that goes with it
}

func (b beat) encode(e *encoding.Encoder) {
	e.Struct(1, 1, func(e *encoding.Encoder) {
		e.U64(b.count)
		e.U32(b.revision)
	})
}

func readBeat(d *encoding.Decoder) (b beat) {
	d.Struct(1, func(d *encoding.Decoder, _ uint8) { b = beat{d.U64(), d.U32()} })
	return b
}

// tombstone is what fenced_<id> has.
//
//	struct v1 { record; string id of who fenced; string address; utime when; string cause }
type tombstone struct {
	record  record
	by      string
	address string    // that was blocklisted
	when    time.Time // by the clock of who fenced, for people
	cause   string
}

func (f tombstone) encode(e *encoding.Encoder) {
	e.Struct(1, 1, func(e *encoding.Encoder) {
		f.record.encode(e)
		e.String(f.by)
		e.String(f.address)
		e.Time(f.when)
		e.String(f.cause)
	})
}

func readTombstone(d *encoding.Decoder) (f tombstone) {
	d.Struct(1, func(d *encoding.Decoder, _ uint8) {
		f.record = readRecord(d)
		f.by, f.address = d.String(), d.String()
		f.when = d.Time()
		f.cause = d.String()
	})
	return f
}

// subject is what a notification on the object is about.
type subject uint32

const (
	// aboutMembers: somebody joined, left, changed its record or was fenced.
	aboutMembers subject = 1
	// aboutPayload: a payload of Group.Notify.
	aboutPayload subject = 2
)

// message is a notification on the object. Subjects that a member does not know say
// nothing to it.
//
//	struct v1 { u32 subject; blob payload }
type message struct {
	subject subject
	payload []byte
}

func (m message) encode(e *encoding.Encoder) {
	e.Struct(1, 1, func(e *encoding.Encoder) {
		e.U32(uint32(m.subject))
		e.Blob(m.payload)
	})
}

func readMessage(d *encoding.Decoder) (m message) {
	d.Struct(1, func(d *encoding.Decoder, _ uint8) {
		m.subject = subject(d.U32())
		m.payload = slices.Clone(d.Blob())
	})
	return m
}

type encoder interface{ encode(e *encoding.Encoder) }

func bytesOf(v encoder) []byte {
	var e encoding.Encoder
	v.encode(&e)
	return e.Bytes()
}

// corrupt names the place of a damaged entry.
func (g *Group) corrupt(err error) error {
	return &rados.Error{Op: "decode", Pool: g.io.Pool().Name, Namespace: g.io.Namespace(), Object: Object, Err: err}
}

// ofMember refuses a record that is not in its own place.
func ofMember(r record, key, id string) (record, error) {
	if r.member.ID == id {
		return r, nil
	}
	return record{}, &encoding.CorruptError{What: "key " + key, Reason: fmt.Sprintf("it has the record of member %q", r.member.ID)}
}

func decodeRecord(key, id string, value []byte) (record, error) {
	r, err := class.Decode("key "+key, value, readRecord)
	if err != nil {
		return r, err
	}
	return ofMember(r, key, id)
}

func decodeBeat(key, _ string, value []byte) (beat, error) {
	return class.Decode("key "+key, value, readBeat)
}

func decodeTombstone(key, id string, value []byte) (tombstone, error) {
	f, err := class.Decode("key "+key, value, readTombstone)
	if err != nil {
		return f, err
	}
	f.record, err = ofMember(f.record, key, id)
	return f, err
}

// decodeAll decodes entries of the omap by id, and puts what is wrong with the others
// into damage, by key.
func decodeAll[R any](g *Group, prefix string, pairs map[string][]byte, to map[string]R, damage map[string]error,
	decode func(key, id string, value []byte) (R, error),
) {
	for key, value := range pairs {
		id := strings.TrimPrefix(key, prefix)
		r, err := decode(key, id, value)
		if err != nil {
			damage[key] = g.corrupt(err)
			continue
		}
		to[id] = r
	}
}
