package core

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/replay"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

const (
	us   = "local-uuid"
	them = "remote-uuid"
)

// world plays the clusters: it gives messages to a core and writes down what comes
// out, as a text that documents the protocol.
type world struct {
	t    *testing.T
	core *Core
	log  strings.Builder
	out  []Effect // of the last message
}

func newWorld(t *testing.T) *world {
	return &world{t: t, core: New(Config{
		LocalMirrorUUID: us, RemoteMirrorUUID: them, CommitInterval: time.Second,
		ReadBytes: 1 << 20, BufferBytes: 4 << 20,
	})}
}

func (w *world) send(m Msg) []Effect {
	from := w.core.State()
	w.out = w.core.Step(m)
	fmt.Fprintf(&w.log, "> %s\n", show(m))
	if to := w.core.State(); to != from {
		fmt.Fprintf(&w.log, "  %s → %s\n", from, to)
	}
	for _, e := range w.out {
		if _, ok := e.(Publish); !ok {
			fmt.Fprintf(&w.log, "  do %s\n", show(e))
		}
	}
	if c := w.core.Cause(); w.core.State() == Stopped {
		fmt.Fprintf(&w.log, "  because %s: %q\n", c.Reason, c.Text)
	}
	return w.out
}

func show(v any) string {
	s := strings.TrimPrefix(fmt.Sprintf("%T%+v", v, v), "core.")
	s = strings.ReplaceAll(s, fmt.Sprintf(" At:%v", time.Time{}), "") // no clock here
	return strings.TrimSuffix(s, "{}")
}

// find returns the effect of that type among the last ones.
func find[E Effect](w *world) E {
	w.t.Helper()
	for _, e := range w.out {
		if e, ok := e.(E); ok {
			return e
		}
	}
	var none E
	w.t.Fatalf("no %T among %v\n%s", none, w.out, w.log.String())
	return none
}

func has[E Effect](effects []Effect) bool {
	for _, e := range effects {
		if _, ok := e.(E); ok {
			return true
		}
	}
	return false
}

var (
	localReplica = Local{Exists: true, ImageID: "l1", Name: "vm", Promotion: NonPrimary, PrimaryUUID: them}
	remoteMaster = Remote{Exists: true, ImageID: "r1", Promotion: Primary}
	theirTag     = journal.TagData{MirrorUUID: them}
	replayMeta   = journal.MirrorPeerClientMeta{ImageID: "l1", State: journal.PeerReplaying}
	syncMeta     = journal.MirrorPeerClientMeta{ImageID: "l1", State: journal.PeerSyncing}
)

func tag0() Tag { return Tag{TID: 0, Data: journal.TagData{}} }

// toReplay leads an existing replica to REPLAYING.
func (w *world) toReplay() {
	w.send(Start{})
	w.send(LocalPrepared{localReplica})
	w.send(RemotePrepared{remoteMaster})
	w.send(RemoteClientsRead{Registered: true, Connected: true, Meta: replayMeta})
	w.send(RemoteOpened{})
	w.send(LocalOpened{Name: "vm", Promotion: NonPrimary, TagData: theirTag})
	w.send(RemoteTagsRead{[]Tag{tag0()}})
	w.send(RemoteClosed{})
	w.send(JournalerReady{SplayWidth: 4})
	w.send(ReplayStarted{Promotion: NonPrimary})
}

// toResyncInPlace leads an image that went its own way, and whose client belongs to
// another image, to BEGIN_RESYNC.
func (w *world) toResyncInPlace() {
	w.send(Start{})
	w.send(LocalPrepared{Local{Exists: true, ImageID: "l1", Name: "vm", Promotion: Orphan, PrimaryUUID: journal.OrphanMirrorUUID,
		ResyncRequested: true, ResyncInPlace: true}})
	w.send(RemotePrepared{remoteMaster})
	w.send(RemoteClientsRead{Registered: true, Meta: journal.MirrorPeerClientMeta{ImageID: "other", State: journal.PeerReplaying}})
	w.send(RemoteOpened{})
	w.send(LocalOpened{Name: "vm", Promotion: Orphan, TagData: journal.TagData{MirrorUUID: journal.OrphanMirrorUUID}, ResyncRequested: true})
}

