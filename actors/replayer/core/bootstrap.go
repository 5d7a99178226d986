package core

import (
	"fmt"

	"github.com/rbdwarden/rbdwarden/ceph/journal"
)

// stepBootstrap handles the results that lead from PREPARE_LOCAL_IMAGE to
// START_REPLAY. A result that the state did not ask for is a programming error.
func (c *Core) stepBootstrap(m Msg) {
	switch m := m.(type) {
	case LocalPrepared:
		c.localPrepared(m.Local)
	case RemotePrepared:
		c.remotePrepared(m.Remote)
	case RemoteClientsRead:
		c.boot.tagClass, c.boot.reg, c.boot.connected, c.boot.meta = m.TagClass, m.Registered, m.Connected, m.Meta
		if c.isPrimary() {
			c.registerPrimary()
			return
		}
		c.become(OpenRemoteImage, OpenRemote{RemoteImageID: c.boot.remote.ImageID})
	case RemoteOpened:
		c.remoteOpened()
	case ClientUnregistered:
		c.boot.reg = false
		c.register()
	case ClientRegistered:
		c.boot.meta, c.boot.reg, c.boot.connected = m.Meta, true, true
		if c.isPrimary() {
			c.registerPrimary()
			return
		}
		c.boot.late = c.boot.local.Exists && !c.boot.local.HalfMade
		c.clientReady()
	case ClientUpdated:
		c.boot.meta = m.Meta
		if c.state == UpdateClientState {
			c.become(CloseRemoteImage, CloseRemote{})
			return
		}
		c.clientReady()
	case LocalCreated:
		c.become(OpenLocalImage, OpenLocal(m))
	case LocalImageIDTaken:
		c.prepareClientForNewImage(false)
	case LocalOpened:
		c.localOpened(m)
	case RemoteTagsRead:
		c.remoteTagsRead(m.Tags)
	case Synced:
		c.boot.meta = m.Meta
		if c.boot.inPlace {
			c.become(EndResync, FinishResync{})
			return
		}
		c.updateClientState()
	case ResyncBegun:
		c.resyncBegun(m)
	case ResyncEnded:
		c.boot.inPlace = false
		if m.Again {
			c.stop(StopCause{Reason: ResyncWanted, Text: "resync requested"})
			return
		}
		c.updateClientState()
	case RemoteClosed:
		c.become(InitRemoteJournaler, InitJournaler{RemoteImageID: c.boot.remote.ImageID})
	case JournalerReady:
		c.journalerReady(m)
	case Flush, CommitDue:
	default:
		panic(fmt.Sprintf("core: %T in %s", m, c.state))
	}
}

func (c *Core) localPrepared(local Local) {
	c.boot.local = local
	switch {
	case local.Exists && local.Snapshot:
		c.stop(StopCause{Reason: Unsupported, Text: "local image is mirrored by snapshots, not by its journal"})
	case local.Trashed:
		c.stop(StopCause{Reason: Removing, Text: "completing the removal of the local image", Remove: true})
	default:
		c.become(PrepareRemoteImage, PrepareRemote{})
	}
}

func (c *Core) remotePrepared(remote Remote) {
	c.boot.remote = remote
	local := c.boot.local
	// A copy of ours follows the remote; or has nothing in it yet; or its removal was
	// interrupted when its journal was gone already.
	linked := local.Exists && (local.HalfMade ||
		local.Promotion == NonPrimary && local.PrimaryUUID == c.cfg.RemoteMirrorUUID ||
		local.Disabling && local.Promotion == PromotionUnknown)
	switch {
	case local.Exists && local.Promotion == Primary:
		c.registerPrimary()
	case !remote.Exists && linked:
		c.stop(StopCause{Reason: RemoteGone, Text: "remote image no longer exists", Remove: true})
	case !remote.Exists && local.Exists:
		c.stop(StopCause{Reason: RemoteMissing, Text: "the remote site has no such image, and the local image does not follow that site"})
	case !remote.Exists:
		c.stop(StopCause{Reason: NothingToDo, Text: "remote image does not exist"})
	case remote.Snapshot:
		c.stop(StopCause{Reason: Unsupported, Text: "remote image is mirrored by snapshots, not by its journal"})
	case remote.Disabling:
		c.stop(StopCause{Reason: RemoteNotPrimary, Text: "mirroring of the remote image is being disabled"})
	case remote.Promotion != Primary && (!local.Exists || local.HalfMade):
		c.stop(StopCause{Reason: RemoteNotPrimary, Text: "remote image is not primary"})
	case local.ResyncRequested && !local.Disabling && remote.Promotion == Primary:
		// Whatever is wrong with the copy or our client, a new copy mends it.
		if local.ResyncInPlace {
			c.boot.inPlace = true
			c.become(GetRemoteTagClass, ReadRemoteClients{RemoteImageID: remote.ImageID})
			return
		}
		c.stop(StopCause{Reason: ResyncWanted, Text: "resync requested", Remove: true})
	default:
		c.become(GetRemoteTagClass, ReadRemoteClients{RemoteImageID: remote.ImageID})
	}
}

