package replayer

import (
	"context"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	imagesync "github.com/rbdwarden/rbdwarden/image/sync"
	"github.com/rbdwarden/rbdwarden/journal"
)

// sync is IMAGE_SYNC. A half copied image that is promoted meanwhile loses its lock
// when the machine hears of it, from LOCAL_JOURNAL_CHANGED or the lock's policy.
func (p *performer) sync(ctx context.Context, e core.Sync) (core.Msg, error) {
	release, err := p.SyncSlot(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	meta := e.Meta
	err = p.withRemoteJournal(ctx, e.RemoteImageID, func(j *journal.Journal) error {
		var err error
		meta, err = imagesync.Run(ctx, imagesync.Job{
			Remote: p.Remote.IO, RemoteID: e.RemoteImageID, Snapshots: p.RemoteSnapshots(e.RemoteImageID),
			Local: p.local.image, MirrorUUID: p.Local.MirrorUUID, Meta: e.Meta,
			Save: func(ctx context.Context, meta wire.MirrorPeerClientMeta) error {
				return j.UpdateClient(ctx, p.Local.MirrorUUID, meta)
			},
			Limits: p.SyncLimits, Checkpoint: p.CheckpointInterval,
			Progress: func(pr imagesync.Progress) {
				p.notify(core.SyncProgressed{ObjectsDone: pr.ObjectsDone, ObjectsTotal: pr.ObjectsTotal, Bytes: pr.BytesRead})
			},
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return core.Synced{Meta: meta}, nil
}
