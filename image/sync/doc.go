// Package imagesync makes the first copy of a remote image, or brings one that
// went astray back in place (see inplace.go): its user snapshots up to the sync point,
// with the history of every object between them, and the head.
//
// A sync point is a snapshot of the remote image, made for this purpose and named
// ".rbd-mirror.<our pool's mirror uuid>.<random uuid>". What comes after it is in the
// remote journal and is replayed later, the removal of the sync point included: that
// is why the sync point is copied like any other snapshot.
//
//	prune → create sync point → copy snapshots → copy objects → flush → prune
//	          (if none is left)                    ▲      │
//	                                               └──────┘ checkpoint every so often
//
// The steps and what they leave in the remote journal's client record are those of
// rbd-mirror (src/tools/rbd_mirror/ImageSync.cc, image_sync/, src/librbd/deep_copy/),
// so that either may go on where the other has stopped.
//
// An object's history is a list of states, one a snapshot. It is written from the
// oldest state to the newest, each with a snapshot context that holds only the older
// snapshots; so the OSD keeps the state before as that of the older snapshot. Doing
// it again, from the start, over whatever an interrupted attempt has left gives the
// same bytes: a context that the object has seen before makes no new clone, and the
// first state replaces the whole object.
package imagesync
