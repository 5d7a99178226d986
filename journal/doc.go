// Package journal works with the journals of RBD images over a rados.IOContext:
// metadata, clients and tags (Journal), reading entries in order as they are
// written (Tailer), trimming, and printing (Dump). Package replay turns "safe up to
// here" into the commit position that every journal client understands.
//
// # How a tail is read
//
//	            commit position        header: active set, minimum set, next tag
//	                  │                          │
//	data objects → objectReader (one a splay offset) → merge (pure) → Next
//
// Entry e of a tag lies at splay offset e mod width, so there is always one place
// where the next entry is due; that object alone is polled. An object of a set
// below the active set is final: once it has been read to its end after the
// active set was seen beyond it, the reader of that offset goes on to the next
// set. A tag is over when an entry of a newer tag lies where the next entry was
// due, or when a newer tag exists and the due place, read after that was known,
// is still empty; what is left of the older tag is dropped then, and reported.
// Everything else that does not follow on is an error that names the object and
// the offset.
//
// Package ceph/journal has the formats; it is imported as wire here.
//
// Sources of the facts: ceph/ceph src/journal/{JournalPlayer,ObjectPlayer,
// JournalMetadata,JournalTrimmer,Journaler}.cc.
package journal
