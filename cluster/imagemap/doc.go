// Package imagemap keeps who runs which image: the image map of a pool or namespace,
// in the omap of its object rbd_mirror_leader, in the format of Ceph's rbd-mirror.
//
//	omap  image_map_GLOBALID            ImageMap; PolicyData inside, with our Entry's extras
//	      rbd_warden_map_delta_%016x    which images the write that led to that epoch changed
//	xattr rbd_warden_map_epoch          decimal number, one more with each write of ours
//
// Only the pool's leader writes it, and only through a Term. It keeps two invariants:
//
//   - A write lands only while the leader's lock is held: the lock's assertion is in the
//     same RADOS operation (ErrNotLeader otherwise, from the OSD).
//   - A write lands only on the map that it was decided on: the epoch is compared and
//     raised in the same operation (ErrStale otherwise). So neither a write that was
//     given up and lands late, nor one that was decided on an old map, undoes a newer.
//
// Everybody else reads. View.Refresh costs one small read while nothing changes, and
// else the entries that changed. What it shows may be newer than its epoch, never
// older, entry by entry; nothing relates one entry to another, so that is enough. The
// map never makes an owner exclusive: that is the image's exclusive lock.
//
// rbd-mirror reads and writes the same entries and ignores the rest: it lists only keys
// with the prefix image_map_, and does not look into the policy data. What it changes it
// does not count in the epoch. Therefore a leader's term begins with a full read and an
// epoch without a delta, upon which every view reads the whole map.
//
// Sources of the facts: ceph/ceph src/cls/rbd/cls_rbd.cc (mirror_image_map_list and
// _update), src/tools/rbd_mirror/image_map/{LoadRequest,UpdateRequest,Types}.cc,
// src/cls/lock/cls_lock.cc (assert_locked answers EBUSY).
package imagemap