func write(tag journal.TagTID, entry journal.EntryTID) Entry {
	return Entry{Entry: replay.Entry{
		Position: journal.ObjectPosition{Object: journal.ObjectNumber(entry % 4), Tag: tag, Entry: entry},
		Event:    journal.AioWrite{Offset: uint64(entry) * 4096, Length: 2, Data: []byte("xy")}, Bytes: 2,
	}}
}

func handover(tag journal.TagTID, entry journal.EntryTID) Entry {
	e := write(tag, entry)
	e.Event = journal.DemotePromote{}
	return e
}

var failure = Failed{Class: rados.Transient, Err: syscall.ETIMEDOUT}

func at(f Failed, s State) Failed { f.State = s; return f }

// scenarios are the stories; each has a golden file of its name.
var scenarios = map[string]func(w *world){
	"new-image": func(w *world) {
		w.send(Start{})
		w.send(LocalPrepared{})
		w.send(RemotePrepared{remoteMaster})
		w.send(RemoteClientsRead{})
		w.send(RemoteOpened{})
		w.send(ClientRegistered{syncMeta})
		w.send(LocalCreated{"l1"})
		w.send(LocalOpened{Name: "vm", Promotion: NonPrimary, TagData: theirTag})
		w.send(RemoteTagsRead{[]Tag{tag0()}})
		w.send(SyncProgressed{ObjectsDone: 1, ObjectsTotal: 4})
		w.send(Synced{syncMeta})
		w.send(ClientUpdated{replayMeta})
		w.send(RemoteClosed{})
		w.send(JournalerReady{SplayWidth: 4})
		w.send(ReplayStarted{Promotion: NonPrimary})
	},
	"half-made-image-is-completed": func(w *world) {
		w.send(Start{})
		w.send(LocalPrepared{Local{Exists: true, HalfMade: true, ImageID: "l1", Promotion: NonPrimary, PrimaryUUID: them}})
		w.send(RemotePrepared{remoteMaster})
		w.send(RemoteClientsRead{Registered: true, Connected: true, Meta: syncMeta})
		w.send(RemoteOpened{})
	},
	"half-made-image-id-taken": func(w *world) {
		w.send(Start{})
		w.send(LocalPrepared{})
		w.send(RemotePrepared{remoteMaster})
		w.send(RemoteClientsRead{Registered: true, Connected: true, Meta: syncMeta})
		w.send(RemoteOpened{})
		w.send(LocalImageIDTaken{})
		w.send(ClientUpdated{journal.MirrorPeerClientMeta{ImageID: "l2"}})
	},
	"image-lost-behind-a-disconnected-client": func(w *world) {
		w.send(Start{})
		w.send(LocalPrepared{})
		w.send(RemotePrepared{remoteMaster})
		w.send(RemoteClientsRead{Registered: true, Meta: replayMeta})
		w.send(RemoteOpened{})
		w.send(ClientUnregistered{})
		w.send(ClientRegistered{syncMeta})
	},
	"disconnected": func(w *world) {
		w.send(Start{})
		w.send(LocalPrepared{localReplica})
		w.send(RemotePrepared{remoteMaster})
		w.send(RemoteClientsRead{Registered: true, Meta: replayMeta})
		w.send(RemoteOpened{})
		w.send(Closed{})
	},
	"client-of-another-image": func(w *world) {
		w.send(Start{})
		w.send(LocalPrepared{localReplica})
		w.send(RemotePrepared{remoteMaster})
		w.send(RemoteClientsRead{Registered: true, Connected: true, Meta: journal.MirrorPeerClientMeta{ImageID: "other", State: journal.PeerReplaying}})
		w.send(RemoteOpened{})
		w.send(Closed{})
	},
	"copy-begun-twice": func(w *world) {
		w.send(Start{})
		w.send(LocalPrepared{localReplica})
		w.send(RemotePrepared{remoteMaster})
		w.send(RemoteClientsRead{Registered: true, Connected: true, Meta: journal.MirrorPeerClientMeta{ImageID: "other", State: journal.PeerSyncing}})
		w.send(RemoteOpened{})
		w.send(Closed{})
		w.send(LocalRemoved{})
	},
	"copy-gone-but-for-its-record": func(w *world) {
		w.send(Start{})
		w.send(LocalPrepared{Local{Exists: true, ImageID: "l1", Promotion: PromotionUnknown, Disabling: true}})
		w.send(RemotePrepared{remoteMaster})
		w.send(RemoteClientsRead{Registered: true, Connected: true, Meta: journal.MirrorPeerClientMeta{ImageID: "other", State: journal.PeerSyncing}})
		w.send(RemoteOpened{})
		w.send(LocalOpened{Missing: true})
		w.send(ClientUpdated{Meta: journal.MirrorPeerClientMeta{ImageID: "l2", State: journal.PeerSyncing}})
		w.send(LocalCreated{ImageID: "l2"})
	},
	"interrupted-sync-goes-on": func(w *world) {
		w.send(Start{})
		w.send(LocalPrepared{localReplica})
		w.send(RemotePrepared{remoteMaster})
		w.send(RemoteClientsRead{Registered: true, Connected: true, Meta: syncMeta})
		w.send(RemoteOpened{})
		w.send(LocalOpened{Name: "vm", Promotion: NonPrimary, TagData: theirTag})
		w.send(RemoteTagsRead{[]Tag{tag0()}})
	},
	"replay": func(w *world) {
		w.toReplay()
		w.send(EntriesRead{Entries: []Entry{write(1, 0), write(1, 1)}})
		w.send(RemoteTagRead{Tag{TID: 1, Data: journal.TagData{Predecessor: journal.TagPredecessor{CommitValid: true}}}})
		w.send(LocalTagAllocated{Data: journal.TagData{MirrorUUID: them, Predecessor: journal.TagPredecessor{MirrorUUID: them, CommitValid: true}}})
		w.send(Applied{Step: find[Apply](w).Step.ID(), Entries: 2})
		w.send(Committed{find[Commit](w).Position})
		w.send(EntriesRead{Entries: []Entry{write(1, 2)}})
		w.send(Applied{Step: find[Apply](w).Step.ID(), Entries: 1})
		w.send(CommitDue{})
		w.send(Committed{find[Commit](w).Position})
	},
	"tag-known-already": func(w *world) {
		w.toReplay()
		w.send(EntriesRead{Entries: []Entry{write(0, 5)}})
		w.send(RemoteTagRead{tag0()})
	},
	"remote-demoted": func(w *world) {
		w.toReplay()
		w.send(EntriesRead{Entries: []Entry{handover(2, 0)}})
		orphan := journal.TagData{MirrorUUID: journal.OrphanMirrorUUID, Predecessor: journal.TagPredecessor{CommitValid: true, Tag: 1, Entry: 7}}
		w.send(RemoteTagRead{Tag{TID: 2, Data: orphan}})
		w.send(LocalTagAllocated{Data: find[AllocateTag](w).Data})
		w.send(Committed{find[Commit](w).Position})
		w.send(Closed{})
	},
	"force-promoted": func(w *world) {
		w.toReplay()
		w.send(EntriesRead{Entries: []Entry{write(0, 0)}})
		w.send(RemoteTagRead{tag0()})
		apply := find[Apply](w)
		w.send(LocalJournalChanged{Promotion: Primary})
		w.send(Applied{Step: apply.Step.ID(), Entries: 1})
		w.send(at(failure, Replaying)) // the read, cancelled
		w.send(Closed{})
	},
	"stopped-by-command": func(w *world) {
		w.toReplay()
		w.send(EntriesRead{Entries: []Entry{write(0, 0)}})
		w.send(RemoteTagRead{tag0()})
		apply := find[Apply](w)
		w.send(Stop{Reason: "stopped"})
		w.send(at(failure, Replaying)) // the read, cancelled
		w.send(Applied{Step: apply.Step.ID(), Entries: 1})
		w.send(Committed{find[Commit](w).Position})
		w.send(Closed{})
	},
	"paused-by-command": func(w *world) {
		w.toReplay()
		w.send(EntriesRead{Entries: []Entry{write(0, 0)}})
		w.send(RemoteTagRead{tag0()})
		apply := find[Apply](w)
		w.send(Pause{})
		w.send(EntriesRead{Entries: []Entry{write(0, 1)}}) // asked for before
		w.send(Applied{Step: apply.Step.ID(), Entries: 1})
		w.send(Committed{find[Commit](w).Position})
		w.send(Pause{})
		w.send(Flush{})
		w.send(Resume{})
		w.send(Applied{Step: find[Apply](w).Step.ID(), Entries: 1})
	},
	"paused-before-it-replays": func(w *world) {
		w.send(Pause{})
		w.toReplay()
		w.send(Resume{})
	},
	"promoted-while-paused": func(w *world) {
		w.toReplay()
		w.send(Pause{})
		w.send(LocalJournalChanged{Promotion: Primary})
		w.send(at(failure, Replaying)) // the read, cancelled
		w.send(Closed{})
	},
	"remote-away-while-paused": func(w *world) { // nobody asks it for anything
		w.toReplay()
		w.send(Pause{})
		w.send(Failed{State: Replaying, Reading: true, Class: rados.Transient, Err: syscall.ETIMEDOUT})
		w.send(Resume{})
		w.send(Closed{})
	},
	"paused-while-a-tag-is-brought-over": func(w *world) {
		w.toReplay()
		w.send(EntriesRead{Entries: []Entry{write(0, 0)}})
		w.send(Pause{})
		w.send(RemoteTagRead{tag0()})
		w.send(Stop{Reason: "stopped"}) // and stopped: the pause is not forgotten by that
		w.send(Closed{})
		w.toReplay()
	},
	"lock-lost": func(w *world) {
		w.toReplay()
		w.send(LockLost{rados.Blocklisted})
		w.send(at(failure, Replaying))
		w.send(Closed{})
	},
	"local-primary-registers-with-its-replica": func(w *world) {
		w.send(Start{})
		w.send(LocalPrepared{Local{Exists: true, ImageID: "l1", Promotion: Primary}})
		w.send(RemotePrepared{Remote{Exists: true, ImageID: "r1", Promotion: NonPrimary}})
		w.send(RemoteClientsRead{})
		w.send(ClientRegistered{replayMeta})
		w.send(Closed{})
	},
	"local-primary-remote-away": func(w *world) {
		w.send(Start{})
		w.send(LocalPrepared{Local{Exists: true, ImageID: "l1", Promotion: Primary}})
		w.send(at(failure, PrepareRemoteImage))
		w.send(Closed{})
	},
	"failback-registered-too-late": func(w *world) {
		pre := func(uuid string, tag journal.TagTID) journal.TagPredecessor {
			return journal.TagPredecessor{MirrorUUID: uuid, CommitValid: true, Tag: tag}
		}
		w.send(Start{})
		w.send(LocalPrepared{Local{Exists: true, ImageID: "l1", Promotion: Orphan, PrimaryUUID: journal.OrphanMirrorUUID}})
		w.send(RemotePrepared{remoteMaster})
		w.send(RemoteClientsRead{})
		w.send(RemoteOpened{})
		w.send(ClientRegistered{replayMeta})
		w.send(LocalOpened{Name: "vm", Promotion: Orphan, TagData: journal.TagData{MirrorUUID: journal.OrphanMirrorUUID, Predecessor: pre("", 6)}})
		w.send(RemoteTagsRead{[]Tag{
			{3, journal.TagData{MirrorUUID: journal.OrphanMirrorUUID, Predecessor: pre(us, 6)}},
			{4, journal.TagData{Predecessor: pre(journal.OrphanMirrorUUID, 3)}},
		}})
		w.send(RemoteClosed{})
		w.send(JournalerReady{SplayWidth: 4, Committed: journal.ObjectSetPosition{{Tag: 4, Entry: 9}}})
		w.send(Closed{})
	},
	"remote-gone": func(w *world) {
		w.send(Start{})
		w.send(LocalPrepared{localReplica})
		w.send(RemotePrepared{})
		w.send(Closed{})
		w.send(LocalRemoved{})
		w.send(Start{})
		w.send(LocalPrepared{})
		w.send(RemotePrepared{})
		w.send(Closed{})
	},
	"remote-gone-but-the-copy-is-not-its": func(w *world) {
		w.send(Start{})
		w.send(LocalPrepared{Local{Exists: true, ImageID: "l1", Promotion: Orphan, PrimaryUUID: journal.OrphanMirrorUUID}})
		w.send(RemotePrepared{})
		w.send(Closed{})
	},
	"removal-fails": func(w *world) {
		w.send(Start{})
		w.send(LocalPrepared{localReplica})
		w.send(RemotePrepared{})
		w.send(Closed{})
		w.send(at(failure, RemoveLocalImage))
	},
	"remote-away": func(w *world) {
		w.send(Start{})
		w.send(LocalPrepared{localReplica})
		w.send(at(failure, PrepareRemoteImage))
		w.send(Closed{})
		w.send(Start{})
	},
	"unknown-event": func(w *world) {
		w.toReplay()
		unknown := write(0, 1)
		unknown.Event = journal.Unknown{EventType: 99}
		w.send(EntriesRead{Entries: []Entry{write(0, 0), unknown}})
		w.send(RemoteTagRead{tag0()})
		w.send(Applied{Step: find[Apply](w).Step.ID(), Entries: 1})
	},
	"primary-died-in-a-snapshot": func(w *world) {
		w.toReplay()
		snap := write(0, 0)
		snap.Event = journal.SnapCreate{Op: 1, Name: "s"}
		w.send(EntriesRead{Entries: []Entry{snap}})
		w.send(RemoteTagRead{tag0()})
		w.send(EntriesRead{TagEnded: true, Ended: 0})
		w.send(Applied{Step: find[Apply](w).Step.ID(), Entries: 1})
		w.send(Committed{find[Commit](w).Position})
	},
	"damaged-entry": func(w *world) {
		w.toReplay()
		w.send(EntriesRead{Entries: []Entry{write(0, 0)}})
		w.send(RemoteTagRead{tag0()})
		apply := find[Apply](w)
		w.send(Failed{State: Replaying, Reading: true, Class: rados.Corrupt, Err: syscall.EBADMSG})
		w.send(Applied{Step: apply.Step.ID(), Entries: 1}) // what comes before the damage is applied
		w.send(Committed{find[Commit](w).Position})
		w.send(Closed{})
	},
	"resync-asked-for": func(w *world) {
		w.toReplay()
		w.send(LocalJournalChanged{Promotion: NonPrimary, ResyncRequested: true})
		w.send(at(failure, Replaying))
		w.send(Closed{})
		w.send(Start{}) // only now, from fresh facts, the copy goes
		asked := localReplica
		asked.ResyncRequested = true
		w.send(LocalPrepared{asked})
		w.send(RemotePrepared{remoteMaster})
		w.send(Closed{})
		w.send(LocalRemoved{})
	},
	"resync-asked-for-without-a-primary": func(w *world) {
		w.send(Start{})
		asked := localReplica
		asked.ResyncRequested = true
		w.send(LocalPrepared{asked})
		w.send(RemotePrepared{Remote{Exists: true, ImageID: "r1", Promotion: Orphan}})
		w.send(RemoteClientsRead{Registered: true, Connected: true, Meta: replayMeta})
		w.send(RemoteOpened{})
		w.send(LocalOpened{Name: "vm", Promotion: NonPrimary, TagData: theirTag, ResyncRequested: true})
		w.send(RemoteTagsRead{[]Tag{tag0()}})
		w.send(RemoteClosed{})
		w.send(JournalerReady{SplayWidth: 4})
		w.send(ReplayStarted{Promotion: NonPrimary, ResyncRequested: true}) // the demotion is replayed first
	},
	"resync-mends-a-split-brain": func(w *world) {
		w.send(Start{})
		w.send(LocalPrepared{Local{Exists: true, ImageID: "l1", Promotion: Orphan, PrimaryUUID: journal.OrphanMirrorUUID, ResyncRequested: true}})
		w.send(RemotePrepared{remoteMaster})
		w.send(Closed{})
		w.send(LocalRemoved{})
	},
	"resync-in-place": func(w *world) { // also of a split brain
		w.toResyncInPlace()
		w.send(ResyncBegun{Kept: true, Meta: syncMeta, TagData: theirTag, TrustMap: true})
		w.send(LocalJournalChanged{Promotion: NonPrimary, ResyncRequested: true}) // our own tag is the news
		w.send(SyncProgressed{ObjectsDone: 3, ObjectsTotal: 4, Bytes: 4096, BytesCompared: 4 << 20})
		w.send(Synced{replayMeta})
		w.send(LocalJournalChanged{Promotion: NonPrimary, ResyncRequested: true})
		w.send(ResyncEnded{})
		w.send(RemoteClosed{})
		w.send(JournalerReady{SplayWidth: 4})
		w.send(ReplayStarted{Promotion: NonPrimary})
		w.send(LocalJournalChanged{Promotion: NonPrimary, ResyncRequested: true}) // another one
	},
	"resync-in-place-cannot-be": func(w *world) {
		w.toResyncInPlace()
		w.send(ResyncBegun{Why: "it is a clone"})
		w.send(Closed{})
		w.send(LocalRemoved{})
	},
	"resync-in-place-then-in-full": func(w *world) {
		w.toResyncInPlace()
		w.send(ResyncBegun{Kept: true, Meta: syncMeta, TagData: theirTag})
		w.send(Synced{replayMeta})
		w.send(ResyncEnded{Again: true})
		w.send(Closed{})
	},
	"resync-in-place-interrupted-by-a-promotion": func(w *world) {
		w.toResyncInPlace()
		w.send(ResyncBegun{Kept: true, Meta: syncMeta, TagData: theirTag})
		w.send(LocalJournalChanged{Promotion: Primary, ResyncRequested: true})
		w.send(at(failure, ImageSync))
		w.send(Closed{})
	},
	"resync-in-place-of-a-disconnected-image": func(w *world) {
		w.send(Start{})
		local := localReplica
		local.ResyncAfterDisconnect, local.ResyncInPlace = true, true
		w.send(LocalPrepared{local})
		w.send(RemotePrepared{remoteMaster})
		w.send(RemoteClientsRead{Registered: true, Meta: replayMeta})
		w.send(RemoteOpened{})
		w.send(LocalOpened{Name: "vm", Promotion: NonPrimary, TagData: theirTag})
	},
	"disconnected-resync-asked-for": func(w *world) {
		w.send(Start{})
		asked := localReplica
		asked.ResyncRequested = true
		w.send(LocalPrepared{asked})
		w.send(RemotePrepared{remoteMaster})
		w.send(Closed{})
		w.send(LocalRemoved{})
		w.send(Start{})
		w.send(LocalPrepared{})
		w.send(RemotePrepared{remoteMaster})
		w.send(RemoteClientsRead{Registered: true, Meta: replayMeta})
		w.send(RemoteOpened{})
		w.send(ClientUnregistered{})
		w.send(ClientRegistered{syncMeta})
	},
	"disconnected-while-replaying": func(w *world) {
		w.toReplay()
		w.send(RemoteJournalChanged{Disconnected: true})
		w.send(at(failure, Replaying)) // the read, cancelled
		w.send(Closed{})
		w.send(Start{})
		local := localReplica
		local.ResyncAfterDisconnect = true
		w.send(LocalPrepared{local})
		w.send(RemotePrepared{remoteMaster})
		w.send(RemoteClientsRead{Registered: true, Meta: replayMeta})
		w.send(RemoteOpened{})
		w.send(Closed{})
		w.send(LocalRemoved{})
	},
	"disabled-and-enabled-under-another-id": func(w *world) {
		w.toReplay()
		w.send(RemoteJournalChanged{Unmirrored: true})
		w.send(at(failure, Replaying)) // the read, cancelled
		w.send(Closed{})
		w.send(Start{})
		w.send(LocalPrepared{localReplica})
		w.send(RemotePrepared{}) // the new copy has a global id of its own
		w.send(Closed{})
		w.send(LocalRemoved{})
	},
	"disconnected-without-a-primary": func(w *world) {
		w.send(Start{})
		local := localReplica
		local.ResyncAfterDisconnect = true
		w.send(LocalPrepared{local})
		w.send(RemotePrepared{Remote{Exists: true, ImageID: "r1", Promotion: Orphan}})
		w.send(RemoteClientsRead{Registered: true, Meta: replayMeta})
		w.send(RemoteOpened{})
		w.send(Closed{}) // the copy may be the best that there is: it stays
	},
	"removal-interrupted": func(w *world) {
		w.send(Start{})
		w.send(LocalPrepared{Local{Exists: true, ImageID: "l1", Promotion: Primary, Disabling: true, Trashed: true}})
		w.send(Closed{})
		w.send(LocalRemoved{})
	},
	"local-being-disabled": func(w *world) {
		w.send(Start{})
		local := localReplica
		local.Disabling = true
		w.send(LocalPrepared{local})
		w.send(RemotePrepared{remoteMaster})
		w.send(RemoteClientsRead{Registered: true, Connected: true, Meta: replayMeta})
		w.send(RemoteOpened{})
		w.send(LocalOpened{Name: "vm", Promotion: NonPrimary, TagData: theirTag})
		w.send(Closed{})
	},
}

