// Package lock holds the exclusive lock of a local image in the form that librbd
// respects, and fences whoever held it and died.
//
// # What other clients look at
//
// The lock is the cls_lock "rbd_lock" on the image's header, type exclusive, tag
// "internal", cookie "auto <handle>", where the handle is that of a watch which
// the owner keeps on the header. A client that finds the lock taken looks for that
// watch. If it is there, the owner lives and is asked to release the lock, by a
// notification. If it is gone, the owner is dead: its address is blocklisted, so
// that nothing it still sends can land, and the lock is broken.
//
// # Life of a lock
//
//	           Acquire
//	              │
//	┌──────────► held ───────────────► releasing ────► released
//	│             │  watch ended,          ▲   Release
//	│ watch and   │  or not confirmed      │
//	│ cookie      ▼  for too long          │
//	└───────── suspended ──────────────────┤
//	              │ taken by another,      │
//	              │ blocklisted, no luck   │
//	              ▼ in time                │
//	             lost ─────────────────────┘
//
// Only in the state held may the owner start writes. It hears of every change of
// state through its Policy before the Lock does anything else, and Valid is false
// before it hears of it.
//
// # What protects the data
//
// Valid is good manners: a process may be paused between asking and writing. What
// holds in spite of that is the blocklist. Nobody takes the lock of a client that
// vanished without having made the OSDs refuse that client first, so a late write
// of a paused owner is refused with ESHUTDOWN (rados.Blocklisted). Writes to
// metadata objects that carry the lock should also have AssertLocked as their
// first step; then they fail when the lock has been taken away without a
// blocklist ("rbd lock remove" with blocklisting turned off).
//
// One stale owner cannot be fenced: an earlier Lock of this same connection, whose
// watch is gone (its actor crashed). To blocklist it would be to blocklist
// ourselves. Its lock is adopted instead, by changing the cookie. That is safe for
// data because all operations of one connection on one object are applied in the
// order in which they were sent: what the crashed actor has sent lands before
// what its successor sends to the same object.
//
// Source of the facts: ceph/ceph src/librbd/ManagedLock.cc, src/librbd/managed_lock/*,
// src/librbd/ExclusiveLock.cc, src/librbd/ImageWatcher.cc, src/librbd/Watcher.cc,
// src/tools/rbd_mirror/image_replayer/OpenLocalImageRequest.cc.
package lock
