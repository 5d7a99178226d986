// Package bench measures mirroring daemons against each other: ours and Debian's rbd-mirror alternate on the same
// throwaway clusters, round after round, each with the same work from the same seed.
//
// make bench runs it. A Case is one kind of work ("drain/rand4k"); a Round of it is one daemon's turn, with a pool and
// images of its own, and gives a Sample: numbers by name. No number counts before the case has seen that both sites hold
// the same bytes: a turn that fails gives no sample, and fails the run.
//
// How each number is taken is said in docs/benchmarks.md, so that a sceptic can repeat it. What a reader must know of the
// code:
//
//   - Nothing of the product is linked in but codecs: clusters come from package lab, daemons are programs, images are
//     written through librbd, and what has arrived is read with librados from the secondary's data objects.
//   - The bench's own reads are counted and taken off what the OSDs have counted.
//   - Samples are written to a JSON file for each case as soon as they are there. A run that is interrupted keeps what it has,
//     and tables and plots are made from all files of a directory, whenever they were written.
package bench
