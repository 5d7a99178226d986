package replayer

import (
	"context"
	"errors"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/journal"
	"github.com/rbdwarden/rbdwarden/replay"
)

// skipToSyncPoint moves our commit position over the entries before the sync point's own
// snapshot event, once everything up to it is copied.
//
// They lie between the primary's commit position, which it stores every few seconds, and
// the sync point. Replaying writes again would only take the copy back in time for a
// while; replaying operations would do harm: a snapshot that was removed and taken again
// under its name would be taken anew from what the head is now, and one that is gone
// cannot be protected.
//
// An operation that is under way at the sync point is still to be replayed, so the position
// stays before it, and the record says what between the two to pass over.
//
// Whatever is unclear (damage, an event that nobody knows, no such event) leaves the
// position where it is: replay meets it again and tells.
func (p *performer) skipToSyncPoint(ctx context.Context, j *journal.Journal, name string) (covered wire.Covered, err error) {
	client, err := j.Client(ctx, p.Local.MirrorUUID)
	if err != nil {
		return covered, err
	}
	t, err := journal.NewTailer(ctx, j, p.lookingAhead(p.Local.MirrorUUID))
	if err != nil {
		return covered, err
	}
	defer t.Close()
	c := replay.NewCover(j.Metadata().SplayWidth, client.CommitPosition, name)
	for {
		b, err := t.Next(ctx, lookAheadBudget)
		var corrupt *journal.CorruptError
		if errors.As(err, &corrupt) {
			return covered, nil
		}
		if err != nil {
			return covered, err
		}
		for _, e := range b.Entries {
			ev, err := t.Event(e)
			if _, unknown := ev.Event.(wire.Unknown); err != nil || unknown {
				return covered, nil
			}
			if position, covered, found := c.Push(e.Position, ev.Event); found {
				return covered, p.ours.Commit(ctx, j, position)
			}
		}
		done(b.Entries)
		if b.CaughtUp {
			p.Log.Warn().Str("snapshot", name).Msg("the sync point's event is not in the remote journal; replay begins before it")
			return covered, nil
		}
	}
}
