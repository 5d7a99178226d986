package core

import (
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/replay"
)

// Effect is something that the core wants done. The actor performs it outside its
// mailbox and sends the result back as a Msg; every effect is answered exactly
// once, by its result or by Failed, even when it is cancelled. The exceptions are
// After, which is answered by its message or never, Cancel, and Publish.
type Effect interface{ effect() }

// Effects of the bootstrap, each answered by the message in its comment.
type (
	// PrepareLocal looks the local image up by its global id. LocalPrepared.
	PrepareLocal struct{}
	// PrepareRemote looks the remote image up by its global id. RemotePrepared.
	PrepareRemote struct{}
	// ReadRemoteClients reads the remote journal's image client and ours.
	// RemoteClientsRead.
	ReadRemoteClients struct{ RemoteImageID string }
	// OpenRemote reads the remote image's header. RemoteOpened.
	OpenRemote struct{ RemoteImageID string }
	// UnregisterPeer removes our client from the remote journal; one that is not
	// there is no error. ClientUnregistered.
	UnregisterPeer struct{ RemoteImageID string }
	// RegisterPeer registers our client with the remote journal. A NewImageID asks
	// for a fresh local image id in Meta. ClientRegistered.
	RegisterPeer struct {
		RemoteImageID string
		Meta          journal.MirrorPeerClientMeta
		NewImageID    bool
	}
	// UpdatePeer replaces our client's data in the remote journal. ClientUpdated.
	UpdatePeer struct {
		RemoteImageID string
		Meta          journal.MirrorPeerClientMeta
		NewImageID    bool
	}
	// CreateLocal creates the local image as a non-primary copy, or completes a
	// half-made one. LocalCreated or LocalImageIDTaken.
	CreateLocal struct{ ImageID string }
	// OpenLocal opens the local image and takes its exclusive lock. LocalOpened.
	OpenLocal struct{ ImageID string }
	// StartResync looks whether the local copy can be kept, and if so prepares both sites
	// for a sync in place: whoever comes next knows that the copy is not complete.
	// ResyncBegun.
	StartResync struct{ RemoteImageID string }
	// FinishResync takes the request to re-sync back. ResyncEnded.
	FinishResync struct{}
	// ReadRemoteTags reads the remote journal's tags. RemoteTagsRead.
	ReadRemoteTags struct {
		RemoteImageID string
		Class         journal.TagClass
	}
	// Sync copies the remote image; SyncProgressed on the way. Synced.
	Sync struct {
		RemoteImageID string
		Meta          journal.MirrorPeerClientMeta
		// InPlace keeps what is right of the local copy, and copies what differs.
		InPlace bool
		// TrustMap says that no sync of the copy was interrupted before.
		TrustMap bool
	}
	// CloseRemote lets go of what OpenRemote and Sync hold. RemoteClosed.
	CloseRemote struct{}
)

// Effects of the replay.
type (
	// InitJournaler opens the remote journal and watches it. JournalerReady.
	InitJournaler struct{ RemoteImageID string }
	// StartTailing looks once more whether the local image was promoted meanwhile,
	// and places the reader behind our commit position. ReplayStarted.
	StartTailing struct{}
	// ReadEntries waits until there are entries and reads up to MaxBytes of them.
	// EntriesRead.
	ReadEntries struct{ MaxBytes int }
	// FindOutcome looks ahead in the journal, without keeping what it reads, for the
	// result of an operation; it waits until there is one. OutcomeFound.
	FindOutcome struct{ Need replay.NeedOutcome }
	// ReadRemoteTag reads one tag of the remote journal. RemoteTagRead.
	ReadRemoteTag struct{ TID journal.TagTID }
	// AllocateTag adds a tag to the local journal. LocalTagAllocated.
	AllocateTag struct{ Data journal.TagData }
	// Apply applies one step to the local image. Applied, when it is durable.
	Apply struct{ Step replay.Step }
	// Commit writes our client's commit position to the remote journal. Committed.
	// The Last one is on the way out and must not take long.
	Commit struct {
		Position journal.ObjectSetPosition
		Last     bool
	}
)

// Effects of the end, and those without an answer.
type (
	// Close lets go of everything, the local image's lock first. Closed.
	Close struct{}
	// RemoveLocal removes the local copy for good: because the remote image is gone,
	// or to make a new copy. LocalRemoved.
	RemoveLocal struct{ ImageID string }
	// Cancel ends the effects that are under way; they answer Failed soon.
	Cancel struct{}
	// After sends Msg when Delay has passed.
	After struct {
		Delay time.Duration
		Msg   Msg
	}
	// Publish tells the world that the status has changed.
	Publish struct{}
)

func (PrepareLocal) effect()      {}
func (PrepareRemote) effect()     {}
func (ReadRemoteClients) effect() {}
func (OpenRemote) effect()        {}
func (UnregisterPeer) effect()    {}
func (RegisterPeer) effect()      {}
func (UpdatePeer) effect()        {}
func (CreateLocal) effect()       {}
func (OpenLocal) effect()         {}
func (StartResync) effect()       {}
func (FinishResync) effect()      {}
func (ReadRemoteTags) effect()    {}
func (Sync) effect()              {}
func (CloseRemote) effect()       {}
func (InitJournaler) effect()     {}
func (StartTailing) effect()      {}
func (ReadEntries) effect()       {}
func (FindOutcome) effect()       {}
func (ReadRemoteTag) effect()     {}
func (AllocateTag) effect()       {}
func (Apply) effect()             {}
func (Commit) effect()            {}
func (Close) effect()             {}
func (RemoveLocal) effect()       {}
func (Cancel) effect()            {}
func (After) effect()             {}
func (Publish) effect()           {}

// answered tells whether an effect is one that is answered exactly once.
func answered(e Effect) bool {
	switch e.(type) {
	case Cancel, After, Publish:
		return false
	}
	return true
}
