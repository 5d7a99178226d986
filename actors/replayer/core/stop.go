package core

import (
	"fmt"

	"github.com/rbdwarden/rbdwarden/rados"
)

// StopReason says why an image stopped; the actor decides from it when to try again.
type StopReason uint8

// The reasons for being in STOPPED.
const (
	NeverStarted StopReason = iota
	StopRequested
	LocalIsPrimary
	LocalDisabling // somebody is ending the local image's mirroring
	RemoteNotPrimary
	RemoteGone    // the remote image is not mirrored any more
	RemoteMissing // the remote site never had, or lost, an image that we keep
	NothingToDo   // neither side has the image: the actor can go
	SplitBrained  // histories parted; an operator has to decide
	ResyncWanted  // an operator asked for a re-sync
	PeerDisconnected
	EntriesMissed  // the remote journal may have dropped entries before it knew us
	Removing       // a removal of the local copy was interrupted and goes on
	RemoteDemoted  // replayed up to the demotion
	ForcePromoted  // an operator promoted the local image while we replayed
	LockWasLost    // somebody else owns the local image now, or our watch ended
	NoProgress     // it did not get on, and was stopped by its watchdog
	WrongPeerImage // our client in the remote journal belongs to another local image
	Unsupported    // a kind of image or mirroring that is not handled
	EffectFailed   // see Err and Class
	// AwaitingImage: another image has to get on first: a clone's parent, or the clones
	// of a snapshot that is to be unprotected.
	AwaitingImage
	AwaitingOperator // the same, but that will not happen by itself
)

var stopNames = [...]string{
	NeverStarted: "never started", StopRequested: "stop requested", LocalIsPrimary: "local image is primary", LocalDisabling: "local image is being disabled",
	RemoteNotPrimary: "remote image is not primary", RemoteGone: "remote image no longer exists",
	RemoteMissing: "remote image missing", NothingToDo: "mirror image no longer exists", SplitBrained: "split-brain", ResyncWanted: "resync requested",
	PeerDisconnected: "disconnected", EntriesMissed: "entries missed", Removing: "removing the local image", RemoteDemoted: "remote image demoted", ForcePromoted: "force promoted",
	LockWasLost: "lost exclusive lock", NoProgress: "no progress", WrongPeerImage: "wrong peer image", Unsupported: "unsupported", EffectFailed: "failed",
	AwaitingImage: "waiting for another image", AwaitingOperator: "waiting for an operator",
}

func (r StopReason) String() string {
	if int(r) < len(stopNames) {
		return stopNames[r]
	}
	return fmt.Sprintf("StopReason(%d)", uint8(r))
}

// StopCause is the whole story of why an image stopped.
type StopCause struct {
	Reason StopReason
	Text   string      // for the status; in rbd-mirror's words where it has some
	In     State       // where the image was
	Class  rados.Class // valid for EffectFailed
	Err    error       // valid for EffectFailed, LockWasLost and Awaiting...
	// Remove says that the local copy has to go. It is decided in the bootstrap only,
	// from what both sites say at that moment: the primary was removed, or a new copy
	// was asked for and there is a primary to copy.
	Remove bool
}

// IsError tells whether the status should say "error" rather than "stopped".
func (c StopCause) IsError() bool {
	switch c.Reason {
	case SplitBrained, PeerDisconnected, EntriesMissed, LockWasLost, NoProgress, EffectFailed, WrongPeerImage, Unsupported, RemoteMissing,
		AwaitingOperator:
		return true
	}
	return false
}

// worthCommitting tells whether the way out includes a last commit. Not where the
// remote cluster may be away (the local image would stay locked meanwhile, although
// an operator may be promoting it), nor where our ownership is in doubt. What is not
// committed is replayed again, which changes nothing.
func (c StopCause) worthCommitting() bool {
	switch c.Reason {
	case StopRequested, AwaitingImage:
		return true
	case EffectFailed:
		return c.Class == rados.Corrupt || c.Class == rados.Permanent
	}
	return false
}
