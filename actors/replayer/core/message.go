package core

import (
	"fmt"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/replay"
)

// Msg is everything that can happen to an image: commands from its pool,
// notifications from the clusters, and the results of effects.
type Msg interface{ msg() }

// Promotion says who a journal's newest tag belongs to.
type Promotion uint8

// The promotion states of an image (src/librbd/mirror/Types.h).
const (
	PromotionUnknown Promotion = iota
	Primary                    // this cluster's own clients write
	NonPrimary                 // it replicates from a peer
	Orphan                     // demoted and not promoted anywhere yet
)

func (p Promotion) String() string {
	return [...]string{"unknown", "primary", "non-primary", "orphan"}[p]
}

// Commands.
type (
	// Start begins the way from STOPPED to REPLAYING. It does nothing elsewhere.
	Start struct{}
	// Stop ends whatever is going on and leads to STOPPED.
	Stop struct {
		Reason string // shown as the image's status, for example "stopped"
	}
	// Flush asks to commit what is safe now, without waiting for the interval.
	Flush struct{}
	// Pause lets the image replay nothing until Resume, in this and in later replays: it
	// keeps the local image's lock and its place in the journal.
	Pause struct{}
	// Resume ends Pause. It does nothing elsewhere.
	Resume struct{}
)

// Notifications.
type (
	// LockLost says that the local image's exclusive lock or watch is gone.
	LockLost struct{ Err error }
	// LocalJournalChanged is what the local journal says after it was updated.
	LocalJournalChanged struct {
		Promotion       Promotion
		ResyncRequested bool
	}
	// RemoteJournalChanged is what the remote journal's clients say.
	RemoteJournalChanged struct {
		Disconnected bool // our own client was disconnected by an operator or as a laggard
		// Unmirrored says that the remote image's record is gone or going, or that our client is gone or another local
		// image's: mirroring was disabled there, and perhaps enabled again under another global id.
		Unmirrored bool
		Primary    journal.ObjectSetPosition
		Tags       []Tag // all of the image's
	}
	// Renamed says that the local image has a new name.
	Renamed struct{ Name string }
	// EntriesHeld says that the next entries were read and wait until they are old
	// enough (rbd_mirroring_replay_delay); their EntriesRead is still to come.
	EntriesHeld struct {
		Oldest time.Time // of the next entry
		Last   journal.ObjectPosition
		Delay  time.Duration
	}
	// ReadingWaits says that the ReadEntries under way waits for memory that other images
	// hold, or this one: everything that was read has to be done with.
	ReadingWaits struct{}
	// CommitDue is the commit timer.
	CommitDue struct{}
	// Stalled says that the image does not get on, although it should.
	Stalled struct{ Text string }
	// SyncProgressed reports how far IMAGE_SYNC is.
	SyncProgressed struct {
		Waiting                   bool // for other syncs to end
		ObjectsDone, ObjectsTotal uint64
		Bytes                     uint64
		BytesCompared             uint64 // in place: by checksums
	}
	// OperationProgressed reports how far an operation is that takes its time.
	OperationProgressed struct {
		Step        replay.StepID // that asked for it
		Name        string        // as the journal names its event
		Done, Total uint64        // objects
	}
)

// Failed is the result of an effect that did not work.
type Failed struct {
	State State // that asked for the effect
	// Reading says that the effect was ReadEntries: what was read before stays good.
	Reading bool
	Class   rados.Class
	Err     error
}

// MustWait is the result of an effect that another image has to get ahead of: nothing
// failed, it is too early.
type MustWait struct {
	State    State // that asked for the effect
	Operator bool  // it does not come by itself
	Err      error // says what for
}

// Results of the bootstrap's effects.
type (
	// LocalPrepared answers PrepareLocal.
	LocalPrepared struct{ Local Local }
	// RemotePrepared answers PrepareRemote.
	RemotePrepared struct{ Remote Remote }
	// RemoteClientsRead answers ReadRemoteClients.
	RemoteClientsRead struct {
		TagClass   journal.TagClass
		Registered bool
		Connected  bool
		Meta       journal.MirrorPeerClientMeta // valid if Registered
	}
	// RemoteOpened answers OpenRemote.
	RemoteOpened struct{}
	// ClientUnregistered answers UnregisterPeer.
	ClientUnregistered struct{}
	// ClientRegistered answers RegisterPeer.
	ClientRegistered struct{ Meta journal.MirrorPeerClientMeta }
	// ClientUpdated answers UpdatePeer.
	ClientUpdated struct{ Meta journal.MirrorPeerClientMeta }
	// LocalCreated answers CreateLocal.
	LocalCreated struct{ ImageID string }
	// LocalImageIDTaken answers CreateLocal: an unrelated image has that id.
	LocalImageIDTaken struct{}
	// LocalOpened answers OpenLocal: the lock is ours from here on.
	LocalOpened struct {
		Missing         bool // there is no such image (the lock is not held)
		Name            string
		Promotion       Promotion
		Tag             journal.TagTID
		TagData         journal.TagData
		ResyncRequested bool
	}
	// ResyncBegun answers StartResync.
	ResyncBegun struct {
		Kept     bool   // else the copy has to be removed and made anew
		Why      string // it cannot be kept
		Meta     journal.MirrorPeerClientMeta
		TagData  journal.TagData
		TrustMap bool
	}
	// ResyncEnded answers FinishResync. Again says that a whole new copy was asked for
	// meanwhile.
	ResyncEnded struct{ Again bool }
	// RemoteTagsRead answers ReadRemoteTags: all tags of the image's class, oldest first.
	RemoteTagsRead struct{ Tags []Tag }
	// Synced answers Sync.
	Synced struct{ Meta journal.MirrorPeerClientMeta }
	// RemoteClosed answers CloseRemote.
	RemoteClosed struct{}
)

