package replay

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestReplayEqualsPrimary replays random journals with random completion orders: the
// local image ends equal to the primary's, with its snapshots and metadata. On the
// way, secondary checks flush barriers and the position.
func TestReplayEqualsPrimary(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawJournal(t)
		s := newSecondary(t, p.entries)
		s.run(false)
		same(t, p, s)
	})
}

// TestReplaySurvivesCrashes crashes the replay at any point, and goes on from the
// stored commit position on the image as it was left.
func TestReplaySurvivesCrashes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawJournal(t)
		s := newSecondary(t, p.entries)
		for range rapid.IntRange(1, 6).Draw(t, "crashes") {
			s.run(true)
		}
		s.run(false)
		same(t, p, s)
		// Once more from where the position was left: nothing changes.
		s.run(false)
		same(t, p, s)
	})
}

func same(t *rapid.T, p *primary, s *secondary) {
	if diff := cmp.Diff(p.disk.String(), s.disk.String()); diff != "" {
		for _, e := range p.entries {
			t.Logf("%s %v %+v", at(e.Position), e.Event.Type(), e.Event)
		}
		t.Fatalf("local image differs (-primary +local):\n%s", diff)
	}
}
