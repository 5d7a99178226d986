package coordinator

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/cluster/imagemap"
	"github.com/rbdwarden/rbdwarden/cluster/membership"
)

// loadsOf is what workers say of the images that they run.
func (s *site) loadsOf(members []string) map[string]Loads {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]Loads{}
	for _, w := range s.all {
		if s.loads == nil || w.dead || w == s.mute || w.group == nil || !slices.Contains(members, w.group.ID()) {
			continue
		}
		l := Loads{"": {}}
		for id, owner := range s.runs {
			if owner == w && s.loads[id] > 0 {
				l[""][id] = s.loads[id]
			}
		}
		out[w.group.ID()] = l
	}
	return out
}

// heat is the load of each worker.
func (s *site) heat() map[string]float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := map[string]float64{}
	for id, w := range s.runs {
		h[w.name] += s.loads[id]
	}
	return h
}

// Images of one worker are busy: as many of them go elsewhere, in exchange for idle ones, as make it even, and then
// nothing moves. While one member does not tell its loads, nothing is moved for them.
func TestLoadsAreEvenedOut(t *testing.T) {
	for _, mute := range []bool{false, true} {
		run(t, 12, func(s *site) {
			a, b := s.start(1, 0, 1), s.start(2, 0, 1)
			s.settledWithin(5*time.Second, true)
			s.mu.Lock()
			s.loads = map[string]float64{}
			for id, w := range s.runs {
				if w == a {
					s.loads[id] = 100
				}
			}
			if mute {
				s.mute = b
			}
			s.mu.Unlock()
			before := s.movedSoFar()
			time.Sleep(30 * time.Minute)
			moves := 0
			for id, n := range s.movedSoFar() {
				moves += n - before[id]
			}
			heat := s.heat()
			switch {
			case mute && moves > 0:
				t.Errorf("%d moves, though nobody knows what is idle", moves)
			case !mute && (moves != 6 || heat[a.name] != 300 || heat[b.name] != 300):
				t.Errorf("%d moves, %v; three are exchanged for three", moves, heat)
			}
			s.settledWithin(time.Second, true)
		})
	}
}

// What was known of an image's load counts until its new member has measured it; what a member does
// not list idles.
func TestWhatIsKnownOfLoads(t *testing.T) {
	now := time.Now()
	m := imagemap.Map{Images: map[string]imagemap.Entry{
		"old": {Owner: "1", Mapped: now.Add(-time.Hour)}, "idle": {Owner: "1", Mapped: now.Add(-time.Hour)},
		"fresh": {Owner: "1", Mapped: now}, "silent": {Owner: "2", Mapped: now.Add(-time.Hour)},
	}}
	var l loads
	l.images = map[string]float64{"old": 1, "idle": 2, "fresh": 3, "silent": 4, "gone": 5}
	l.take(map[string]Loads{"1": {"ns": {"old": 10}}}, "ns", m, now)
	if got := fmt.Sprint(l.images); got != "map[fresh:3 old:10 silent:4]" {
		t.Error(got)
	}
	view := membership.View{Members: []membership.Member{{ID: "1"}}}
	if !l.complete(view, now.Add(loadsLast-time.Second)) || l.complete(view, now.Add(loadsLast+time.Minute)) {
		t.Error("what a member said counts for another time than loadsLast")
	}
	view.Members = append(view.Members, membership.Member{ID: "2"})
	if l.complete(view, now) {
		t.Error("one has said nothing")
	}
}