func (c *Core) isPrimary() bool { return c.boot.local.Exists && c.boot.local.Promotion == Primary }

// registerPrimary is all that is done for a local image that is primary: our client is
// registered with the journal of the replica, so that, should that be promoted, its
// journal keeps every entry and tag for us from the first one on. Without it the way
// back would need a resync. It is done as well as can be: the image is primary, and
// the status says that, whatever the other site does.
func (c *Core) registerPrimary() {
	remote := c.boot.remote
	switch {
	case c.state == PrepareRemoteImage && remote.Exists && !remote.Snapshot && !remote.Disabling:
		c.become(GetRemoteTagClass, ReadRemoteClients{RemoteImageID: remote.ImageID})
	case c.state == GetRemoteTagClass && !c.boot.reg:
		c.register()
	default:
		c.stop(StopCause{Reason: LocalIsPrimary, Text: "local image is primary"})
	}
}

// remoteOpened is IS_PRIMARY: a copy of ours that follows the remote goes on even if
// the remote is not primary any more, to replay its demotion.
func (c *Core) remoteOpened() {
	local := c.boot.local
	switch {
	case c.boot.inPlace:
		c.become(OpenLocalImage, OpenLocal{ImageID: local.ImageID})
	case c.boot.reg && !c.boot.connected && local.Exists && c.boot.meta.ImageID == local.ImageID:
		if local.ResyncAfterDisconnect && c.boot.remote.Promotion == Primary && !local.Disabling {
			c.resyncByItself("disconnected: automatic resync")
			return
		}
		c.stop(StopCause{Reason: PeerDisconnected, Text: "disconnected"})
	case !local.Exists || local.HalfMade:
		c.prepareClientForNewImage(true)
	case !c.boot.reg:
		c.register()
	case c.boot.meta.ImageID != local.ImageID && c.boot.meta.State == journal.PeerSyncing &&
		local.PrimaryUUID == c.cfg.RemoteMirrorUUID && c.boot.remote.Promotion == Primary && !local.Disabling:
		// The primary's site says that there is no complete copy here, and what there is
		// follows it: two attempts to begin the copy have crossed, one of them being a dead
		// process's last words that arrived late.
		c.resyncByItself("the copy was begun twice: automatic resync")
	case local.Disabling && local.Promotion == PromotionUnknown:
		// Nothing is left of it but its record, which could not be removed, as on a full disk: whatever our client
		// belongs to, it is not this. OPEN_LOCAL_IMAGE finds nothing, and a new one is made.
		c.become(OpenLocalImage, OpenLocal{ImageID: local.ImageID})
	case c.boot.meta.ImageID != local.ImageID:
		// The commit position speaks of another copy: what it skips may be missing here.
		c.stop(StopCause{Reason: WrongPeerImage, Text: fmt.Sprintf(
			"the remote journal's client belongs to local image id %q, not to %q: resync the image",
			c.boot.meta.ImageID, local.ImageID)})
	default:
		c.become(OpenLocalImage, OpenLocal{ImageID: local.ImageID})
	}
}

// resyncByItself begins a re-sync that nobody asked for.
func (c *Core) resyncByItself(why string) {
	if c.boot.local.ResyncInPlace {
		c.boot.inPlace = true
		c.become(OpenLocalImage, OpenLocal{ImageID: c.boot.local.ImageID})
		return
	}
	c.stop(StopCause{Reason: ResyncWanted, Text: why, Remove: true})
}

