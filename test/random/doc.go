// Package random is the randomised test of the daemon: two sites with a daemon each, a dozen images of all makes in several
// pools and namespaces, operations of every kind on them, faults of every kind beside them, and failovers, from one seed.
//
//	round:   families operate side by side ‖ faults on daemons and clusters
//	settle:  nothing is written, every process runs ─▶ all images are equal to the model, on both sites
//	move:    some families fail over (orderly, or by force with a re-sync) ‖ faults ─▶ equal again
//	end:     daemons are stopped in good order ─▶ no locks, no blocklist entries of theirs, no object without an image
//
// A Family is an image and all that comes of it by cloning; it is on one site at a time, has one goroutine and one stream
// of random numbers, and knows what each of its images must be: names, sizes, snapshots, metadata, features, contents.
// What it does next is a pure function of its stream and of that knowledge (Family.Next), so the seed repeats the
// sequence of operations; how they fall between the daemon's own steps is up to the machine.
package random
