package replayer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"syscall"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/image/compare"
	"github.com/rbdwarden/rbdwarden/journal"
)

// A re-sync in place keeps the local copy. The request to re-sync, a flag in the local
// journal, stays until the copy is complete. So whatever happens on the way, an image
// that is half of the one and half of the other is known as such: we start over in
// place, and rbd-mirror, which knows no other way, removes it and copies everything.
//
//	request stays ─▶ local tag: follows the remote ─▶ our client: syncing ─▶ sync in
//	place (see image/sync/inplace.go) ─▶ our client: replaying ─▶ request goes

// resyncsInPlace tells in which way a re-sync is to go: as it was asked for; else as
// configured. An image with rbd_mirroring_delete_delay keeps what a re-sync replaces for
// that time, which only a new copy can.
func (p *performer) resyncsInPlace(ctx context.Context, imageID string, o image.MirroringOptions) (bool, error) {
	j, err := journal.Open(ctx, p.Local.IO, imageID)
	if errors.Is(err, syscall.ENOENT) {
		return false, nil // half an image
	}
	if err != nil {
		return false, err
	}
	defer j.Close()
	switch choice, err := j.ResyncChoice(ctx); {
	case err != nil:
		return false, err
	case choice == journal.ResyncInPlace:
		return true, nil
	case choice == journal.ResyncFull:
		return false, nil
	}
	return p.ResyncInPlace && o.DeleteDelay == 0, nil
}

// startResync is BEGIN_RESYNC.
func (p *performer) startResync(ctx context.Context, remoteID string) (core.Msg, error) {
	done, err := p.local.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	why, err := p.whyNotKept(ctx)
	if err != nil {
		return nil, err
	}
	if why != "" {
		p.Log.Info().Str("why", why).Msg("the copy cannot be kept: it is made anew")
		return core.ResyncBegun{Why: why}, nil
	}
	if !p.local.lock.Valid() {
		return nil, errNotOwner
	}
	if err := p.local.journal.KeepResync(ctx); err != nil {
		return nil, err
	}
	m := core.ResyncBegun{Kept: true, TagData: p.local.role().data}
	// As that of a first copy: it follows the remote, and no history parts them.
	if tag := (wire.TagData{MirrorUUID: p.Remote.MirrorUUID}); m.TagData.MirrorUUID != tag.MirrorUUID || m.TagData.Predecessor.CommitValid {
		if err := p.local.newTag(ctx, tag); err != nil {
			return nil, err
		}
		m.TagData = tag
	}
	m.Meta, m.TrustMap, err = p.syncingClient(ctx, remoteID)
	return m, err
}

// whyNotKept says what about the local image a sync in place cannot mend; "" if it
// can.
func (p *performer) whyNotKept(ctx context.Context) (string, error) {
	here, there := p.local.image.Header(), p.remoteHeader
	switch different := here.Features ^ there.Features; {
	case here.HasParent() || there.HasParent():
		return "it is a clone", nil
	case !compare.SameLayout(here.Layout, there.Layout):
		return "its objects or stripes have another size", nil
	case different&^rbd.FeatureDataPool != 0:
		return fmt.Sprintf("the features %v differ", different&^rbd.FeatureDataPool), nil
	}
	for _, s := range here.Snapshots {
		if s.Namespace != nil && s.Namespace.Kind() != rbd.SnapshotUser && s.Namespace.Kind() != rbd.SnapshotTrash {
			return fmt.Sprintf("snapshot %q is of a kind that journals do not mirror", s.Name), nil
		}
	}
	return p.uncommitted(ctx)
}

// uncommitted says whether the local journal has entries that its image has not
// committed: from a time when it was primary. A later promotion would replay them, over
// what the re-sync has brought.
func (p *performer) uncommitted(ctx context.Context) (string, error) {
	t, err := journal.NewTailer(ctx, p.local.journal, p.lookingAhead(wire.MasterClientID))
	if err != nil {
		return "", err
	}
	defer t.Close()
	for {
		b, err := t.Next(ctx, lookAheadBudget)
		var damaged *journal.CorruptError
		switch {
		case errors.As(err, &damaged):
			return fmt.Sprintf("its own journal is damaged: %v", err), nil
		case err != nil:
			return "", err
		case len(b.Entries) > 0:
			return "its own journal has entries that were never applied", nil
		case b.CaughtUp:
			return "", nil
		}
	}
}

// syncingClient records in the remote journal that our copy is not complete. trust says
// that it was before, so that its object map can be believed.
func (p *performer) syncingClient(ctx context.Context, remoteID string) (meta wire.MirrorPeerClientMeta, trust bool, err error) {
	id := p.local.image.ID()
	err = p.withRemoteJournal(ctx, remoteID, func(j *journal.Journal) error {
		client, err := j.Client(ctx, p.Local.MirrorUUID)
		registered := err == nil
		if registered && !p.ours.Is(client) {
			return journal.ErrOvertaken
		}
		if err != nil && !errors.Is(err, syscall.ENOENT) {
			return err
		}
		if registered {
			if meta, err = peerMeta(client, j); err != nil {
				return err
			}
		}
		trust = registered && meta.ImageID == id && meta.State == wire.PeerReplaying
		if meta.ImageID != id {
			meta.SyncObjectCount = 0
		}
		meta.ImageID, meta.State, meta.SnapSeqs = id, wire.PeerSyncing, nil
		for i := range meta.SyncPoints {
			meta.SyncPoints[i].ObjectNumber = nil
		}
		if registered && client.State == wire.Connected {
			return p.ours.Update(ctx, j, meta)
		}
		// What came after a sync point may have been trimmed: it is of no use any more.
		snapshots := p.RemoteSnapshots(remoteID)
		for _, s := range meta.SyncPoints {
			if err := snapshots.Remove(ctx, s.SnapName); err != nil && !errors.Is(err, syscall.ENOENT) {
				return fmt.Errorf("remove sync point: %w", err)
			}
		}
		meta.SyncPoints = nil
		if registered {
			if err := p.ours.Unregister(ctx, j); err != nil && !errors.Is(err, syscall.ENOENT) {
				return err
			}
		}
		return p.register(ctx, j, meta)
	})
	return meta, trust, err
}

// finishResync is END_RESYNC. The copy is complete, and our client says so.
func (p *performer) finishResync(ctx context.Context) (core.Msg, error) {
	done, err := p.local.enterOwned(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	choice, err := p.local.journal.ResyncChoice(ctx)
	if err != nil {
		return nil, err
	}
	if choice == journal.ResyncFull {
		return core.ResyncEnded{Again: true}, nil
	}
	return core.ResyncEnded{}, p.local.journal.FinishResync(ctx)
}

// inPlaceDescription tells how far a re-sync in place is, and what it has saved so far.
func inPlaceDescription(s core.SyncProgressed) string {
	if s.Waiting || s.ObjectsTotal == 0 {
		return "resyncing in place, " + syncDescription(s)
	}
	return fmt.Sprintf("resyncing in place, %.0f%%, compared %d bytes, copied %d bytes",
		math.Floor(syncPercent(s)), s.BytesCompared, s.Bytes)
}
