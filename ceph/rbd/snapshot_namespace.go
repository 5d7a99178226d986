package rbd

import (
	"fmt"
	"maps"
	"slices"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// SnapshotKind numbers the kinds of snapshots (cls::rbd::SnapshotNamespaceType).
type SnapshotKind uint32

// The kinds of snapshots.
const (
	SnapshotUser   SnapshotKind = 0
	SnapshotGroup  SnapshotKind = 1
	SnapshotTrash  SnapshotKind = 2 // removed, but clones still need it
	SnapshotMirror SnapshotKind = 3 // of snapshot-based mirroring
)

// String is the kind as "rbd snap ls --all" names it.
func (k SnapshotKind) String() string {
	switch k {
	case SnapshotUser:
		return "user"
	case SnapshotGroup:
		return "group"
	case SnapshotTrash:
		return "trash"
	case SnapshotMirror:
		return "mirror"
	}
	return fmt.Sprintf("unknown (%d)", uint32(k))
}

// SnapshotNamespace says what a snapshot is for. It is one of UserSnapshot,
// GroupSnapshot, TrashSnapshot, MirrorSnapshot and UnknownSnapshot. Names of
// snapshots are unique within equal namespaces only.
type SnapshotNamespace interface {
	// Kind is the number that the variant is stored under.
	Kind() SnapshotKind
	encodeFields(e *encoding.Encoder)
}

// UserSnapshot is what "rbd snap create" makes.
type UserSnapshot struct{}

// GroupSnapshot belongs to a snapshot of a group of images.
type GroupSnapshot struct {
	Pool       int64 // of the group
	GroupID    string
	SnapshotID string // the group snapshot's id
}

// TrashSnapshot was removed by the user while clones still needed it.
type TrashSnapshot struct {
	OriginalName string
	OriginalKind SnapshotKind
}

// MirrorSnapshotState is the role of a mirror snapshot.
type MirrorSnapshotState uint8

// The states of mirror snapshots.
const (
	MirrorSnapshotPrimary           MirrorSnapshotState = 0
	MirrorSnapshotPrimaryDemoted    MirrorSnapshotState = 1
	MirrorSnapshotNonPrimary        MirrorSnapshotState = 2
	MirrorSnapshotNonPrimaryDemoted MirrorSnapshotState = 3
)

// MirrorSnapshot is a snapshot of snapshot-based mirroring. Journal-based mirroring
// never makes one, but an image may have had the other mode before.
type MirrorSnapshot struct {
	State             MirrorSnapshotState
	Complete          bool
	PeerUUIDs         []string // ascending
	PrimaryMirrorUUID string
	PrimarySnapID     ceph.SnapID // on a primary: the last snapshot without changes since
	LastCopiedObject  uint64
	SnapSeqs          map[ceph.SnapID]ceph.SnapID // remote to local
}

// UnknownSnapshot is of a kind that this code does not know.
type UnknownSnapshot struct {
	Type SnapshotKind
	Raw  []byte // its fields
}

// Kind is SnapshotUser.
func (UserSnapshot) Kind() SnapshotKind { return SnapshotUser }

// Kind is SnapshotGroup.
func (GroupSnapshot) Kind() SnapshotKind { return SnapshotGroup }

// Kind is SnapshotTrash.
func (TrashSnapshot) Kind() SnapshotKind { return SnapshotTrash }

// Kind is SnapshotMirror.
func (MirrorSnapshot) Kind() SnapshotKind { return SnapshotMirror }

// Kind is the number that was stored.
func (u UnknownSnapshot) Kind() SnapshotKind { return u.Type }

func (UserSnapshot) encodeFields(*encoding.Encoder) {}

func (g GroupSnapshot) encodeFields(e *encoding.Encoder) {
	e.I64(g.Pool)
	e.String(g.GroupID)
	e.String(g.SnapshotID)
}

func (t TrashSnapshot) encodeFields(e *encoding.Encoder) {
	e.String(t.OriginalName)
	e.U32(uint32(t.OriginalKind))
}

func (m MirrorSnapshot) encodeFields(e *encoding.Encoder) {
	e.U8(uint8(m.State))
	e.Bool(m.Complete)
	e.U32(uint32(len(m.PeerUUIDs)))
	for _, uuid := range m.PeerUUIDs {
		e.String(uuid)
	}
	e.String(m.PrimaryMirrorUUID)
	e.U64(uint64(m.PrimarySnapID))
	e.U64(m.LastCopiedObject)
	e.U32(uint32(len(m.SnapSeqs)))
	for _, id := range slices.Sorted(maps.Keys(m.SnapSeqs)) {
		e.U64(uint64(id))
		e.U64(uint64(m.SnapSeqs[id]))
	}
}

func (u UnknownSnapshot) encodeFields(e *encoding.Encoder) { e.Raw(u.Raw) }

// EncodeSnapshotNamespace appends a namespace (cls::rbd::SnapshotNamespace: a
// version-1 struct with the kind as u32 and the variant's fields). nil is encoded
// as UserSnapshot.
func EncodeSnapshotNamespace(e *encoding.Encoder, ns SnapshotNamespace) {
	if ns == nil {
		ns = UserSnapshot{}
	}
	e.Struct(1, 1, func(e *encoding.Encoder) {
		e.U32(uint32(ns.Kind()))
		ns.encodeFields(e)
	})
}

// ReadSnapshotNamespace reads what EncodeSnapshotNamespace writes. It also serves
// the codecs of other packages (journal events, notifications).
func ReadSnapshotNamespace(d *encoding.Decoder) (ns SnapshotNamespace) {
	d.Struct(1, func(d *encoding.Decoder, _ uint8) {
		ns = ReadSnapshotNamespaceFields(d, SnapshotKind(d.U32()))
	})
	if ns == nil {
		ns = UserSnapshot{}
	}
	return ns
}

// ReadSnapshotNamespaceFields reads the fields of a namespace whose kind was read
// already. An unknown kind takes all that is left in the innermost struct.
func ReadSnapshotNamespaceFields(d *encoding.Decoder, kind SnapshotKind) SnapshotNamespace {
	switch kind {
	case SnapshotUser:
		return UserSnapshot{}
	case SnapshotGroup:
		pool := d.I64()
		group := d.String()
		return GroupSnapshot{Pool: pool, GroupID: group, SnapshotID: d.String()}
	case SnapshotTrash:
		name := d.String()
		return TrashSnapshot{OriginalName: name, OriginalKind: SnapshotKind(d.U32())}
	case SnapshotMirror:
		return readMirrorSnapshot(d)
	}
	return UnknownSnapshot{Type: kind, Raw: slices.Clone(d.Rest())}
}

func readMirrorSnapshot(d *encoding.Decoder) (m MirrorSnapshot) {
	m.State = MirrorSnapshotState(d.U8())
	m.Complete = d.Bool()
	m.PeerUUIDs = readStrings(d)
	m.PrimaryMirrorUUID = d.String()
	m.PrimarySnapID = ceph.SnapID(d.U64())
	m.LastCopiedObject = d.U64()
	n := d.Count(16)
	m.SnapSeqs = make(map[ceph.SnapID]ceph.SnapID, n)
	for i := 0; i < n && d.Err() == nil; i++ {
		id := ceph.SnapID(d.U64())
		m.SnapSeqs[id] = ceph.SnapID(d.U64())
	}
	return m
}

// EncodeSnapshotNamespaceFields appends the variant's fields without its kind.
func EncodeSnapshotNamespaceFields(e *encoding.Encoder, ns SnapshotNamespace) { ns.encodeFields(e) }

// DecodeSnapshotNamespace reads a namespace from b.
func DecodeSnapshotNamespace(b []byte) (SnapshotNamespace, error) {
	return decode("rbd.SnapshotNamespace", b, ReadSnapshotNamespace)
}