func TestScenarios(t *testing.T) {
	for name, play := range scenarios {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			play(w)
			file := filepath.Join("testdata", name+".txt")
			if *rewrite {
				if err := os.WriteFile(file, []byte(w.log.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), w.log.String()); diff != "" {
				t.Errorf("-%s +now:\n%s", file, diff)
			}
		})
	}
}

// Entries that wait until they are old enough count as behind, and their age is the lag.
func TestHeldEntriesAreBehind(t *testing.T) {
	w := newWorld(t)
	w.toReplay()
	written := time.Unix(1_700_000_000, 0)
	w.send(EntriesHeld{Oldest: written, Last: write(0, 4).Position, Delay: time.Hour})
	p, _ := w.core.Progress()
	if p.EntriesBehind != 5 || !p.OldestWaiting.Equal(written) || p.ReplayDelay != time.Hour {
		t.Errorf("progress %+v", p)
	}
	w.send(EntriesRead{Entries: []Entry{write(0, 1)}})
	if p, _ := w.core.Progress(); p.EntriesBehind != 2 || p.ReplayDelay != 0 {
		t.Errorf("progress %+v after they were read", p)
	}
}

// A commit position never names an entry whose step was not reported as applied.
func TestCommitNeverPassesWhatIsApplied(t *testing.T) {
	w := newWorld(t)
	w.toReplay()
	w.send(EntriesRead{Entries: []Entry{write(0, 0)}})
	w.send(RemoteTagRead{tag0()})
	first := find[Apply](w)
	w.send(EntriesRead{Entries: []Entry{write(0, 1)}})
	if has[Commit](w.send(Flush{})) {
		t.Fatalf("committed what nobody applied:\n%s", w.log.String())
	}
	w.send(Applied{Step: first.Step.ID(), Entries: 1})
	if p, _ := find[Commit](w).Position.Newest(); p.Entry != 0 {
		t.Fatalf("committed entry %d, applied only entry 0:\n%s", p.Entry, w.log.String())
	}
}

