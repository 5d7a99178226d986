package notify

import (
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// AcquiredLock says that the sender owns the exclusive lock now.
type AcquiredLock struct {
	Client ClientID // since version 2
}

// ReleasedLock says that the sender owns the exclusive lock no longer.
type ReleasedLock struct {
	Client ClientID // since version 2
}

// RequestLock asks the owner to release the exclusive lock. It answers 0 if it
// will, EROFS if it will not.
type RequestLock struct {
	Client ClientID // since version 2
	Force  bool     // since version 3
}

// HeaderUpdate says that the image's metadata has changed: read it again.
type HeaderUpdate struct{}

// AsyncProgress tells how far a request has come.
type AsyncProgress struct {
	Request       AsyncRequestID
	Offset, Total uint64
}

// AsyncComplete tells a request's outcome.
type AsyncComplete struct {
	Request AsyncRequestID
	Result  int32 // 0, or a negative errno
}

// Flatten asks to copy what a clone shares with its parent.
type Flatten struct{ Request AsyncRequestID }

// Resize asks to change the image's size.
type Resize struct {
	Size        uint64 // bytes
	Request     AsyncRequestID
	AllowShrink bool // since version 4; true before
}

// SnapNamespace is what kind of snapshot a request is about, with the fields of
// the kind left as they are (cls::rbd::SnapshotNamespace; package ceph/rbd knows
// them).
//
//	struct v1 { u32 type; fields of the type }
type SnapNamespace struct {
	Type SnapNamespaceType
	Body []byte
}

// SnapNamespaceType is the kind of a snapshot (SnapshotNamespaceType).
type SnapNamespaceType uint32

// The kinds of snapshots.
const (
	SnapUser   SnapNamespaceType = 0
	SnapGroup  SnapNamespaceType = 1
	SnapTrash  SnapNamespaceType = 2 // of a removed snapshot that still has clones
	SnapMirror SnapNamespaceType = 3
)

// SnapCreate asks to create a snapshot.
type SnapCreate struct {
	Name      string
	Namespace SnapNamespace  // since version 5
	Request   AsyncRequestID // since version 7
	Flags     uint64         // since version 7; 1: no object map, 2: do not quiesce, 4: ignore errors of quiescing
}

// SnapRemove asks to remove a snapshot.
type SnapRemove struct {
	Name      string
	Namespace SnapNamespace  // since version 6
	Request   AsyncRequestID // since version 7
}

// SnapRename asks to rename the user snapshot with that id.
type SnapRename struct {
	SnapID    uint64
	Name      string         // the new one
	Namespace SnapNamespace  // since version 6
	Request   AsyncRequestID // since version 7
}

// SnapProtect asks to protect a snapshot from removal.
type SnapProtect struct {
	Name      string
	Namespace SnapNamespace  // since version 6
	Request   AsyncRequestID // since version 7
}

// SnapUnprotect asks to end that.
type SnapUnprotect struct {
	Name      string
	Namespace SnapNamespace  // since version 6
	Request   AsyncRequestID // since version 7
}

// RebuildObjectMap asks to rebuild the object maps.
type RebuildObjectMap struct{ Request AsyncRequestID }

// Rename asks to rename the image.
type Rename struct {
	Name    string
	Request AsyncRequestID // since version 7
}

// UpdateFeatures asks to enable or disable features.
type UpdateFeatures struct {
	Features uint64 // RBD_FEATURE_* bits
	Enabled  bool
	Request  AsyncRequestID // since version 7
}

// Migrate asks to copy the data of a live migration.
type Migrate struct{ Request AsyncRequestID }

// Sparsify asks to give back zeroed space.
type Sparsify struct {
	Request    AsyncRequestID
	SparseSize uint64 // bytes
}

// Quiesce asks everybody who uses the image to hold back writes; Response 0 when
// that is so.
type Quiesce struct{ Request AsyncRequestID }

// Unquiesce ends a Quiesce.
type Unquiesce struct{ Request AsyncRequestID }

// MetadataUpdate asks to set or remove an item of the image's metadata.
type MetadataUpdate struct {
	Key     string
	Value   *string // nil: remove
	Request AsyncRequestID
}

// Unknown is a notification of a newer Ceph.
type Unknown struct {
	Operation Op
	Raw       []byte // what follows the operation
}

// Op implements Payload.
func (AcquiredLock) Op() Op { return OpAcquiredLock }

// Op implements Payload.
func (ReleasedLock) Op() Op { return OpReleasedLock }

// Op implements Payload.
func (RequestLock) Op() Op { return OpRequestLock }

// Op implements Payload.
func (HeaderUpdate) Op() Op { return OpHeaderUpdate }

// Op implements Payload.
func (AsyncProgress) Op() Op { return OpAsyncProgress }

// Op implements Payload.
func (AsyncComplete) Op() Op { return OpAsyncComplete }

// Op implements Payload.
func (Flatten) Op() Op { return OpFlatten }

// Op implements Payload.
func (Resize) Op() Op { return OpResize }

// Op implements Payload.
func (SnapCreate) Op() Op { return OpSnapCreate }

// Op implements Payload.
func (SnapRemove) Op() Op { return OpSnapRemove }

// Op implements Payload.
func (SnapRename) Op() Op { return OpSnapRename }

// Op implements Payload.
func (SnapProtect) Op() Op { return OpSnapProtect }

// Op implements Payload.
func (SnapUnprotect) Op() Op { return OpSnapUnprotect }

// Op implements Payload.
func (RebuildObjectMap) Op() Op { return OpRebuildObjectMap }

// Op implements Payload.
func (Rename) Op() Op { return OpRename }

// Op implements Payload.
func (UpdateFeatures) Op() Op { return OpUpdateFeatures }

// Op implements Payload.
func (Migrate) Op() Op { return OpMigrate }

// Op implements Payload.
func (Sparsify) Op() Op { return OpSparsify }

// Op implements Payload.
func (Quiesce) Op() Op { return OpQuiesce }

// Op implements Payload.
func (Unquiesce) Op() Op { return OpUnquiesce }

// Op implements Payload.
func (MetadataUpdate) Op() Op { return OpMetadataUpdate }

// Op implements Payload.
func (p Unknown) Op() Op { return p.Operation }

// RequestID is the id under which a request's outcome is to be sent, if its
// requester wants that.
func RequestID(p Payload) (AsyncRequestID, bool) {
	var id AsyncRequestID
	switch p := p.(type) {
	case Flatten:
		id = p.Request
	case Resize:
		id = p.Request
	case SnapCreate:
		id = p.Request
	case SnapRemove:
		id = p.Request
	case SnapRename:
		id = p.Request
	case SnapProtect:
		id = p.Request
	case SnapUnprotect:
		id = p.Request
	case RebuildObjectMap:
		id = p.Request
	case Rename:
		id = p.Request
	case UpdateFeatures:
		id = p.Request
	case Migrate:
		id = p.Request
	case Sparsify:
		id = p.Request
	case MetadataUpdate:
		id = p.Request
	}
	return id, id.IsValid()
}

// Encode appends the namespace.
func (n SnapNamespace) Encode(e *encoding.Encoder) {
	e.Struct(1, 1, func(e *encoding.Encoder) {
		e.U32(uint32(n.Type))
		e.Raw(n.Body)
	})
}

func decodeSnapNamespace(d *encoding.Decoder) (n SnapNamespace) {
	d.Struct(1, func(d *encoding.Decoder, _ uint8) {
		n.Type = SnapNamespaceType(d.U32())
		if rest := d.Rest(); len(rest) > 0 {
			n.Body = append([]byte(nil), rest...)
		}
	})
	return n
}
