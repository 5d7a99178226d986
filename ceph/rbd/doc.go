// Package rbd knows the RBD v2 image format: the names of its objects and keys,
// the records in them, and the calls of the object class "rbd" that read and
// change them. Nothing here does I/O: a call is a class.Call or class.Query that
// package rados carries.
//
// An image NAME with id ID in a pool (and RADOS namespace) is
//
//	rbd_id.NAME                  data: string, the id
//	rbd_directory                omap: name_NAME -> ID, id_ID -> NAME
//	rbd_header.ID                omap: size, order, features, snapshots ... (see Header)
//	rbd_object_map.ID            data: two bits for each data object (see ObjectMap)
//	rbd_object_map.ID.SNAP       the same at a snapshot, SNAP as 16 hex digits
//	rbd_data.ID.NUMBER           data objects, NUMBER as 16 hex digits
//	rbd_children                 omap: old-style clones of parents
//	rbd_trash                    omap: id_ID -> TrashSpec
//	rbd_namespace                omap: namespaces of the pool (default namespace only)
//	rbd_info                     the pool's metadata and validation mark
//
// With a separate data pool the data objects are rbd_data.POOL.ID.NUMBER in that
// pool, POOL being the decimal id of the pool that has the header.
//
// Beware of two calls in one write operation that are about the same record, for
// example SnapshotRename and SetProtection: each reads the record as it was before the
// operation, so the second one undoes what the first has done. Calls about different
// keys go together well.
//
// Sources of the facts: ceph/ceph src/include/rbd_types.h, src/cls/rbd/cls_rbd.cc,
// src/cls/rbd/cls_rbd.h, src/cls/rbd/cls_rbd_client.cc, src/cls/rbd/cls_rbd_types.cc.
package rbd
