package core

import (
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/journal"
)

// Progress is how far a replay is.
type Progress struct {
	Primary journal.ObjectPosition // newest entry that the primary's client has committed
	Safe    journal.ObjectPosition // newest entry of the contiguous prefix that is durable here
	// EntriesBehind counts the entries behind Safe that are known of.
	EntriesBehind int64
	// OldestWaiting is when the primary wrote the oldest entry that was read and is
	// not safe; zero if there is none.
	OldestWaiting time.Time
	// WaitingSince is when it was read, by our own clock; zero if there is none.
	WaitingSince time.Time
	BytesHeld    int
	// ReplayDelay is rbd_mirroring_replay_delay while entries wait for it, else 0.
	ReplayDelay time.Duration
	// Operation is under way and takes its time, while Safe stays before it; nil if
	// there is none.
	Operation *OperationProgressed
}

// Progress tells how far the replay is; false when there is none.
func (c *Core) Progress() (Progress, bool) {
	r := c.rep
	if r == nil {
		return Progress{}, false
	}
	p := Progress{BytesHeld: r.planner.Held(), Operation: r.operation}
	p.Primary, _ = r.primary.Newest()
	var known bool
	p.Safe, known = r.planner.Position().Newest()
	p.EntriesBehind = max(r.behind(p.Primary, p.Safe, known), r.behind(r.read, p.Safe, known), r.behind(r.held.Last, p.Safe, known))
	if len(r.waiting) > 0 {
		p.OldestWaiting, p.WaitingSince = r.waiting[0].oldest, r.waiting[0].read
	} else {
		p.OldestWaiting = r.held.Oldest
	}
	p.ReplayDelay = r.held.Delay
	return p, true
}

// Released counts the bytes of entries that were read in this replay and are not held
// any more, oldest first to within the steps that are under way together; false when
// there is no replay.
func (c *Core) Released() (int64, bool) {
	if c.rep == nil {
		return 0, false
	}
	return c.rep.pushed - int64(c.rep.planner.Held()), true
}

// behind counts the entries from safe to newest, across tags: a tag's predecessor
// says how many entries the tag before it had. known is false when nothing is safe yet.
func (r *replaying) behind(newest, safe journal.ObjectPosition, known bool) int64 {
	if newest == (journal.ObjectPosition{}) {
		return 0
	}
	var n int64
	for newest.Tag > safe.Tag || !known {
		n += int64(newest.Entry) + 1
		pre := r.tags[newest.Tag].Predecessor
		if !pre.CommitValid || pre.Tag >= newest.Tag ||
			(pre.MirrorUUID != journal.LocalMirrorUUID && pre.MirrorUUID != journal.OrphanMirrorUUID) {
			return n
		}
		newest = journal.ObjectPosition{Tag: pre.Tag, Entry: pre.Entry}
	}
	if newest.Tag == safe.Tag && newest.Entry > safe.Entry {
		n += int64(newest.Entry - safe.Entry)
	}
	return n
}

// Read is the newest entry that was read from the remote journal; false if the image does
// not replay, or nothing was read.
func (c *Core) Read() (journal.ObjectPosition, bool) {
	if c.rep == nil || c.rep.read == (journal.ObjectPosition{}) {
		return journal.ObjectPosition{}, false
	}
	return c.rep.read, true
}

// CommittedUpTo tells whether the remote journal has stored that everything up to an
// entry is durable here.
func (c *Core) CommittedUpTo(p journal.ObjectPosition) bool {
	if c.rep == nil {
		return false
	}
	newest, ok := c.rep.committed.Newest()
	return ok && !before(newest, p)
}