// Results of the replay's effects.
type (
	// JournalerReady answers InitJournaler.
	JournalerReady struct {
		Disconnected bool
		SplayWidth   uint8
		Committed    journal.ObjectSetPosition // our client's commit position
		Primary      journal.ObjectSetPosition // the image client's
		Covered      journal.Covered           // what is in the copy: see journal.MirrorPeerClientMeta
	}
	// ReplayStarted answers StartTailing.
	ReplayStarted struct {
		Promotion       Promotion
		ResyncRequested bool
	}
	// EntriesRead answers ReadEntries: the next entries in the journal's order, and
	// the tag that ended behind them, if TagEnded. One of both there always is.
	EntriesRead struct {
		Entries  []Entry
		At       time.Time // when they were read, by our clock
		TagEnded bool
		Ended    journal.TagTID
	}
	// OutcomeFound answers FindOutcome.
	OutcomeFound struct {
		Tag    journal.TagTID
		Op     journal.OpTID
		Found  bool // false: a newer tag came before any result
		Result int32
	}
	// RemoteTagRead answers ReadRemoteTag.
	RemoteTagRead struct{ Tag Tag }
	// LocalTagAllocated answers AllocateTag.
	LocalTagAllocated struct{ Data journal.TagData }
	// Applied answers Apply: the step's effect is durable.
	Applied struct {
		Step    replay.StepID
		Entries int
		Bytes   int64
	}
	// Committed answers Commit.
	Committed struct{ Position journal.ObjectSetPosition }
	// Closed answers Close: no handle, lock or watch of ours is left.
	Closed struct{ Err error }
	// LocalRemoved answers RemoveLocal.
	LocalRemoved struct{}
)

// Local is what is known of the local image before it is opened.
type Local struct {
	Exists      bool // it has a mirror record under the global id
	HalfMade    bool // the record says that its creation never finished
	Disabling   bool // the record says that its mirroring is being ended
	ImageID     string
	Name        string
	Promotion   Promotion
	PrimaryUUID string // mirror uuid of the site that it replicates from
	Snapshot    bool   // mirrored by snapshots, not by journal
	// Trashed says that a removal of ours was interrupted on the way to the trash.
	Trashed         bool
	ResyncRequested bool // an operator asked for a new copy
	// ResyncAfterDisconnect is rbd_mirroring_resync_after_disconnect of this image.
	ResyncAfterDisconnect bool
	// ResyncInPlace says that a re-sync is to keep the copy, if it can be kept.
	ResyncInPlace bool
}

// String names what is set, for traces and stories.
func (l Local) String() string {
	if !l.Exists {
		return "none"
	}
	s := fmt.Sprintf("%s %q %v", l.ImageID, l.Name, l.Promotion)
	if l.PrimaryUUID != "" {
		s += " of " + l.PrimaryUUID
	}
	for _, f := range []struct {
		set  bool
		name string
	}{
		{l.HalfMade, "half made"}, {l.Disabling, "disabling"}, {l.Snapshot, "by snapshots"}, {l.Trashed, "trashed"},
		{l.ResyncRequested, "resync requested"}, {l.ResyncAfterDisconnect, "resync after disconnect"},
		{l.ResyncInPlace, "in place"},
	} {
		if f.set {
			s += ", " + f.name
		}
	}
	return s
}

// Remote is what is known of the remote image before it is opened.
type Remote struct {
	Exists    bool
	Disabling bool
	Snapshot  bool // mirrored by snapshots, not by journal
	ImageID   string
	Promotion Promotion
}

// Tag is a journal tag with its decoded data.
type Tag struct {
	TID  journal.TagTID
	Data journal.TagData
}

// Entry is a journal entry, decoded, with the time at which the primary wrote it.
type Entry struct {
	replay.Entry
	Timestamp time.Time
}

func (Start) msg()                {}
func (Stop) msg()                 {}
func (Flush) msg()                {}
func (Pause) msg()                {}
func (Resume) msg()               {}
func (LockLost) msg()             {}
func (LocalJournalChanged) msg()  {}
func (RemoteJournalChanged) msg() {}
func (Renamed) msg()              {}
func (EntriesHeld) msg()          {}
func (ReadingWaits) msg()         {}
func (CommitDue) msg()            {}
func (Stalled) msg()              {}
func (SyncProgressed) msg()       {}
func (OperationProgressed) msg()  {}
func (Failed) msg()               {}
func (MustWait) msg()             {}
func (LocalPrepared) msg()        {}
func (RemotePrepared) msg()       {}
func (RemoteClientsRead) msg()    {}
func (RemoteOpened) msg()         {}
func (ClientUnregistered) msg()   {}
func (ClientRegistered) msg()     {}
func (ClientUpdated) msg()        {}
func (LocalCreated) msg()         {}
func (LocalImageIDTaken) msg()    {}
func (LocalOpened) msg()          {}
func (ResyncBegun) msg()          {}
func (ResyncEnded) msg()          {}
func (RemoteTagsRead) msg()       {}
func (Synced) msg()               {}
func (RemoteClosed) msg()         {}
func (JournalerReady) msg()       {}
func (ReplayStarted) msg()        {}
func (EntriesRead) msg()          {}
func (OutcomeFound) msg()         {}
func (RemoteTagRead) msg()        {}
func (LocalTagAllocated) msg()    {}
func (Applied) msg()              {}
func (Committed) msg()            {}
func (Closed) msg()               {}
func (LocalRemoved) msg()         {}
