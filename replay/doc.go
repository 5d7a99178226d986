// Package replay decides how the entries of a primary image's journal are applied
// to the local image: in which batches, behind which barriers, and how far the
// commit position may move. It is pure: no I/O, no clock, no randomness.
//
// # The caller's contract
//
//	Push(entry) ──► queue ──► plan ──► Next() ──► caller performs it ──► Safe(id)
//	                  ▲                  │                                 │
//	        Outcome, NoOutcome ◄── NeedOutcome                Position()
//
// The caller pushes every entry in the journal's order, performs the steps that
// Next gives, and says Safe when a step's effect is durable in the local image. Next
// gives a step only when it may start: several steps can be under way at once, and
// may end in any order, only where the order does not matter. A step that fails ends
// the replay: drop the planner and start a new one from the commit position.
//
// # Order
//
//   - Writes, discards and write-sames between two flushes form an epoch. Nothing of
//     an epoch starts before all of the epoch before it is safe, so the local image
//     is always a state that a power cut could have left on the primary.
//   - A compare-and-write is not idempotent when its surroundings are replayed with
//     it, so a Checkpoint step stands on both sides of it.
//   - An operation (snapshot, resize ...) is journalled as an event, and later an
//     OpFinish with its result. It is applied only if the result says that it
//     happened on the primary, or if a newer tag shows that the primary's own replay
//     has completed it. A Checkpoint follows each, so that replay from any commit
//     position meets no operation but the last again.
//
// When an operation takes effect:
//
//	kind                      place        I/O between its event and its OpFinish
//	snap create, resize       its event    belongs behind it: held until the outcome
//	                                       is known
//	snap rollback             its OpFinish belongs before it: goes on
//	all others                its OpFinish, commutes with it: goes on
//	                          or earlier
//
// librbd blocks writes before it journals the first kind and lets them go on before
// it journals the OpFinish; for rollback it blocks them after the event and until the
// OpFinish is journalled. Sources: ceph/ceph src/librbd/journal/Replay.cc,
// src/librbd/operation/{Request,SnapshotCreateRequest,ResizeRequest,
// SnapshotRollbackRequest}.cc, src/tools/rbd_mirror/image_replayer/journal/Replayer.cc.
//
// Operations whose OpFinish is outstanding pin the commit position before their
// event. A compare-and-write, a snap create or a resize behind one waits for its
// outcome; then the pending one is applied first. (rbd-mirror lets them overtake;
// after a crash it then replays them on an image that already has their successors.)
//
// # What the image has already
//
// A copy is made at a sync point, and the position then lies before operations that were
// under way there (Cover finds them). Up to the sync point's event nothing else is done
// again (Config.Covered): a compare-and-write would not come out as it did, a snapshot not
// have in it what it had. What was under way takes effect behind it, as if its event were
// there: what it had done by then, snapshots it had taken among it, is in the copy, and
// nothing that it keeps waiting was written before it had done it.
//
// # Memory
//
// Held tells the bytes of payload that the planner and unfinished steps hold; the
// caller stops reading the journal while Full, and says Tight when it cannot read because
// others use the memory that they share. If the planner is full and waits for
// an outcome, it gives a NeedOutcome step: the caller looks ahead in the journal
// without keeping payloads and answers with Outcome or NoOutcome.
package replay
