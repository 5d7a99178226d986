// Package mem is a Ceph cluster in memory behind the rados port, for tests and
// simulation of everything above it.
//
// A Store is a cluster: pools of objects with data, attributes, omap, clones of
// self-managed snapshots, locks and watches; a Client is a connection to it. The
// methods of the object classes that this program calls (lock, journal, rbd) are
// implemented in Go, in class_*.go, from the facts in ceph/ceph src/cls.
//
// # Faults
//
// Every operation is shown to Options.Faults, which can delay it, fail it, perform
// it and lose the answer, or end its client ("crash"). Chaos does so at random from
// a seed. Operations of one I/O context on one object keep their order whatever the
// delays; on different objects they overtake each other. Time is the time package's,
// so that a test inside testing/synctest runs at once and in a fixed order.
//
// # What is as on an OSD, and what is not
//
//   - An operation's steps see the object as it was before the operation, except its
//     existence and size: also class methods do. So a class method does not see what
//     an earlier one of the same operation has written.
//   - The first write under a newer snapshot context makes a clone; reads at a
//     snapshot find the clone that has it. Removing a snapshot id trims at once.
//   - Locks are not visible as attributes, and of an operation's steps only one may
//     change locks.
//   - A watch of a crashed client goes away after its timeout.
//   - Allocation is in pages: sparse reads tell pages that were written.
package mem