// What a replay has applied first is committed at once, and only then does the timer set the pace: whoever takes an image over
// shows at once that it goes on.
func TestTheFirstCommitDoesNotWait(t *testing.T) {
	w := newWorld(t)
	w.toReplay()
	w.send(EntriesRead{Entries: []Entry{write(0, 0)}})
	w.send(RemoteTagRead{tag0()})
	if !has[Commit](w.send(Applied{Step: find[Apply](w).Step.ID(), Entries: 1})) {
		t.Fatalf("the first commit waits:\n%s", w.log.String())
	}
	w.send(Committed{find[Commit](w).Position})
	w.send(EntriesRead{Entries: []Entry{write(0, 1)}})
	if effects := w.send(Applied{Step: find[Apply](w).Step.ID(), Entries: 1}); has[Commit](effects) || !has[After](effects) {
		t.Fatalf("the second does not wait for the timer:\n%s", w.log.String())
	}
	if !has[Commit](w.send(CommitDue{})) {
		t.Fatalf("nor does it follow the timer:\n%s", w.log.String())
	}
}

// A compare-and-write that waits for a checkpoint goes on when a commit that was under way
// turns out to cover it, although nothing else happens: it may be the journal's last entry.
func TestCheckpointCoveredByACommitUnderWay(t *testing.T) {
	w := newWorld(t)
	w.toReplay()
	w.send(EntriesRead{Entries: []Entry{write(0, 0)}})
	w.send(RemoteTagRead{tag0()})
	w.send(Applied{Step: find[Apply](w).Step.ID(), Entries: 1})
	commit := find[Commit](w)
	compare := write(0, 1)
	compare.Event = journal.AioCompareAndWrite{Length: 512, CompareData: make([]byte, 512), WriteData: make([]byte, 512)}
	if has[Apply](w.send(EntriesRead{Entries: []Entry{compare}})) {
		t.Fatalf("applied without a checkpoint before it:\n%s", w.log.String())
	}
	if !has[Apply](w.send(Committed{Position: commit.Position})) {
		t.Errorf("it waits for something else to happen:\n%s", w.log.String())
	}
}

