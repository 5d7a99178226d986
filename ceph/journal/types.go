package journal

import (
	"fmt"
	"strconv"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// TagTID numbers the tags of a journal from 0. A tag is an epoch of one writer.
type TagTID uint64

// EntryTID numbers the entries of one tag from 0, without holes.
type EntryTID uint64

// ObjectNumber numbers the data objects of a journal from 0.
type ObjectNumber uint64

// ObjectSet numbers the object sets of a journal: set s is the splay-width many
// objects from s * splay width on.
type ObjectSet uint64

// TagClass groups tags; an image's journal uses one.
type TagClass uint64

// NewTagClass asks TagCreate to allocate a class (Tag::TAG_CLASS_NEW).
const NewTagClass TagClass = 1<<64 - 1

// Set is the object set that the object belongs to.
func (n ObjectNumber) Set(splayWidth uint8) ObjectSet {
	return ObjectSet(uint64(n) / uint64(splayWidth))
}

// SplayOffset is the object's place in its set.
func (n ObjectNumber) SplayOffset(splayWidth uint8) uint8 {
	return uint8(uint64(n) % uint64(splayWidth))
}

// Object is the object of the set at a splay offset.
func (s ObjectSet) Object(splayWidth, offset uint8) ObjectNumber {
	return ObjectNumber(uint64(s)*uint64(splayWidth) + uint64(offset))
}

// ClientKey names a client's record in the header.
func ClientKey(id string) string { return "client_" + id }

// HeaderObject names the header object of an image's journal.
func HeaderObject(imageID string) string { return "journal." + imageID }

// DataObject names a data object. pool is the id of the header's pool.
func DataObject(pool int64, imageID string, n ObjectNumber) string {
	return "journal_data." + strconv.FormatInt(pool, 10) + "." + imageID + "." + strconv.FormatUint(uint64(n), 10)
}

// ObjectPosition is a committed entry and the data object that it is in.
type ObjectPosition struct {
	Object ObjectNumber
	Tag    TagTID
	Entry  EntryTID
}

func (p ObjectPosition) String() string {
	return fmt.Sprintf("[object_number=%d, tag_tid=%d, entry_tid=%d]", p.Object, p.Tag, p.Entry)
}

// Encode appends p.
func (p ObjectPosition) Encode(e *encoding.Encoder) {
	e.Struct(1, 1, func(e *encoding.Encoder) {
		e.U64(uint64(p.Object))
		e.U64(uint64(p.Tag))
		e.U64(uint64(p.Entry))
	})
}

// Decode reads p; errors are in d.
func (p *ObjectPosition) Decode(d *encoding.Decoder) {
	d.Struct(1, func(d *encoding.Decoder, _ uint8) {
		p.Object, p.Tag, p.Entry = ObjectNumber(d.U64()), TagTID(d.U64()), EntryTID(d.U64())
	})
}

// ObjectSetPosition is how far a client has committed: one position for each
// splay offset at most, newest first. Empty means that nothing is committed.
type ObjectSetPosition []ObjectPosition

// Newest is the newest committed entry; false if there is none.
func (s ObjectSetPosition) Newest() (ObjectPosition, bool) {
	if len(s) == 0 {
		return ObjectPosition{}, false
	}
	return s[0], true
}

const objectPositionSize = 6 + 24

// Encode appends s.
func (s ObjectSetPosition) Encode(e *encoding.Encoder) {
	e.Struct(1, 1, func(e *encoding.Encoder) {
		e.U32(uint32(len(s)))
		for _, p := range s {
			p.Encode(e)
		}
	})
}

// Decode reads s; errors are in d.
func (s *ObjectSetPosition) Decode(d *encoding.Decoder) {
	d.Struct(1, func(d *encoding.Decoder, _ uint8) {
		n := d.Count(objectPositionSize)
		*s = nil
		for i := 0; i < n && d.Err() == nil; i++ {
			var p ObjectPosition
			p.Decode(d)
			*s = append(*s, p)
		}
	})
}

// ClientState says whether a client still takes part.
type ClientState uint8

// The states of clients. A disconnected client no longer holds back trimming, so
// entries that it has not seen may be gone: it has to start over.
const (
	Connected    ClientState = 0
	Disconnected ClientState = 1
)

func (s ClientState) String() string {
	switch s {
	case Connected:
		return "connected"
	case Disconnected:
		return "disconnected"
	}
	return fmt.Sprintf("unknown (%d)", uint8(s))
}

// MasterClientID is the id of the client that is the image itself: its owner
// commits what is in the image (Journal::IMAGE_CLIENT_ID).
const MasterClientID = ""

// Client is a registered reader of the journal.
type Client struct {
	ID             string // "" for the image itself, else for a mirror peer its mirror uuid
	Data           []byte // a ClientData, encoded
	CommitPosition ObjectSetPosition
	State          ClientState
}

// Encode appends c.
func (c Client) Encode(e *encoding.Encoder) {
	e.Struct(1, 1, func(e *encoding.Encoder) {
		e.String(c.ID)
		e.Blob(c.Data)
		c.CommitPosition.Encode(e)
		e.U8(uint8(c.State))
	})
}

// Decode reads c; errors are in d. Data shares the buffer's memory.
func (c *Client) Decode(d *encoding.Decoder) {
	d.Struct(1, func(d *encoding.Decoder, _ uint8) {
		c.ID, c.Data = d.String(), d.Blob()
		c.CommitPosition.Decode(d)
		c.State = ClientState(d.U8())
	})
}

// Tag is a registered tag.
type Tag struct {
	TID   TagTID
	Class TagClass
	Data  []byte // a TagData, encoded
}

// Encode appends t.
func (t Tag) Encode(e *encoding.Encoder) {
	e.Struct(1, 1, func(e *encoding.Encoder) {
		e.U64(uint64(t.TID))
		e.U64(uint64(t.Class))
		e.Blob(t.Data)
	})
}

// Decode reads t; errors are in d. Data shares the buffer's memory.
func (t *Tag) Decode(d *encoding.Decoder) {
	d.Struct(1, func(d *encoding.Decoder, _ uint8) {
		t.TID, t.Class, t.Data = TagTID(d.U64()), TagClass(d.U64()), d.Blob()
	})
}

// encodable is what Marshal takes: every type of this package that is stored.
type encodable interface{ Encode(e *encoding.Encoder) }

// Marshal encodes v into new memory.
func Marshal(v encodable) []byte {
	var e encoding.Encoder
	v.Encode(&e)
	return e.Bytes()
}

// DecodeTag reads a tag as the header stores it. The error is a
// *encoding.CorruptError. Data shares b's memory.
func DecodeTag(b []byte) (Tag, error) {
	d := encoding.NewDecoder("journal.Tag", b)
	var t Tag
	t.Decode(d)
	return t, d.Err()
}
