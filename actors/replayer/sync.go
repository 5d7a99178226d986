package replayer

import (
	"context"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/image"
	imagesync "github.com/rbdwarden/rbdwarden/image/sync"
	"github.com/rbdwarden/rbdwarden/journal"
)

// sync is IMAGE_SYNC. A half copied image that is promoted meanwhile loses its lock
// when the machine hears of it, from LOCAL_JOURNAL_CHANGED or the lock's policy.
func (p *performer) sync(ctx context.Context, e core.Sync) (core.Msg, error) {
	release, err := p.SyncSlot(ctx, func() { p.notify(core.SyncProgressed{Waiting: true}) })
	if err != nil {
		return nil, err
	}
	defer release()
	p.notify(core.SyncProgressed{})
	meta, last := e.Meta, imagesync.Progress{}
	var parent image.CloneOf
	defer func() {
		if parent.IO != nil {
			parent.IO.Close()
		}
	}()
	err = p.withRemoteJournal(ctx, e.RemoteImageID, func(j *journal.Journal) error {
		if len(e.Meta.SyncPoints) == 0 {
			if err := p.skipWhatTheSyncCovers(ctx, j); err != nil {
				return err
			}
		}
		var err error
		meta, err = imagesync.Run(ctx, imagesync.Job{
			Remote: p.Remote.IO, RemoteID: e.RemoteImageID, Snapshots: p.RemoteSnapshots(e.RemoteImageID),
			Local: p.local.image, LocalPool: p.Local.IO, MirrorUUID: p.Local.MirrorUUID, Meta: e.Meta,
			Parent: func(ctx context.Context) (image.CloneOf, error) {
				h, err := image.ReadHeader(ctx, p.Remote.IO, e.RemoteImageID)
				if err == nil && parent.IO == nil {
					parent, err = p.localParent(ctx, h)
				}
				return parent, err
			},
			Save: func(ctx context.Context, meta wire.MirrorPeerClientMeta) error {
				return p.ours.Update(ctx, j, meta)
			},
			Copied: func(ctx context.Context, point wire.SyncPoint) (wire.Covered, error) {
				return p.skipToSyncPoint(ctx, j, point.SnapName)
			},
			InPlace: e.InPlace, TrustMap: e.TrustMap,
			Limits: p.pacedSync(), Checkpoint: p.CheckpointInterval,
			Progress: func(pr imagesync.Progress) {
				if pr == last {
					return // it tells every second; for the watchdog whatever is told is progress
				}
				p.notify(core.SyncProgressed{ObjectsDone: pr.ObjectsDone, ObjectsTotal: pr.ObjectsTotal, Bytes: pr.BytesRead, BytesCompared: pr.BytesCompared})
				last = pr
			},
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	if e.InPlace {
		p.Log.Info().Uint64("compared_bytes", last.BytesCompared).Uint64("copied_bytes", last.BytesRead).Msg("re-synced in place")
	}
	return core.Synced{Meta: meta}, nil
}

// skipWhatTheSyncCovers moves our commit position to the primary's own, before the sync
// point is made: what the primary has committed by then is in the snapshot. A client
// that was just registered stands at the position of the slowest of all others, a
// disconnected one included, which may have been trimmed already; and replaying what
// the copy has would take the copy back in time.
//
// With a sync point there already, the position must stay: what came between the
// sync point and now is not in the copy.
func (p *performer) skipWhatTheSyncCovers(ctx context.Context, j *journal.Journal) error {
	primary, err := j.Client(ctx, wire.MasterClientID)
	if err != nil {
		return err
	}
	if len(primary.CommitPosition) == 0 {
		return nil
	}
	return p.ours.Commit(ctx, j, primary.CommitPosition)
}
