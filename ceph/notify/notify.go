// Package notify has the codecs of the notifications that Ceph's RBD code sends
// over RADOS objects: librbd's on an image's header (Message), rbd-mirror's on
// rbd_mirror_leader (LeaderMessage) and librbd's on rbd_trash (TrashMessage).
//
// All three have one shape, a versioned struct that starts with the kind:
//
//	struct v7 (header), v1 (others) { u32 operation; fields of that operation }
//
// An operation that is not known decodes to Unknown with its bytes. Whatever a
// watcher makes of a notification, it has to acknowledge it, or the notifier
// waits until its time runs out.
//
// Who answers what on a header: everybody acknowledges; only the owner of the
// exclusive lock puts a Response into the acknowledgement of a request. A
// requester that sees no Response takes it that there is no owner, one that sees
// two of them gives up (src/librbd/image_watcher/NotifyLockOwner.cc).
//
// Source of the facts: ceph/ceph src/librbd/WatchNotifyTypes.{h,cc},
// src/librbd/watcher/Types.cc, src/librbd/trash_watcher/Types.cc,
// src/tools/rbd_mirror/leader_watcher/Types.cc.
package notify

import (
	"fmt"
	"strconv"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// Version is the version of the header messages that Encode writes (Pacific and
// later). Octopus wrote 6, without the request ids of snapshot operations.
const Version = 7

// Op is the kind of a header notification (NotifyOp).
type Op uint32

// The kinds of header notifications.
const (
	OpAcquiredLock     Op = 0
	OpReleasedLock     Op = 1
	OpRequestLock      Op = 2
	OpHeaderUpdate     Op = 3
	OpAsyncProgress    Op = 4
	OpAsyncComplete    Op = 5
	OpFlatten          Op = 6
	OpResize           Op = 7
	OpSnapCreate       Op = 8
	OpSnapRemove       Op = 9
	OpRebuildObjectMap Op = 10
	OpSnapRename       Op = 11
	OpSnapProtect      Op = 12
	OpSnapUnprotect    Op = 13
	OpRename           Op = 14
	OpUpdateFeatures   Op = 15
	OpMigrate          Op = 16
	OpSparsify         Op = 17
	OpQuiesce          Op = 18
	OpUnquiesce        Op = 19
	OpMetadataUpdate   Op = 20
)

var opNames = [...]string{
	"AcquiredLock", "ReleasedLock", "RequestLock", "HeaderUpdate", "AsyncProgress", "AsyncComplete",
	"Flatten", "Resize", "SnapCreate", "SnapRemove", "RebuildObjectMap", "SnapRename", "SnapProtect",
	"SnapUnprotect", "Rename", "UpdateFeatures", "Migrate", "Sparsify", "Quiesce", "Unquiesce", "MetadataUpdate",
}

func (o Op) String() string {
	if int(o) < len(opNames) {
		return opNames[o]
	}
	return "Op(" + strconv.FormatUint(uint64(o), 10) + ")"
}

// IsRequest tells whether the operation asks the lock's owner to do something to
// the image, so that only the owner answers it, with a Response.
func (o Op) IsRequest() bool {
	switch o {
	case OpFlatten, OpResize, OpSnapCreate, OpSnapRemove, OpRebuildObjectMap, OpSnapRename, OpSnapProtect,
		OpSnapUnprotect, OpRename, OpUpdateFeatures, OpMigrate, OpSparsify, OpMetadataUpdate:
		return true
	}
	return false
}

// Message is a notification on an image's header (librbd::watch_notify::NotifyMessage).
type Message struct {
	// Version is the encoding's version; fields that are newer are zero. 0 means
	// the newest that we know when a message is encoded.
	Version uint8
	Payload Payload
}

// Payload is what a header notification says: one of the types of this package.
type Payload interface {
	// Op is the kind of notification.
	Op() Op

	encode(e *encoding.Encoder, version uint8)
}

// Decode decodes a header notification. An empty one is a header update (very old
// clients send those).
func Decode(b []byte) (Message, error) {
	if len(b) == 0 {
		return Message{Payload: HeaderUpdate{}}, nil
	}
	var m Message
	d := encoding.NewDecoder("notify.Message", b)
	d.Struct(Version, func(d *encoding.Decoder, version uint8) {
		m.Version = version
		op := Op(d.U32())
		if d.Err() != nil {
			return
		}
		if decode, ok := decoders[op]; ok {
			m.Payload = decode(d, version)
		} else {
			m.Payload = Unknown{Operation: op, Raw: append([]byte(nil), d.Rest()...)}
		}
	})
	if d.Err() != nil {
		return Message{}, d.Err()
	}
	return m, nil
}

// Encode encodes the message.
func (m Message) Encode() []byte {
	version := m.Version
	if version == 0 {
		version = Version
	}
	e := encoding.NewEncoder(64)
	e.Struct(version, 1, func(e *encoding.Encoder) {
		e.U32(uint32(m.Payload.Op()))
		m.Payload.encode(e, version)
	})
	return e.Bytes()
}

// Encode encodes a payload as a message of the newest version.
func Encode(p Payload) []byte { return Message{Payload: p}.Encode() }

// Response is the answer to a request, put into its acknowledgement
// (librbd::watch_notify::ResponseMessage).
//
//	struct v1 { i32 result }
type Response struct {
	Result int32 // 0, or a negative errno
}

// Encode encodes the response.
func (r Response) Encode() []byte {
	e := encoding.NewEncoder(10)
	e.Struct(1, 1, func(e *encoding.Encoder) { e.I32(r.Result) })
	return e.Bytes()
}

// DecodeResponse decodes a response.
func DecodeResponse(b []byte) (Response, error) {
	var r Response
	d := encoding.NewDecoder("notify.Response", b)
	d.Struct(1, func(d *encoding.Decoder, _ uint8) { r.Result = d.I32() })
	return r, d.Err()
}

// ClientID names one watch of one client (librbd::watcher::ClientId).
//
//	u64 global id; u64 handle
type ClientID struct {
	GlobalID uint64 // the connection's instance id
	Handle   uint64 // the watch's cookie
}

// IsValid tells whether the id names anybody.
func (c ClientID) IsValid() bool { return c != ClientID{} }

func (c ClientID) String() string { return fmt.Sprintf("[%d,%d]", c.GlobalID, c.Handle) }

func (c ClientID) encode(e *encoding.Encoder) {
	e.U64(c.GlobalID)
	e.U64(c.Handle)
}

func decodeClientID(d *encoding.Decoder) ClientID {
	return ClientID{GlobalID: d.U64(), Handle: d.U64()}
}

// AsyncRequestID names a request whose outcome comes later, as an AsyncComplete
// (librbd::watch_notify::AsyncRequestId).
//
//	client id; u64 request
type AsyncRequestID struct {
	Client  ClientID
	Request uint64
}

// IsValid tells whether the requester wants to hear of the outcome by
// AsyncComplete. If not, the Response has to wait for the outcome.
func (id AsyncRequestID) IsValid() bool { return id != AsyncRequestID{} }

func (id AsyncRequestID) encode(e *encoding.Encoder) {
	id.Client.encode(e)
	e.U64(id.Request)
}

func decodeAsyncRequestID(d *encoding.Decoder) AsyncRequestID {
	return AsyncRequestID{Client: decodeClientID(d), Request: d.U64()}
}
