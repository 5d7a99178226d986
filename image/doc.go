// Package image is the local side of a mirrored RBD image: it creates and
// removes non-primary images, opens them under the exclusive lock, and writes
// their data, object map, snapshots and header in the order in which librbd
// does, so that librbd finds nothing amiss at any moment.
//
// An image of format 2 lives in these objects (facts: ceph/ceph
// src/include/rbd_types.h, src/cls/rbd/cls_rbd.cc):
//
//	rbd_directory            name ↔ id of every image of the pool
//	rbd_id.<name>            the id of that name
//	rbd_header.<id>          size, features, snapshots, ... ; watch, exclusive lock
//	rbd_object_map.<id>      two bits a data object: does it exist, changed since
//	                         the last snapshot; .<snap id in hex> for a snapshot's
//	journal.<id>             the local journal (of a non-primary image: tags only)
//	rbd_data.<id>.<object number in 16 hex digits>   the bytes
//	rbd_mirroring            the image's mirror record
//
// A clone lacks objects that it shares with its parent: Reader reads through it to the
// parent, copyup.go brings an object's share over before the object is written, and
// Flatten does so for all.
//
// The caller's contract: one Image has one owner, which calls Apply and the
// operations one after the other. The package checks before every write that the
// exclusive lock still holds; it never writes after it was lost.
package image
