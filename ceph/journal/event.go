package journal

import (
	"fmt"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// EventType is the type of an event as it is stored.
type EventType uint32

// The types of events (librbd::journal::EventType).
const (
	TypeAioDiscard         EventType = 0
	TypeAioWrite           EventType = 1
	TypeAioFlush           EventType = 2
	TypeOpFinish           EventType = 3
	TypeSnapCreate         EventType = 4
	TypeSnapRemove         EventType = 5
	TypeSnapRename         EventType = 6
	TypeSnapProtect        EventType = 7
	TypeSnapUnprotect      EventType = 8
	TypeSnapRollback       EventType = 9
	TypeRename             EventType = 10
	TypeResize             EventType = 11
	TypeFlatten            EventType = 12
	TypeDemotePromote      EventType = 13
	TypeSnapLimit          EventType = 14
	TypeUpdateFeatures     EventType = 15
	TypeMetadataSet        EventType = 16
	TypeMetadataRemove     EventType = 17
	TypeAioWriteSame       EventType = 18
	TypeAioCompareAndWrite EventType = 19
)

var eventNames = [...]string{
	"AioDiscard", "AioWrite", "AioFlush", "OpFinish", "SnapCreate", "SnapRemove", "SnapRename",
	"SnapProtect", "SnapUnprotect", "SnapRollback", "Rename", "Resize", "Flatten", "Demote/Promote",
	"SnapLimit", "UpdateFeatures", "MetadataSet", "MetadataRemove", "AioWriteSame", "AioCompareAndWrite",
}

func (t EventType) String() string {
	if int64(t) < int64(len(eventNames)) {
		return eventNames[t]
	}
	return fmt.Sprintf("Unknown (%d)", uint32(t))
}

// OpTID identifies an operation between its event and its OpFinish.
type OpTID uint64

// Event is something that happened to the image. The set is closed: the types
// below and Unknown.
type Event interface {
	Type() EventType
	encode(e *encoding.Encoder)
}

// Operation is an Event that starts an operation, which a later OpFinish with the
// same id ends.
type Operation interface {
	Event
	Operation() OpTID
}

// EventEntry is an event with the time at which it was journalled (zero if its
// writer was too old to say).
type EventEntry struct {
	Event     Event
	Timestamp time.Time
}

// Events that carry data. Offsets and lengths are in bytes of the image. Data
// shares the memory of the decoded payload.
type (
	// AioDiscard frees a range. Granularity is the primary's
	// rbd_discard_granularity_bytes: ranges smaller than it, or the ends of larger
	// ones, may be left as they are; 0 means that every byte must read as zero.
	AioDiscard struct {
		Offset, Length uint64
		Granularity    uint32
	}
	// AioWrite writes Data. Length is the length of Data.
	AioWrite struct {
		Offset, Length uint64
		Data           []byte
	}
	// AioWriteSame fills the range with repetitions of Data.
	AioWriteSame struct {
		Offset, Length uint64
		Data           []byte
	}
	// AioCompareAndWrite writes WriteData if the range holds CompareData. It was
	// journalled before the outcome was known.
	AioCompareAndWrite struct {
		Offset, Length uint64
		CompareData    []byte
		WriteData      []byte
	}
	// AioFlush makes everything before it durable.
	AioFlush struct{}
)

// Events that are operations, and their end.
type (
	// OpFinish ends an operation. Result is 0 or a negative errno, as the primary
	// saw it.
	OpFinish struct {
		Op     OpTID
		Result int32
	}
	// SnapCreate takes a snapshot.
	SnapCreate struct {
		Op        OpTID
		Namespace SnapshotNamespace
		Name      string
	}
	// SnapRemove removes a snapshot.
	SnapRemove struct {
		Op        OpTID
		Namespace SnapshotNamespace
		Name      string
	}
	// SnapRename renames the snapshot with the primary's id SnapID. OldName is
	// empty in events of the oldest version.
	SnapRename struct {
		Op      OpTID
		SnapID  uint64
		OldName string
		NewName string
	}
	// SnapProtect protects a snapshot.
	SnapProtect struct {
		Op        OpTID
		Namespace SnapshotNamespace
		Name      string
	}
	// SnapUnprotect removes a snapshot's protection.
	SnapUnprotect struct {
		Op        OpTID
		Namespace SnapshotNamespace
		Name      string
	}
	// SnapRollback sets the image to the state of a snapshot.
	SnapRollback struct {
		Op        OpTID
		Namespace SnapshotNamespace
		Name      string
	}
	// SnapLimit sets the largest number of snapshots.
	SnapLimit struct {
		Op    OpTID
		Limit uint64
	}
	// Rename renames the image.
	Rename struct {
		Op   OpTID
		Name string
	}
	// Resize sets the image's size in bytes.
	Resize struct {
		Op   OpTID
		Size uint64
	}
	// Flatten copies everything up from the parent.
	Flatten struct {
		Op OpTID
	}
	// UpdateFeatures enables or disables features (a mask of RBD_FEATURE_*).
	UpdateFeatures struct {
		Op       OpTID
		Features uint64
		Enabled  bool
	}
	// MetadataSet sets a key of the image's metadata.
	MetadataSet struct {
		Op         OpTID
		Key, Value string
	}
	// MetadataRemove removes a key of the image's metadata.
	MetadataRemove struct {
		Op  OpTID
		Key string
	}
)

// DemotePromote is the entry by which a demotion or promotion gives its new tag
// something to commit.
type DemotePromote struct{}

// Unknown is an event of a type that this package does not know. Raw is what
// follows the type.
type Unknown struct {
	EventType EventType
	Raw       []byte
}

// Type is the event's stored type.
func (AioDiscard) Type() EventType         { return TypeAioDiscard }
func (AioWrite) Type() EventType           { return TypeAioWrite }
func (AioFlush) Type() EventType           { return TypeAioFlush }
func (OpFinish) Type() EventType           { return TypeOpFinish }
func (SnapCreate) Type() EventType         { return TypeSnapCreate }
func (SnapRemove) Type() EventType         { return TypeSnapRemove }
func (SnapRename) Type() EventType         { return TypeSnapRename }
func (SnapProtect) Type() EventType        { return TypeSnapProtect }
func (SnapUnprotect) Type() EventType      { return TypeSnapUnprotect }
func (SnapRollback) Type() EventType       { return TypeSnapRollback }
func (Rename) Type() EventType             { return TypeRename }
func (Resize) Type() EventType             { return TypeResize }
func (Flatten) Type() EventType            { return TypeFlatten }
func (DemotePromote) Type() EventType      { return TypeDemotePromote }
func (SnapLimit) Type() EventType          { return TypeSnapLimit }
func (UpdateFeatures) Type() EventType     { return TypeUpdateFeatures }
func (MetadataSet) Type() EventType        { return TypeMetadataSet }
func (MetadataRemove) Type() EventType     { return TypeMetadataRemove }
func (AioWriteSame) Type() EventType       { return TypeAioWriteSame }
func (AioCompareAndWrite) Type() EventType { return TypeAioCompareAndWrite }
func (u Unknown) Type() EventType          { return u.EventType }

// Operation is the id that the operation's OpFinish has too.
func (v SnapCreate) Operation() OpTID     { return v.Op }
func (v SnapRemove) Operation() OpTID     { return v.Op }
func (v SnapRename) Operation() OpTID     { return v.Op }
func (v SnapProtect) Operation() OpTID    { return v.Op }
func (v SnapUnprotect) Operation() OpTID  { return v.Op }
func (v SnapRollback) Operation() OpTID   { return v.Op }
func (v SnapLimit) Operation() OpTID      { return v.Op }
func (v Rename) Operation() OpTID         { return v.Op }
func (v Resize) Operation() OpTID         { return v.Op }
func (v Flatten) Operation() OpTID        { return v.Op }
func (v UpdateFeatures) Operation() OpTID { return v.Op }
func (v MetadataSet) Operation() OpTID    { return v.Op }
func (v MetadataRemove) Operation() OpTID { return v.Op }
