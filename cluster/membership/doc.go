// Package membership tells the worker processes of a site of each other, pool by pool,
// through RADOS alone: whoever may write the pool can be a member.
//
// # What is stored
//
// In the pool's default namespace, in the object rbd_warden_members:
//
//	lock  rbd_warden_member   shared, one locker for each member, cookie = its id
//	omap  member_<id>         the member's record, written when it changes
//	      beat_<id>           a counter, and the revision of the record
//	      fenced_<id>         a member that was declared dead, with its record
//
// The id is the instance id of the member's client, in decimal, as upstream's daemons
// are named in rbd_mirror_leader. Lock, record and beat come and go in one operation,
// and every beat asserts the lock in the operation that writes it: the OSD refuses the
// beat of a member that was removed. The lock also has the client's address from the
// OSD itself, which is what gets blocklisted.
//
// # Life of a member, as another one sees it
//
//	            joined                silent for TTL, or known to be dead
//	(nothing) ─────────▶ living ───────────────────────────────────────▶ dead
//	    ▲                  │  ▲                                           │ │
//	    │     left         │  └───────────────────────────────────────────┘ │ Fence
//	    └──────────────────┘                 a beat after all               ▼
//	    ▲                                                                fenced
//	    └───────────────────────────────────────────────────────────────────┘ FencedFor
//
// # Rules
//
//   - Silence is measured by the observer's own monotonic clock, between rounds in which
//     the observer's own beat got through. Clocks of hosts are never compared. An
//     observer that could not see, because RADOS did not answer or because it was itself
//     paused, begins to measure anew: a stall of the cluster kills nobody.
//   - What cannot be read changes nothing: the view is frozen and never shrinks.
//   - Death by silence is a suspicion. It becomes certain by Fence: the client's address
//     is on the blocklist, and the OSD map that says so is out, before the member's
//     record is gone and its entry as fenced is there.
//   - A member that was fenced or removed learns it from the first answer of RADOS and
//     calls Lost. Until that answer Group.Valid is false, for its lease has run out:
//     a process that was paused for longer than TTL finds it so when it asks.
//
// No exclusivity rests on any of this: who may write an image is decided by the image's
// lock and the blocklist (package image/lock).
package membership
