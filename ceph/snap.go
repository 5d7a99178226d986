// Package ceph holds the few types that every layer above the codecs shares.
// The formats themselves live in the packages below it.
package ceph

// SnapID is a RADOS self-managed snapshot id. The head is NoSnap.
type SnapID uint64

// NoSnap is the id that stands for the head of an object or image
// (CEPH_NOSNAP in src/include/rados.h).
const NoSnap SnapID = 0xfffffffffffffffe

// SnapContext goes with every data write: the newest snapshot id ever seen and
// the ids of the existing snapshots, newest first. The zero value means that the
// image has no snapshots.
type SnapContext struct {
	Seq   SnapID
	Snaps []SnapID
}
