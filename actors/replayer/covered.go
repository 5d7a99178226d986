package replayer

import (
	"context"
	"errors"
	"slices"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/journal"
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
// Whatever is unclear (damage, an event that nobody knows, no such event) leaves the
// position where it is: replay meets it again and tells.
func (p *performer) skipToSyncPoint(ctx context.Context, j *journal.Journal, name string) error {
	client, err := j.Client(ctx, p.Local.MirrorUUID)
	if err != nil {
		return err
	}
	t, err := journal.NewTailer(ctx, j, p.lookingAhead(p.Local.MirrorUUID))
	if err != nil {
		return err
	}
	defer t.Close()
	c := &covered{width: j.Metadata().SplayWidth, name: name, position: slices.Clone(client.CommitPosition)}
	for {
		b, err := t.Next(ctx, lookAheadBudget)
		var corrupt *journal.CorruptError
		if errors.As(err, &corrupt) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, e := range b.Entries {
			ev, err := t.Event(e)
			if _, unknown := ev.Event.(wire.Unknown); err != nil || unknown {
				return nil
			}
			if c.entry(e.Position, ev.Event) {
				return p.ours.Commit(ctx, j, c.position)
			}
		}
		done(b.Entries)
		if b.CaughtUp {
			p.Log.Warn().Str("snapshot", name).Msg("the sync point's event is not in the remote journal; replay begins before it")
			return nil
		}
	}
}

// covered finds out how much of a journal the copy of a sync point has: all before the
// sync point's event but operations that had not ended then.
type covered struct {
	width    uint8
	name     string // the sync point's
	position wire.ObjectSetPosition
	tag      wire.TagTID
	open     []openOperation // without OpFinish so far, oldest first
}

// openOperation is an operation with the commit position that lies before its event.
type openOperation struct {
	op     wire.OpTID
	before wire.ObjectSetPosition
}

// entry looks at the next entry. True if it is the sync point's event; then position is
// how far the copy reaches.
func (c *covered) entry(at wire.ObjectPosition, ev wire.Event) (found bool) {
	if at.Tag != c.tag { // the primary has ended all operations of an older session
		c.tag, c.open = at.Tag, nil
	}
	switch v := ev.(type) {
	case wire.OpFinish:
		c.open = slices.DeleteFunc(c.open, func(o openOperation) bool { return o.op == v.Op })
	case wire.Operation:
		if create, ok := v.(wire.SnapCreate); ok && create.Name == c.name {
			c.advance(at)
			if len(c.open) > 0 {
				c.position = c.open[0].before
			}
			return true
		}
		c.open = append(c.open, openOperation{op: v.Operation(), before: slices.Clone(c.position)})
	}
	c.advance(at)
	return false
}

// advance puts an entry first and lets go of the older one at its splay offset.
func (c *covered) advance(at wire.ObjectPosition) {
	c.position = slices.DeleteFunc(c.position, func(p wire.ObjectPosition) bool {
		return p.Object.SplayOffset(c.width) == at.Object.SplayOffset(c.width)
	})
	c.position = slices.Insert(c.position, 0, at)
}
