// Package placement decides which member runs which image. It is pure: members, images
// and the time go in, the assignments to write come out; the same input gives the same
// decision, in whatever order it is listed.
//
//	Decide:  whose owner lives ── stays
//	         owner's seat taken by a new worker ── the heir gets it        (Inherited)
//	         owner dead, its daemon alive ── waits a moment for the heir   (Waiting)
//	         owner dead or gone ── to the others                           (Failover)
//	         no owner ── to whoever has the fewest                         (Placed)
//	         pinned by a command ── to that seat                           (Pinned)
//	         owner draining ── away, some at a time                        (Drained)
//	         owner cut off from the primary ── likewise                    (CutOff)
//	         counts uneven ── from those above their share to those below  (Evened)
//	         loads uneven ── exchanged between the hottest and the coldest (Cooled)
//
// A member's share of the images is proportional to its weight, rounded down or up; who
// is above already keeps what rounding leaves, so that the moves are the fewest that make
// it even. The last four are done some at a time (Options.UpdateThrottle), the last two
// never to an image that was moved for one of these two within Options.MigrationThrottle
// (after a death, a drain or a restart the counts are even again at once; and while somebody
// has less than half of its share, a tenth of that time is enough), and the last one only where it takes a good deal off the hottest member: with equal input, deciding
// again moves nothing.
//
// Invariants: while a member lives, no image is left without one but those that wait for
// an heir, for at most Options.HeirGrace. Who is dead or superseded gets none; nor does
// who drains or does not reach the primary's cluster, but where all are of those, which is better than nobody.
//
// What the policies of Ceph's rbd-mirror do is in ceph/ceph
// src/tools/rbd_mirror/image_map/{Policy,SimplePolicy}.cc and ImageMap.cc: "simple"
// evens out the counts when an instance joins (and, if asked, when nothing has happened
// for a while); with "none" other instances are never told to the policy, so that the
// leader runs everything.
package placement
