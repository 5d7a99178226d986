// Package mirror is the pool's side of RBD mirroring over the RADOS port: modes,
// mirror uuids and peers; the records of mirrored images; the notifications on
// rbd_mirroring; what a remote pool thinks of us; the statuses that "rbd mirror pool
// status" shows, and the service record beside them.
//
// A pool's records are in the object rbd_mirroring of each of its namespaces (see
// package ceph/mirror). The mirror uuid names a pool in a cluster to its peers; "rbd
// mirror pool enable" makes it, and a daemon only reads it.
//
// Functions here do what they say once, under the caller's context, and return the
// port's errors: retrying is the caller's business. The exception is StatusWriter,
// which is a small actor of its own.
//
// Sources of the facts: ceph/ceph src/tools/rbd_mirror/{ClusterWatcher,PoolReplayer,
// RemotePoolPoller,MirrorStatusUpdater,MirrorStatusWatcher,ServiceDaemon}.cc,
// src/librbd/api/Mirror.cc, src/librbd/MirroringWatcher.cc,
// src/librbd/mirror/{ImageStateUpdate,ImageRemove}Request.cc.
package mirror