// A long operation is shown until it is over; the positions stand still meanwhile.
func TestOperationProgress(t *testing.T) {
	w := newWorld(t)
	w.toReplay()
	if !has[Publish](w.send(OperationProgressed{Step: 7, Name: "Flatten", Done: 1, Total: 4})) {
		t.Error("nobody hears of it")
	}
	w.send(EntriesRead{Entries: []Entry{write(0, 0)}})
	w.send(RemoteTagRead{tag0()})
	apply := find[Apply](w).Step.ID()
	if p, _ := w.core.Progress(); p.Operation == nil || p.Operation.Done != 1 {
		t.Errorf("under way: %+v", p.Operation)
	}
	w.send(OperationProgressed{Step: apply, Name: "Flatten", Done: 2, Total: 4})
	w.send(Applied{Step: apply, Entries: 1})
	if p, _ := w.core.Progress(); p.Operation != nil {
		t.Errorf("over: %+v", p.Operation)
	}
}

// The local image is let go only when nothing is under way any more.
func TestCloseWaitsForEffects(t *testing.T) {
	w := newWorld(t)
	w.toReplay()
	w.send(EntriesRead{Entries: []Entry{write(0, 0)}})
	w.send(RemoteTagRead{tag0()})
	apply := find[Apply](w)
	for _, effects := range [][]Effect{
		w.send(Stop{Reason: "stopped"}),
		w.send(at(failure, Replaying)), // the read
	} {
		if has[Close](effects) {
			t.Fatalf("closed with a write under way:\n%s", w.log.String())
		}
	}
	w.send(Applied{Step: apply.Step.ID(), Entries: 1})
	w.send(Committed{find[Commit](w).Position})
	find[Close](w)
}

