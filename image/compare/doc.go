// Package compare tells whether two images, each of its own cluster, have the same
// contents, by checksums that the OSDs compute: what travels is about a thousandth of
// the data, and data itself only where a checksum cannot decide.
//
// Contents are what a reader of the image would see. Holes, zeros, a short object and no
// object at all are the same; where a clone has no object of its own, the parent's
// counts, as far as the overlap goes; what lies behind the image's end does not count.
//
//	object   ├──────────────── coarse chunks: 64 KiB ────────────────┤
//	                 differs ─▶ ├ fine chunks: 4 KiB ┤ ─▶ differing extents
//
// Two chunks are taken for equal if their XXH64 is. The seed is random for every
// Comparer, so chunks that differ are taken for equal with a probability of 2^-64, and
// a second comparison throws the dice anew: if all of the 2.7 billion fine chunks of 10 TiB
// differed, one would be missed in one of 7 billion comparisons. XXH64 does not withstand
// somebody who makes collisions on purpose; whoever writes the primary's data can thus at
// most hide a difference in a copy of his own data.
//
// Nothing here writes.
package compare