// prepareClientForNewImage records, on the remote side, the id that the local image
// will have and that it is not synced: only then may the image be created, so that
// a crash in between leaves a half-made image that is known as such.
//
// A registered client keeps its commit position: the sync point that follows is
// newer, and replay from an older position is harmless. A disconnected one has lost
// its position (the journal was trimmed without it) and is registered anew.
func (c *Core) prepareClientForNewImage(reuse bool) {
	switch {
	case !c.boot.reg:
		c.register()
	case !c.boot.connected:
		c.become(UnregisterClient, UnregisterPeer{RemoteImageID: c.boot.remote.ImageID})
	case reuse && c.boot.meta.ImageID != "" && c.boot.meta.State == journal.PeerSyncing &&
		(!c.boot.local.Exists || c.boot.local.ImageID == c.boot.meta.ImageID):
		// An earlier attempt got this far: complete its image.
		c.become(CreateLocalImage, CreateLocal{ImageID: c.boot.meta.ImageID})
	default:
		meta := c.boot.meta
		meta.State = journal.PeerSyncing
		meta.SnapSeqs = nil
		meta.SyncObjectCount = 0
		for i := range meta.SyncPoints {
			meta.SyncPoints[i].ObjectNumber = nil // a new image starts from its first object
		}
		newID := !c.boot.local.HalfMade || c.boot.local.ImageID == c.boot.meta.ImageID
		if !newID {
			meta.ImageID = c.boot.local.ImageID
		}
		c.become(UpdateClientImage, UpdatePeer{RemoteImageID: c.boot.remote.ImageID, Meta: meta, NewImageID: newID})
	}
}

// register registers our client: syncing if the local image is still to be made,
// replaying if it exists.
func (c *Core) register() {
	meta := journal.MirrorPeerClientMeta{State: journal.PeerSyncing}
	newID := true
	switch local := c.boot.local; {
	case local.HalfMade:
		meta.ImageID, newID = local.ImageID, false
	case local.Exists:
		meta.ImageID, newID, meta.State = local.ImageID, false, journal.PeerReplaying
	}
	c.become(RegisterClient, RegisterPeer{RemoteImageID: c.boot.remote.ImageID, Meta: meta, NewImageID: newID})
}

func (c *Core) clientReady() {
	if local := c.boot.local; local.Exists && !local.HalfMade {
		c.become(OpenLocalImage, OpenLocal{ImageID: local.ImageID})
		return
	}
	c.become(CreateLocalImage, CreateLocal{ImageID: c.boot.meta.ImageID})
}

func (c *Core) localOpened(m LocalOpened) {
	if m.Missing {
		// The mirror record names an image that is not there: make a new one.
		c.boot.local, c.boot.inPlace = Local{}, false
		c.prepareClientForNewImage(false)
		return
	}
	if m.Name != "" {
		c.boot.local.Name = m.Name
	}
	c.boot.local.Exists, c.boot.local.HalfMade = true, false
	c.boot.local.Promotion = m.Promotion
	c.boot.localTag = m.TagData
	switch {
	case m.Promotion == Primary:
		c.stop(StopCause{Reason: LocalIsPrimary, Text: "local image is primary"})
	case m.TagData.MirrorUUID != c.cfg.RemoteMirrorUUID && c.boot.remote.Promotion != Primary:
		c.stop(StopCause{Reason: RemoteNotPrimary, Text: "remote image is not primary"})
	case c.boot.inPlace:
		c.become(BeginResync, StartResync{RemoteImageID: c.boot.remote.ImageID})
	case c.resyncs(m.ResyncRequested):
		c.stop(StopCause{Reason: ResyncWanted, Text: "resync requested"})
	case c.boot.local.Disabling:
		c.stop(StopCause{Reason: LocalDisabling, Text: "mirroring of the local image is being disabled"})
	default:
		c.become(GetRemoteTags, ReadRemoteTags{RemoteImageID: c.boot.remote.ImageID, Class: c.boot.tagClass})
	}
}

