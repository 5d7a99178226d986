package replayer

import (
	"context"
	"time"

	"github.com/rbdwarden/rbdwarden/image"
	imagesync "github.com/rbdwarden/rbdwarden/image/sync"
)

// sweepAgain is the time between attempts to remove a stray sync point.
const sweepAgain = 10 * time.Second

// sweep removes, in the background, sync points of ours from the primary that no record knows of. A worker that dies while it
// asks the owner of the primary's lock for a sync point leaves its request behind, and the owner may come to it when another
// sync point is made, or copied, or much later. The one that comes last is seen in the journal.
//
// Only while the image replays: there is no record of a sync then, so that every sync point of ours is a stray.
func (p *performer) sweep() {
	open, id, snapshots := p.open, p.remoteID, p.RemoteSnapshots(p.remoteID)
	p.looks.Go(func() {
		for {
			err := p.sweepOnce(open, id, snapshots)
			if err == nil || open.Err() != nil {
				return
			}
			p.Log.Warn().Err(err).Msg("cannot remove a snapshot of an earlier first copy from the primary; trying again")
			select {
			case <-open.Done():
				return
			case <-time.After(sweepAgain):
			}
		}
	})
}

func (p *performer) sweepOnce(ctx context.Context, id string, snapshots imagesync.Snapshots) error {
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	h, err := image.ReadHeader(ctx, p.Remote.IO, id)
	if err != nil {
		return err
	}
	return imagesync.RemoveStrays(ctx, snapshots, h.Snapshots, p.Local.MirrorUUID)
}

// ourSyncPoint tells whether a snapshot's name says that it is a sync point of ours.
func (p *performer) ourSyncPoint(name string) bool {
	return imagesync.IsSyncPoint(p.Local.MirrorUUID, name)
}
