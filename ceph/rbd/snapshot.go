package rbd

import (
	"time"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// Calls about snapshots, on rbd_header.<id>. Sources: src/cls/rbd/cls_rbd.cc,
// src/cls/rbd/cls_rbd_client.cc, src/cls/rbd/cls_rbd_types.cc.

// SnapshotInfo describes a snapshot (cls::rbd::SnapshotInfo).
type SnapshotInfo struct {
	ID         ceph.SnapID
	Namespace  SnapshotNamespace
	Name       string
	ImageSize  uint64 // bytes
	Timestamp  time.Time
	ChildCount uint32 // clones of format 2 that hang on it
}

// Encode appends the record.
func (s SnapshotInfo) Encode(e *encoding.Encoder) {
	e.Struct(1, 1, func(e *encoding.Encoder) {
		e.U64(uint64(s.ID))
		EncodeSnapshotNamespace(e, s.Namespace)
		e.String(s.Name)
		e.U64(s.ImageSize)
		e.Time(s.Timestamp)
		e.U32(s.ChildCount)
	})
}

func readSnapshotInfo(d *encoding.Decoder) (s SnapshotInfo) {
	d.Struct(1, func(d *encoding.Decoder, _ uint8) {
		s.ID = ceph.SnapID(d.U64())
		s.Namespace = ReadSnapshotNamespace(d)
		s.Name = d.String()
		s.ImageSize = d.U64()
		s.Timestamp = d.Time()
		s.ChildCount = d.U32()
	})
	return s
}

// DecodeSnapshotInfo reads the record.
func DecodeSnapshotInfo(b []byte) (SnapshotInfo, error) {
	return decode("rbd.SnapshotInfo", b, readSnapshotInfo)
}

// GetSnapContext asks for the newest snapshot id and the existing ones, newest first.
func GetSnapContext() class.Query[ceph.SnapContext] {
	return query("get_snapcontext", nil, readSnapContext)
}

func readSnapContext(d *encoding.Decoder) ceph.SnapContext {
	c := ceph.SnapContext{Seq: ceph.SnapID(d.U64())}
	n := d.Count(8)
	for i := 0; i < n && d.Err() == nil; i++ {
		id := ceph.SnapID(d.U64())
		// The same validity as SnapContext::is_valid in src/common/snap_types.cc:
		// data writes with anything else would damage snapshots.
		if id > c.Seq || (i > 0 && id >= c.Snaps[i-1]) {
			d.Fail("snapshot %d out of order in a context of sequence %d", id, c.Seq)
			break
		}
		c.Snaps = append(c.Snaps, id)
	}
	return c
}

// SnapshotGet asks for one snapshot; ENOENT if there is none.
func SnapshotGet(id ceph.SnapID) class.Query[SnapshotInfo] {
	return query("snapshot_get", snapInput(id), readSnapshotInfo)
}

// SnapshotName asks for a snapshot's name alone.
func SnapshotName(id ceph.SnapID) class.Query[string] {
	return query("get_snapshot_name", snapInput(id), readText)
}

// SnapshotTimestamp asks for a snapshot's time of creation alone.
func SnapshotTimestamp(id ceph.SnapID) class.Query[time.Time] {
	return query("get_snapshot_timestamp", snapInput(id), (*encoding.Decoder).Time)
}

// SnapshotAdd records a snapshot of the head as it is: its size, flags and parent
// overlap are copied, the time is the OSD's. The id must come from
// rados.IOContext.CreateSnapID: ESTALE if it is below the newest one (allocate
// another and try again), EEXIST if the name or id is there already, EDQUOT over
// the limit.
func SnapshotAdd(id ceph.SnapID, name string, ns SnapshotNamespace) class.Call {
	return call("snapshot_add", func(e *encoding.Encoder) {
		e.String(name)
		e.U64(uint64(id))
		EncodeSnapshotNamespace(e, ns)
	})
}

// SnapshotRemove deletes the record: ENOENT if there is none, EBUSY if it is
// protected or has clones.
func SnapshotRemove(id ceph.SnapID) class.Call { return call("snapshot_remove", snapInput(id)) }

// SnapshotRename renames a user snapshot: EEXIST if the name is taken, EINVAL if it
// is of another kind.
func SnapshotRename(id ceph.SnapID, name string) class.Call {
	return call("snapshot_rename", func(e *encoding.Encoder) {
		e.U64(uint64(id))
		e.String(name)
	})
}

// SnapshotTrashAdd turns a snapshot that still has clones into a TrashSnapshot with
// a random name.
func SnapshotTrashAdd(id ceph.SnapID) class.Call { return call("snapshot_trash_add", snapInput(id)) }

// Protection says whether a snapshot may be removed; old-style clones need a
// protected one (src/include/rbd_types.h).
type Protection uint8

// The states of protection.
const (
	Unprotected  Protection = 0
	Unprotecting Protection = 1
	Protected    Protection = 2
)

// String is the state in librbd's words.
func (p Protection) String() string {
	switch p {
	case Unprotected:
		return "unprotected"
	case Unprotecting:
		return "unprotecting"
	case Protected:
		return "protected"
	}
	return "unknown"
}

// GetProtection asks for a snapshot's protection.
func GetProtection(id ceph.SnapID) class.Query[Protection] {
	return query("get_protection_status", snapInput(id), func(d *encoding.Decoder) Protection { return Protection(d.U8()) })
}

// SetProtection changes a snapshot's protection; ENOEXEC without FeatureLayering.
func SetProtection(id ceph.SnapID, p Protection) class.Call {
	return call("set_protection_status", func(e *encoding.Encoder) {
		e.U64(uint64(id))
		e.U8(uint8(p))
	})
}

// NoSnapshotLimit is the limit of images without one.
const NoSnapshotLimit = ^uint64(0)

// SnapshotGetLimit asks how many snapshots the image may have.
func SnapshotGetLimit() class.Query[uint64] { return query("snapshot_get_limit", nil, readU64) }

// SnapshotSetLimit changes how many snapshots the image may have; ERANGE if there
// are more already.
func SnapshotSetLimit(limit uint64) class.Call {
	return call("snapshot_set_limit", func(e *encoding.Encoder) { e.U64(limit) })
}

// SnapSeqCondition is what AssertSnapSeq asserts of a data object.
type SnapSeqCondition uint8

// The conditions.
const (
	// SnapSeqAbove: the sequence is above the newest snapshot that the object has
	// seen, or the object does not exist.
	SnapSeqAbove SnapSeqCondition = 0
	// SnapSeqNotAbove is the contrary.
	SnapSeqNotAbove SnapSeqCondition = 1
)

// AssertSnapSeq fails an operation on a data object with ERANGE unless the
// condition holds.
func AssertSnapSeq(seq ceph.SnapID, c SnapSeqCondition) class.Call {
	return call("assert_snapc_seq", func(e *encoding.Encoder) {
		e.U64(uint64(seq))
		e.U8(uint8(c))
	})
}
