// Package sim simulates mirroring from one seed: two clusters in memory (rados/mem), a
// primary that writes its journal, workers that run the real image actors with their
// machine, journal, replay and image code, in virtual time (testing/synctest), and
// everything that may go wrong: operations that fail, are slow, or are performed and their
// answer lost; notifications that are lost, late or come twice; lost watches; full disks;
// workers that die, freeze and come back, are blocklisted, or start an image that another
// worker still runs; panics; and a forced promotion.
//
// After each operation on the clusters an oracle (oracle.go) looks whether the invariants
// of docs/architecture.md hold; when the trouble is over, every copy has to be equal to
// what its primary wrote, and its status has to say so.
//
// # What is drawn, and what makes a run repeatable
//
// The seed gives the shape of the run (settings.go), what happens and when (story.go), and
// of each single operation how long it takes and what becomes of it (faults.go). The last
// is drawn not in the order in which operations come, but from what the operation is (who,
// what, on which object, for the how manyeth time), and every operation ends at a
// nanosecond of its own. So goroutines that run between two such moments cannot change
// what happens by running in another order. Messages to actors wait in mailboxes of this
// package (mailbox.go) for the same reason; the actors in them are the real ones, and their
// supervisor here follows supervision.Strategy as their pool does.
//
// TestSeedRepeats runs seeds twice and compares the traces.
package sim
