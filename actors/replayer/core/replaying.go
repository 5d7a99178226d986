package core

import (
	"fmt"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/replay"
)

// replaying is what only exists between START_REPLAY and the stop.
type replaying struct {
	planner   *replay.Planner
	committed journal.ObjectSetPosition // what the remote journal has of us
	primary   journal.ObjectSetPosition // the image client's, as last heard
	tags      map[journal.TagTID]journal.TagData
	localTag  journal.TagData // newest of the local journal
	tag       journal.TagData // of the remote journal, of the entries being planned

	pushed    int64   // bytes that the planner was given
	reading   bool    // a ReadEntries is under way
	seeking   int     // FindOutcomes under way: they wait for the primary
	broken    *Failed // a ReadEntries failed: stop when what was read is applied
	timing    bool    // the commit timer runs
	stored    bool    // a commit was begun since replay was
	tagChange replay.StepID
	// commit is the Commit under way with the Checkpoint steps that it settles.
	commit      *commit
	applying    int             // Apply effects under way
	checkpoints []replay.StepID // wait for the next Commit
	demoted     bool            // the demotion was reached: stop when all is committed
	waiting     []readMark      // batches with entries that are not safe, oldest first
	read        journal.ObjectPosition
	held        EntriesHeld          // entries behind read that wait; zero if there are none
	operation   *OperationProgressed // a long one that is under way
}

type commit struct{ settles []replay.StepID }

// readMark says how old a batch of entries is: by the primary's clock, and since when
// we have it, by ours.
type readMark struct {
	last         journal.ObjectPosition
	oldest, read time.Time
}

func newReplaying(cfg Config, m JournalerReady) *replaying {
	return &replaying{
		planner: replay.New(replay.Config{
			SplayWidth: m.SplayWidth,
			Committed:  m.Committed,
			Covered:    m.Covered,
			StepBytes:  cfg.MaxStepBytes,
			StepIOs:    cfg.MaxStepOps,
			HeldBytes:  cfg.BufferBytes,
		}),
		committed: m.Committed,
		primary:   m.Primary,
		tags:      map[journal.TagTID]journal.TagData{},
	}
}

// stepReplaying handles the results of replay's effects.
func (c *Core) stepReplaying(m Msg) {
	r := c.rep
	switch m := m.(type) {
	case ReplayStarted:
		c.localJournalChanged(m.Promotion, m.ResyncRequested)
		if c.state == StartReplay {
			c.become(Replaying)
		}
	case EntriesRead:
		r.reading, r.held = false, EntriesHeld{}
		r.planner.Tight(false)
		if err := r.push(m.Entries, m.At); err != nil {
			c.replayFailed(err)
			return
		}
		if m.TagEnded {
			r.planner.EndTag(m.Ended)
		}
	case OutcomeFound:
		r.seeking--
		if m.Found {
			r.planner.Outcome(m.Tag, m.Op, m.Result)
		} else {
			r.planner.NoOutcome(m.Tag, m.Op)
		}
	case RemoteTagRead:
		c.remoteTagRead(m.Tag)
	case LocalTagAllocated:
		r.localTag = m.Data
		c.tagChanged()
	case Applied:
		r.applied(m)
	case Committed:
		r.settle(m.Position)
	case CommitDue:
		r.timing = false
		c.commit(false)
	case Flush:
		c.commit(false)
	default:
		panic(fmt.Sprintf("core: %T in %s", m, c.state))
	}
	c.pumpIfReplaying()
}

func (c *Core) pumpIfReplaying() {
	if c.state == Replaying {
		c.pump()
	}
}

// pump starts everything that may start now: steps, the next read, a commit.
func (c *Core) pump() {
	r := c.rep
	if c.paused && !r.demoted {
		c.pause()
		return
	}
	for c.state == Replaying {
		step, ok := r.planner.Next()
		if !ok {
			break
		}
		c.perform(step)
	}
	if c.state != Replaying {
		return
	}
	if err := r.planner.Err(); err != nil {
		// What comes before the entry that cannot be applied is applied first.
		if r.planner.Waiting().Steps == 0 {
			c.replayFailed(err)
		}
		return
	}
	if r.broken != nil && r.planner.Waiting().Steps == 0 {
		c.stop(StopCause{Reason: EffectFailed, Text: failureText(*r.broken), Class: r.broken.Class, Err: r.broken.Err})
		return
	}
	if r.demoted && r.commit == nil {
		if pos, ok := r.uncommitted(); ok {
			r.commit = &commit{}
			c.do(Commit{Position: pos})
			return
		}
		c.stop(StopCause{Reason: RemoteDemoted, Text: "remote image demoted"})
		return
	}
	if !r.reading && r.broken == nil && !r.demoted && !r.planner.Full() {
		r.reading = true
		c.do(ReadEntries{MaxBytes: c.cfg.ReadBytes})
	}
	if c.commit(true) {
		c.pump()
		return
	}
	c.do(Publish{})
}

