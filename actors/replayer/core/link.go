package core

import (
	"github.com/rbdwarden/rbdwarden/ceph/journal"
)

// Link says how the local image's newest tag relates to the remote's chain of tags.
type Link uint8

// The ways in which two journals can relate.
const (
	// Linked: the local image follows the remote and may go on replaying.
	Linked Link = iota + 1
	// Reconnected: both were demoted at the same point and the remote was promoted
	// after that; the local image may follow it.
	Reconnected
	// SplitBrain: the histories parted. Only an operator can say which one counts.
	SplitBrain
)

// linkTags decides whether the local image may follow the remote. local is the
// local journal's newest tag, remote the remote journal's tags, oldest first. promotion
// is the remote's tag that began its reign, if it is Reconnected.
//
// A tag says who wrote from it on (mirror uuid) and where the writer before stopped
// (predecessor). In the remote journal "" is the remote and our own mirror uuid is
// us; in the local journal it is the other way round.
//
// Invariant: the answer is SplitBrain unless the tags prove that everything that
// the local image contains is also in the remote's history.
//
// Source of the rules: src/tools/rbd_mirror/image_replayer/journal/PrepareReplayRequest.cc.
func linkTags(local journal.TagData, localUUID, remoteUUID string, remote []Tag) (_ Link, promotion journal.TagTID) {
	demotion, demoted, seen := journal.TagTID(0), false, false
	for _, tag := range remote {
		if local.Predecessor.CommitValid && local.Predecessor.MirrorUUID == remoteUUID &&
			local.Predecessor.Tag > tag.TID {
			continue // the local image is past this tag
		}
		seen = true
		if !local.Predecessor.CommitValid || local.MirrorUUID != journal.OrphanMirrorUUID {
			// The first copy, or one that was replaying: its newest tag names whom
			// it follows, and the remote's own tags have nothing to add.
			continue
		}

		// The local image was demoted, or followed a demotion: look for the same
		// demotion in the remote's tags and, right after it, a promotion there.
		same := tag.Data.MirrorUUID == journal.OrphanMirrorUUID &&
			tag.Data.Predecessor.CommitValid &&
			tag.Data.Predecessor.Tag == local.Predecessor.Tag
		byUs := tag.Data.Predecessor.MirrorUUID == localUUID &&
			local.Predecessor.MirrorUUID == journal.LocalMirrorUUID
		byThem := tag.Data.Predecessor.MirrorUUID == journal.LocalMirrorUUID &&
			local.Predecessor.MirrorUUID == remoteUUID
		if same && (byUs || byThem) {
			demotion, demoted = tag.TID, true
			continue
		}
		if demoted && tag.Data.MirrorUUID == journal.LocalMirrorUUID &&
			tag.Data.Predecessor.MirrorUUID == journal.OrphanMirrorUUID &&
			tag.Data.Predecessor.CommitValid && tag.Data.Predecessor.Tag == demotion {
			return Reconnected, tag.TID
		}
		demoted = false // a promotion counts only right behind the demotion
	}
	if seen && local.MirrorUUID == remoteUUID {
		return Linked, 0
	}
	return SplitBrain, 0
}

// translateTag rewrites a remote tag's data for the local journal: "" and our own
// mirror uuid change places.
func translateTag(remote journal.TagData, localUUID, remoteUUID string) journal.TagData {
	swap := func(uuid string) string {
		switch uuid {
		case journal.LocalMirrorUUID:
			return remoteUUID
		case localUUID:
			return journal.LocalMirrorUUID
		}
		return uuid
	}
	remote.MirrorUUID = swap(remote.MirrorUUID)
	remote.Predecessor.MirrorUUID = swap(remote.Predecessor.MirrorUUID)
	return remote
}
