// Package journal holds the formats of RBD's journal: what is stored in the
// journal's header object and in its data objects, and the calls of the object
// class that keeps the header. Nothing here does I/O.
//
// # Objects
//
//	journal.<image id>                          the header, kept by cls_journal (omap)
//	journal_data.<pool id>.<image id>.<number>  entries, appended
//
// The pool id in a data object's name is the header's pool, even where the
// objects themselves live in another one. Data objects are numbered from 0; with
// a splay width of W, object set s is the objects s*W ... s*W+W-1. Entry e of a
// tag goes to the object of the active set at splay offset e mod W.
//
// # An entry, as it lies in a data object
//
//	u64 preamble 0x3141592653589793
//	u8  version 1
//	u64 entry tid        counts from 0 in each tag
//	u64 tag tid
//	u32 length, payload  an EventEntry, for RBD
//	u32 crc32c of everything before it, seed 0, not inverted
//
// Behind an append the OSD may pad with zeros up to its allocation unit; entries
// begin at multiples of 8 then. See Padding.
//
// # An event, as it is in an entry's payload
//
//	struct version 5, oldest reader 1
//	  u32 type
//	  fields of that type
//	struct version 1, oldest reader 1     (since version 4 of the first)
//	  utime timestamp
//
// Sources of the facts: ceph/ceph src/journal/Entry.cc, src/journal/ObjectPlayer.cc,
// src/journal/Journaler.cc, src/librbd/journal/Types.{h,cc}, src/cls/journal/*.
package journal