// Nothing more is applied once the image was found to be promoted.
func TestNothingIsAppliedAfterPromotion(t *testing.T) {
	w := newWorld(t)
	w.toReplay()
	w.send(LocalJournalChanged{Promotion: Primary})
	if has[Apply](w.send(EntriesRead{Entries: []Entry{write(0, 0)}})) {
		t.Fatalf("wrote to a primary image:\n%s", w.log.String())
	}
}

func TestLinkTags(t *testing.T) {
	pre := func(uuid string, tag journal.TagTID) journal.TagPredecessor {
		return journal.TagPredecessor{MirrorUUID: uuid, CommitValid: true, Tag: tag}
	}
	orphan := journal.OrphanMirrorUUID
	tests := []struct {
		name   string
		local  journal.TagData
		remote []Tag
		want   Link
	}{
		{"first copy", journal.TagData{MirrorUUID: them}, []Tag{{0, journal.TagData{}}}, Linked},
		{"replaying", journal.TagData{MirrorUUID: them, Predecessor: pre(them, 3)},
			[]Tag{{3, journal.TagData{}}, {4, journal.TagData{Predecessor: pre("", 3)}}}, Linked},
		{"promoted and demoted by force", journal.TagData{MirrorUUID: orphan, Predecessor: pre("", 9)},
			[]Tag{{3, journal.TagData{}}}, SplitBrain},
		{"they were demoted and promoted again", journal.TagData{MirrorUUID: orphan, Predecessor: pre(them, 3)},
			[]Tag{{3, journal.TagData{}}, {4, journal.TagData{MirrorUUID: orphan, Predecessor: pre("", 3)}},
				{5, journal.TagData{Predecessor: pre(orphan, 4)}}}, Reconnected},
		{"we were demoted, they were promoted", journal.TagData{MirrorUUID: orphan, Predecessor: pre("", 6)},
			[]Tag{{2, journal.TagData{MirrorUUID: us}}, {3, journal.TagData{MirrorUUID: orphan, Predecessor: pre(us, 6)}},
				{4, journal.TagData{Predecessor: pre(orphan, 3)}}}, Reconnected},
		{"their promotion does not follow the demotion", journal.TagData{MirrorUUID: orphan, Predecessor: pre("", 6)},
			[]Tag{{3, journal.TagData{MirrorUUID: orphan, Predecessor: pre(us, 6)}},
				{4, journal.TagData{Predecessor: pre("", 2)}}}, SplitBrain},
		{"they were promoted by force", journal.TagData{MirrorUUID: "", Predecessor: pre(them, 3)},
			[]Tag{{3, journal.TagData{}}}, SplitBrain},
		{"follows somebody else", journal.TagData{MirrorUUID: "third", Predecessor: pre("third", 3)},
			[]Tag{{3, journal.TagData{}}}, SplitBrain},
		{"no tags", journal.TagData{MirrorUUID: them}, nil, SplitBrain},
	}
	for _, tt := range tests {
		if got, _ := linkTags(tt.local, us, them, tt.remote); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