// resyncBegun goes on with the sync in place. The request to re-sync stays until that is
// complete, so that a crash, and a daemon that knows nothing of this, start over.
func (c *Core) resyncBegun(m ResyncBegun) {
	if !m.Kept {
		c.stop(StopCause{Reason: ResyncWanted, Text: "resync requested, the copy cannot be kept: " + m.Why, Remove: true})
		return
	}
	c.boot.meta, c.boot.reg, c.boot.connected = m.Meta, true, true
	c.boot.localTag, c.boot.link = m.TagData, Linked
	c.become(ImageSync, Sync{RemoteImageID: c.boot.remote.ImageID, Meta: m.Meta, InPlace: true, TrustMap: m.TrustMap})
}

func (c *Core) remoteTagsRead(tags []Tag) {
	local := c.boot.localTag
	if c.boot.meta.State == journal.PeerSyncing && local.MirrorUUID == c.cfg.RemoteMirrorUUID {
		c.become(ImageSync, Sync{RemoteImageID: c.boot.remote.ImageID, Meta: c.boot.meta})
		return
	}
	link, promotion := linkTags(local, c.cfg.LocalMirrorUUID, c.cfg.RemoteMirrorUUID, tags)
	if link == SplitBrain {
		c.stop(StopCause{Reason: SplitBrained, Text: "split-brain detected"})
		return
	}
	c.boot.link, c.boot.promotion = link, promotion
	c.updateClientState()
}

// updateClientState records that the image is synced, if the remote does not know.
func (c *Core) updateClientState() {
	if c.boot.meta.State == journal.PeerReplaying {
		c.become(CloseRemoteImage, CloseRemote{})
		return
	}
	meta := c.boot.meta
	meta.State = journal.PeerReplaying
	c.become(UpdateClientState, UpdatePeer{RemoteImageID: c.boot.remote.ImageID, Meta: meta})
}

func (c *Core) journalerReady(m JournalerReady) {
	if m.Disconnected {
		c.stop(StopCause{Reason: PeerDisconnected, Text: "disconnected"})
		return
	}
	if c.boot.late && c.mayHaveMissed(m.Committed) {
		c.stop(StopCause{Reason: EntriesMissed, Text: "this site was not registered with the remote journal, " +
			"so entries may be missing here: resync the image"})
		return
	}
	c.rep = newReplaying(c.cfg, m)
	c.rep.localTag = c.boot.localTag
	c.become(StartReplay, StartTailing{})
}

// mayHaveMissed tells whether entries may lie before the position of our client, which
// was registered just now, that this image never saw: a new client stands where the
// slowest other one is. A promotion's first entry is the promotion itself.
func (c *Core) mayHaveMissed(committed journal.ObjectSetPosition) bool {
	at, known := committed.Newest()
	reign := c.boot.promotion
	return known && !(c.boot.link == Reconnected && (at.Tag < reign || at.Tag == reign && at.Entry == 0))
}

// localJournalChanged reacts to a forced promotion or a request to re-sync.
func (c *Core) localJournalChanged(p Promotion, resync bool) {
	switch {
	case p == Primary:
		c.stop(StopCause{Reason: ForcePromoted, Text: "force promoted"})
	case c.resyncs(resync):
		c.stop(StopCause{Reason: ResyncWanted, Text: "resync requested"})
	}
}

// resyncs tells whether a request to re-sync stops the image. Without a primary there is
// nothing to copy: the copy that there is stays, and follows the other site until it
// has a primary again. The removal itself is decided when the image starts again. One
// that is being re-synced in place does what was asked for.
func (c *Core) resyncs(requested bool) bool {
	return requested && !c.boot.inPlace && c.boot.remote.Promotion == Primary
}

func (c *Core) remoteJournalChanged(m RemoteJournalChanged) {
	switch {
	case m.Unmirrored:
		// What we commit from here on could be taken for another copy's progress. What becomes of this one, the next
		// start finds out.
		c.stop(StopCause{Reason: RemoteGone, Text: "remote image is no longer mirrored"})
	case m.Disconnected:
		c.stop(StopCause{Reason: PeerDisconnected, Text: "disconnected"})
	case c.rep != nil:
		c.rep.primary = m.Primary
		for _, t := range m.Tags {
			c.rep.tags[t.TID] = t.Data
		}
		c.do(Publish{})
	}
}