// perform starts one step.
func (c *Core) perform(step replay.Step) {
	r := c.rep
	switch s := step.(type) {
	case replay.TagChange:
		r.tagChange = s.ID()
		c.become(GetRemoteTag, ReadRemoteTag{TID: s.Tag})
	case replay.Checkpoint:
		r.checkpoints = append(r.checkpoints, s.ID())
		c.commit(false)
	case replay.Handover:
		// The event itself changes nothing: the tag says what happened.
		r.planner.Safe(s.ID())
		r.demoted = r.demoted || r.tag.MirrorUUID == journal.OrphanMirrorUUID
	case replay.NeedOutcome:
		r.seeking++
		c.do(FindOutcome{Need: s})
	default:
		r.applying++
		c.do(Apply{Step: step})
	}
}

// remoteTagRead brings a new tag of the remote journal over into the local one,
// before any entry of it is applied (CEPH.md: ALLOCATE_LOCAL_TAG).
func (c *Core) remoteTagRead(tag Tag) {
	r := c.rep
	r.tag, r.tags[tag.TID] = tag.Data, tag.Data
	want := translateTag(tag.Data, c.cfg.LocalMirrorUUID, c.cfg.RemoteMirrorUUID)
	// Our own demotion comes back to us as a tag of the remote's when the image was
	// demoted here and then promoted there: the local journal has it already.
	ownDemotion := want.MirrorUUID == journal.OrphanMirrorUUID && r.localTag.MirrorUUID == journal.OrphanMirrorUUID &&
		r.localTag.Predecessor.CommitValid && r.localTag.Predecessor.MirrorUUID == journal.LocalMirrorUUID
	switch {
	case want.MirrorUUID == journal.LocalMirrorUUID:
		// The remote tells of a time when the local image was primary; those
		// entries were written here.
		c.tagChanged()
	case ownDemotion:
		r.tag = journal.TagData{} // and it must not stop us
		c.tagChanged()
	case sameTag(want, r.localTag):
		c.tagChanged() // brought over before a restart
	default:
		c.become(AllocateLocalTag, AllocateTag{Data: want})
	}
}

// sameTag compares tags; a predecessor that says nothing is equal to any such.
func sameTag(a, b journal.TagData) bool {
	return a.MirrorUUID == b.MirrorUUID &&
		(a.Predecessor == b.Predecessor || !a.Predecessor.CommitValid && !b.Predecessor.CommitValid)
}

func (c *Core) tagChanged() {
	c.rep.planner.Safe(c.rep.tagChange)
	c.become(Replaying)
}

// commit writes the position if it has moved: at once when a Checkpoint step waits or
// it is asked for (lazy is false), otherwise when the timer says so. The first of a replay
// does not wait for the timer: who looks at the primary sees then that the image goes on, and
// the next owner does less again. True says that Checkpoint steps became safe at once, so that
// the planner may have more to do.
func (c *Core) commit(lazy bool) (settled bool) {
	r := c.rep
	if r.commit != nil {
		return false
	}
	pos, moved := r.uncommitted()
	switch {
	case len(r.checkpoints) == 0 && !moved:
	case lazy && len(r.checkpoints) == 0 && r.stored:
		if !r.timing {
			r.timing = true
			c.do(After{Delay: c.cfg.CommitInterval, Msg: CommitDue{}})
		}
	case !moved:
		r.settleSteps(r.checkpoints)
		r.checkpoints = nil
		return true
	default:
		r.commit, r.stored = &commit{settles: r.checkpoints}, true
		r.checkpoints = nil
		c.do(Commit{Position: pos})
	}
	return false
}

func (c *Core) replayFailed(err error) {
	c.stop(StopCause{Reason: EffectFailed, Text: failureText(Failed{State: Replaying, Err: err}),
		Class: rados.Classify(err), Err: err})
}

// push gives entries to the planner.
func (r *replaying) push(entries []Entry, at time.Time) error {
	for _, e := range entries {
		if err := r.planner.Push(e.Entry); err != nil {
			return err
		}
		r.pushed += int64(e.Bytes)
	}
	if n := len(entries); n > 0 {
		r.read = entries[n-1].Position
		r.waiting = append(r.waiting, readMark{last: r.read, oldest: entries[0].Timestamp, read: at})
	}
	return nil
}

func (r *replaying) applied(m Applied) {
	r.applying--
	r.planner.Safe(m.Step)
	if r.operation != nil && r.operation.Step == m.Step {
		r.operation = nil
	}
	r.forget()
}

// forget drops the marks of batches that are safe.
func (r *replaying) forget() {
	safe, ok := r.planner.Position().Newest()
	for ok && len(r.waiting) > 0 && !before(safe, r.waiting[0].last) {
		r.waiting = r.waiting[1:]
	}
}

// settle notes that a position is stored, and says so to the steps that waited.
func (r *replaying) settle(pos journal.ObjectSetPosition) {
	r.committed = pos
	if r.commit != nil {
		r.settleSteps(r.commit.settles)
		r.commit = nil
	}
	r.forget()
}

func (r *replaying) settleSteps(ids []replay.StepID) {
	for _, id := range ids {
		r.planner.Safe(id)
	}
}

// uncommitted is the safe position, and whether the remote journal does not have it.
func (r *replaying) uncommitted() (journal.ObjectSetPosition, bool) {
	pos := r.planner.Position()
	newest, ok := pos.Newest()
	stored, any := r.committed.Newest()
	return pos, ok && (!any || newest != stored)
}

// before tells whether a is an earlier entry than b.
func before(a, b journal.ObjectPosition) bool {
	return a.Tag < b.Tag || a.Tag == b.Tag && a.Entry < b.Entry
}
