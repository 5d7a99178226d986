package replay

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/rbdwarden/rbdwarden/ceph/journal"
)

// syncPoint is a snapshot of the primary that a copy was made from.
type syncPoint struct {
	at   int   // index of its event
	left []int // those of operations under way that had not taken effect
	disk *disk
}

// record is where the copy begins: the commit position, and what is in the copy behind it.
func (s *syncPoint) record(entries []Entry) (position journal.ObjectSetPosition, covered journal.Covered) {
	c := NewCover(splay, nil, "sync")
	for _, e := range entries {
		if position, covered, found := c.Push(e.Position, e.Event); found {
			return position, covered
		}
	}
	panic("no sync point")
}

// takeSyncPoint journals a sync point as things are.
func (p *primary) takeSyncPoint() *syncPoint {
	s := &syncPoint{disk: p.clone()}
	for _, r := range p.running {
		if !r.done {
			s.left = append(s.left, slices.IndexFunc(p.entries, func(e Entry) bool {
				op, ok := e.Event.(journal.Operation)
				return ok && e.Position.Tag == p.tag && op.Operation() == r.op.Operation()
			}))
		}
	}
	s.at = len(p.entries)
	p.ops++
	p.log(journal.SnapCreate{Op: p.ops, Name: "sync"})
	p.log(journal.OpFinish{Op: p.ops})
	return s
}

// TestReplayFromASyncPoint makes the copy from a sync point in the midst of a journal, with
// operations under way, and replays the rest, with crashes.
func TestReplayFromASyncPoint(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := newPrimary()
		p.mood = rapid.SampledFrom(moods).Draw(t, "mood")
		for range rapid.IntRange(1, 40).Draw(t, "events") {
			p.draw(t)
		}
		point := p.takeSyncPoint()
		for range rapid.IntRange(0, 40).Draw(t, "events behind") {
			p.draw(t)
		}
		p.newTag(rapid.Bool().Draw(t, "crash"))
		p.log(journal.AioFlush{})

		s := newSecondary(t, p.entries)
		s.disk, s.copied = *point.disk, point
		s.committed, s.covered = point.record(p.entries)
		for range rapid.IntRange(0, 3).Draw(t, "crashes") {
			s.run(true)
		}
		s.run(false)
		same(t, p, s)
	})
}

// What lies before the sync point's event is in the copy; but an operation that was under
// way is not over.
func TestCoveredBySyncPoint(t *testing.T) {
	at := func(tag, entry uint64) journal.ObjectPosition {
		return journal.ObjectPosition{Object: journal.ObjectNumber(entry % 2), Tag: journal.TagTID(tag), Entry: journal.EntryTID(entry)}
	}
	write, sync := journal.AioWrite{}, journal.SnapCreate{Op: 9, Name: "sync"}
	type entry struct {
		tag, entry uint64
		event      journal.Event
	}
	begun := journal.ObjectSetPosition{at(1, 1), at(1, 0)}
	set := func(op journal.OpTID, key string) journal.Event { return journal.MetadataSet{Op: op, Key: key} }
	end := func(op journal.OpTID) journal.Event { return journal.OpFinish{Op: op} }
	for _, tc := range []struct {
		name    string
		entries []entry
		want    journal.ObjectSetPosition // nil: the sync point was not found
		open    []journal.OpTID
	}{
		{"writes", []entry{{1, 2, write}, {1, 3, write}, {1, 4, sync}}, journal.ObjectSetPosition{at(1, 4), at(1, 3)}, nil},
		{"at once", []entry{{1, 2, sync}}, journal.ObjectSetPosition{at(1, 2), at(1, 1)}, nil},
		{"not there", []entry{{1, 2, write}, {1, 3, journal.SnapCreate{Op: 1, Name: "other"}}}, nil, nil},
		{"ended operation", []entry{{1, 2, journal.Rename{Op: 1}}, {1, 3, end(1)}, {1, 4, sync}}, journal.ObjectSetPosition{at(1, 4), at(1, 3)}, nil},
		{"operation under way", []entry{{1, 2, write}, {1, 3, journal.Rename{Op: 1}}, {1, 4, write}, {1, 5, sync}},
			journal.ObjectSetPosition{at(1, 2), at(1, 1)}, []journal.OpTID{1}},
		{"the older of two under way", []entry{{1, 2, journal.Flatten{Op: 1}}, {1, 3, journal.Rename{Op: 2}}, {1, 4, end(2)}, {1, 5, sync}},
			begun, []journal.OpTID{1}},
		{"both under way", []entry{{1, 2, journal.Flatten{Op: 1}}, {1, 3, journal.Rename{Op: 2}}, {1, 4, sync}}, begun, []journal.OpTID{1, 2}},
		{"ended with its session", []entry{{1, 2, journal.Flatten{Op: 1}}, {2, 0, write}, {2, 1, sync}}, journal.ObjectSetPosition{at(2, 1), at(2, 0)}, nil},
		{"a newer one on the same thing ended", []entry{{1, 2, set(1, "k")}, {1, 3, set(2, "k")}, {1, 4, end(2)}, {1, 5, sync}},
			journal.ObjectSetPosition{at(1, 5), at(1, 4)}, nil},
		{"a newer one on another thing ended", []entry{{1, 2, set(1, "k")}, {1, 3, set(2, "l")}, {1, 4, end(2)}, {1, 5, sync}}, begun, []journal.OpTID{1}},
		{"a newer one on the same thing failed", []entry{{1, 2, set(1, "k")}, {1, 3, set(2, "k")}, {1, 4, journal.OpFinish{Op: 2, Result: -5}}, {1, 5, sync}},
			begun, []journal.OpTID{1}},
		{"a newer resize", []entry{{1, 2, journal.Resize{Op: 1}}, {1, 3, journal.Resize{Op: 2}}, {1, 4, sync}},
			journal.ObjectSetPosition{at(1, 2), at(1, 1)}, []journal.OpTID{2}},
		{"a resize below a rollback that ended", []entry{{1, 2, journal.SnapRollback{Op: 1}}, {1, 3, journal.Resize{Op: 2}}, {1, 4, end(1)}, {1, 5, sync}},
			journal.ObjectSetPosition{at(1, 5), at(1, 4)}, nil},
		{"a resize beside a rollback", []entry{{1, 2, journal.SnapRollback{Op: 1}}, {1, 3, journal.Resize{Op: 2}}, {1, 4, end(2)}, {1, 5, sync}},
			begun, []journal.OpTID{1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := NewCover(2, begun, "sync")
			var (
				position journal.ObjectSetPosition
				covered  journal.Covered
				found    bool
			)
			for _, e := range tc.entries {
				position, covered, found = c.Push(at(e.tag, e.entry), e.event)
			}
			if found != (tc.want != nil) {
				t.Fatalf("found: %v", found)
			}
			if d := cmp.Diff(tc.want, position); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
			if d := cmp.Diff(tc.open, covered.Open); d != "" {
				t.Errorf("under way: -want +got\n%s", d)
			}
		})
	}
}
