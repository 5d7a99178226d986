package journal

import "github.com/rbdwarden/rbdwarden/ceph/encoding"

// SnapshotNamespaceType is what a snapshot is for (cls::rbd::SnapshotNamespaceType).
type SnapshotNamespaceType uint32

// The kinds of snapshots.
const (
	UserSnapshot   SnapshotNamespaceType = 0
	GroupSnapshot  SnapshotNamespaceType = 1
	TrashSnapshot  SnapshotNamespaceType = 2
	MirrorSnapshot SnapshotNamespaceType = 3
)

// SnapshotNamespace is the namespace of a snapshot as the journal stores it. The
// fields of the kinds other than UserSnapshot are kept encoded: the journal only
// passes them on, package ceph/rbd knows them. The zero value is a user snapshot.
//
//	struct version 1, oldest reader 1
//	  u32 type
//	  fields of that type
//
// Source: ceph/ceph src/cls/rbd/cls_rbd_types.cc.
type SnapshotNamespace struct {
	Type SnapshotNamespaceType
	Raw  []byte // the fields behind the type, shares the decoded buffer's memory
}

// Encode appends n.
func (n SnapshotNamespace) Encode(e *encoding.Encoder) {
	e.Struct(1, 1, func(e *encoding.Encoder) {
		e.U32(uint32(n.Type))
		e.Raw(n.Raw)
	})
}

// Decode reads n; errors are in d.
func (n *SnapshotNamespace) Decode(d *encoding.Decoder) {
	d.Struct(1, func(d *encoding.Decoder, _ uint8) {
		n.Type, n.Raw = SnapshotNamespaceType(d.U32()), nil
		if d.Remaining() > 0 {
			n.Raw = d.Rest()
		}
	})
}
