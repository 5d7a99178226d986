package replayer

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
)

// What lies before the sync point's event is in the copy; but an operation that was under
// way is not over.
func TestCoveredBySyncPoint(t *testing.T) {
	at := func(tag, entry uint64) wire.ObjectPosition {
		return wire.ObjectPosition{Object: wire.ObjectNumber(entry % 2), Tag: wire.TagTID(tag), Entry: wire.EntryTID(entry)}
	}
	write, sync := wire.AioWrite{}, wire.SnapCreate{Op: 9, Name: "sync"}
	type entry struct {
		tag, entry uint64
		event      wire.Event
	}
	begun := wire.ObjectSetPosition{at(1, 1), at(1, 0)}
	for _, tc := range []struct {
		name    string
		entries []entry
		want    wire.ObjectSetPosition // nil: the sync point was not found
	}{
		{"writes", []entry{{1, 2, write}, {1, 3, write}, {1, 4, sync}}, wire.ObjectSetPosition{at(1, 4), at(1, 3)}},
		{"at once", []entry{{1, 2, sync}}, wire.ObjectSetPosition{at(1, 2), at(1, 1)}},
		{"not there", []entry{{1, 2, write}, {1, 3, wire.SnapCreate{Op: 1, Name: "other"}}}, nil},
		{"ended operation", []entry{{1, 2, wire.Rename{Op: 1}}, {1, 3, wire.OpFinish{Op: 1}}, {1, 4, sync}},
			wire.ObjectSetPosition{at(1, 4), at(1, 3)}},
		{"operation under way", []entry{{1, 2, write}, {1, 3, wire.Rename{Op: 1}}, {1, 4, write}, {1, 5, sync}},
			wire.ObjectSetPosition{at(1, 2), at(1, 1)}},
		{"the older of two under way", []entry{{1, 2, wire.Flatten{Op: 1}}, {1, 3, wire.Rename{Op: 2}}, {1, 4, wire.OpFinish{Op: 2}}, {1, 5, sync}}, begun},
		{"ended with its session", []entry{{1, 2, wire.Flatten{Op: 1}}, {2, 0, write}, {2, 1, sync}}, wire.ObjectSetPosition{at(2, 1), at(2, 0)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := &covered{width: 2, name: "sync", position: slices.Clone(begun)}
			found := false
			for _, e := range tc.entries {
				found = c.entry(at(e.tag, e.entry), e.event)
			}
			if found != (tc.want != nil) {
				t.Fatalf("found: %v", found)
			}
			if d := cmp.Diff(tc.want, c.position); found && d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
}
