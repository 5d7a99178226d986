package membership

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"
)

const (
	testBeat = 500 * time.Millisecond
	testTTL  = 2 * time.Second
)

var epochStart = time.Unix(1_000_000, 0)

// scene is a table with a clock, and what the object has.
type scene struct {
	t     *testing.T
	table *table
	now   time.Time
	beats map[string]beat
	tombs map[string]tombstone
	known map[string]bool
}

func newScene(t *testing.T, ids ...string) *scene {
	s := &scene{
		t: t, table: newTable("1", testBeat, testTTL, time.Minute), now: epochStart,
		beats: map[string]beat{"1": {}}, tombs: map[string]tombstone{}, known: map[string]bool{},
	}
	for _, id := range ids {
		s.beats[id] = beat{}
	}
	return s
}

func recordOf(id string, revision uint32) record {
	return record{revision, Member{ID: id, Identity: "i" + id}}
}

// bump lets members beat.
func (s *scene) bump(ids ...string) {
	for _, id := range ids {
		b := s.beats[id]
		b.count++
		s.beats[id] = b
	}
}

// round lets a beat's time pass, those members beat, and takes a sight.
func (s *scene) round(ids ...string) {
	s.now = s.now.Add(testBeat)
	s.bump(ids...)
	s.observe(true)
}

func (s *scene) observe(confirmed bool) {
	records := map[string]record{}
	for id, b := range s.beats {
		if r, ok := s.table.rows[id]; !ok || r.record.revision != b.revision {
			records[id] = recordOf(id, b.revision)
		}
	}
	before := s.table.view()
	changed := s.table.observe(sight{start: s.now, beats: maps.Clone(s.beats), records: records, tombs: maps.Clone(s.tombs)}, confirmed)
	s.checkEpoch(before, changed)
}

// checkEpoch: a view that is another has another epoch, and is told of.
func (s *scene) checkEpoch(before View, changed bool) {
	s.t.Helper()
	after := s.table.view()
	if same := fmt.Sprint(before) == fmt.Sprint(after); same == changed || (after.Epoch > before.Epoch) != changed {
		s.t.Fatalf("changed %v, epochs %d and %d:\n%v\n%v", changed, before.Epoch, after.Epoch, before, after)
	}
}

func (s *scene) assert(living string, dead string) {
	s.t.Helper()
	v := s.table.view()
	var l, d []string
	for _, m := range v.Members {
		l = append(l, m.ID)
	}
	for _, m := range v.Dead {
		d = append(d, m.ID)
	}
	if got, want := fmt.Sprint(l, d), fmt.Sprintf("[%s] [%s]", living, dead); got != want {
		s.t.Fatalf("at %v: living and dead %s, want %s", s.now.Sub(epochStart), got, want)
	}
}

// What the table makes of what it sees.
func TestTable(t *testing.T) {
	for name, story := range map[string]func(s *scene){
		"silence kills after TTL, not before": func(s *scene) {
			s.round("1", "2", "3")
			for range 3 {
				s.round("1", "2")
				s.assert("1 2 3", "")
			}
			s.round("1", "2")
			s.assert("1 2", "3")
		},
		"a beat revives": func(s *scene) {
			s.round("1", "2", "3")
			for range 5 {
				s.round("1", "2")
			}
			s.assert("1 2", "3")
			s.round("1", "2", "3")
			s.assert("1 2 3", "")
		},
		"no beat revives whose process is gone": func(s *scene) {
			s.round("1", "2", "3")
			s.known["i3"] = true
			if !s.table.judge(s.now, func(i string) bool { return s.known[i] }) {
				s.t.Error("judge says that nothing changed")
			}
			s.assert("1 2", "3")
			s.round("1", "2", "3")
			s.assert("1 2", "3")
		},
		"the observer is never dead to itself": func(s *scene) {
			s.known["i1"] = true
			s.round("1", "2", "3")
			s.table.judge(s.now, func(i string) bool { return s.known[i] })
			s.assert("1 2 3", "")
		},
		"while the own beats do not get through nobody dies": func(s *scene) {
			s.round("1", "2", "3")
			for range 20 {
				s.round()
			}
			s.assert("1 2 3", "")
			s.round("1", "2") // seen after a long time: the measure begins anew
			s.assert("1 2 3", "")
			for range 3 {
				s.round("1", "2")
				s.assert("1 2 3", "")
			}
			s.round("1", "2")
			s.assert("1 2", "3")
		},
		"an observer that was paused begins anew": func(s *scene) {
			s.round("1", "2", "3")
			s.round("1", "2")
			s.round("1", "2")
			s.now = s.now.Add(30 * time.Second)
			s.round("1", "2")
			s.assert("1 2 3", "")
			s.round("1", "2")
			s.assert("1 2 3", "")
		},
		"one late sight is not enough": func(s *scene) {
			s.round("1", "2", "3")
			s.now = s.now.Add(testTTL - testBeat - time.Millisecond)
			s.round("1", "2")
			s.assert("1 2 3", "")
			s.round("1", "2", "3")
			s.assert("1 2 3", "")
		},
		"who leaves is gone at once": func(s *scene) {
			s.round("1", "2", "3")
			delete(s.beats, "3")
			s.observe(true)
			s.assert("1 2", "")
		},
		"who is fenced is dead, then forgotten by the first of the living": func(s *scene) {
			s.round("1", "2", "3")
			delete(s.beats, "3")
			s.tombs["3"] = tombstone{record: recordOf("3", 1)}
			s.round("1", "2")
			s.assert("1 2", "3")
			v := s.table.view()
			if !v.Fenced("i3") || v.Fenced("i2") || v.Fenced("") || !v.KnownDead("i3") {
				s.t.Error("who is fenced?")
			}
			if got := s.table.expired(s.now.Add(59 * time.Second)); got != nil {
				s.t.Error("forgets early", got)
			}
			if got := s.table.expired(s.now.Add(time.Minute)); !slices.Equal(got, []string{"3"}) {
				s.t.Error("forgets", got)
			}
			s.beats["0"] = beat{}
			s.round("1", "2", "0")
			if got := s.table.expired(s.now.Add(time.Hour)); got != nil {
				s.t.Error("does the duty of another", got)
			}
		},
		"a changed record is seen, and a frozen table too": func(s *scene) {
			s.round("1", "2", "3")
			s.beats["2"] = beat{7, 3}
			s.round("1", "3")
			if got := s.table.rows["2"].record.revision; got != 3 {
				s.t.Error("revision", got)
			}
			before := s.table.view()
			s.checkEpoch(before, s.table.freeze())
			if !s.table.view().Frozen || s.table.freeze() {
				s.t.Error("not frozen, or twice")
			}
			s.assert("1 2 3", "")
			s.observe(false)
			if !s.table.view().Frozen {
				s.t.Error("thaws although the own beats do not get through")
			}
			s.round("1", "2", "3")
			if s.table.view().Frozen {
				s.t.Error("stays frozen")
			}
		},
	} {
		t.Run(name, func(t *testing.T) { story(newScene(t, "2", "3")) })
	}
}

// What cannot be decoded changes nothing for its member.
func TestTableKeepsTheDamaged(t *testing.T) {
	s := newScene(t, "2")
	s.round("1", "2")
	bad := map[string]error{beatPrefix + "2": errors.New("bad")}
	for range 20 {
		s.now = s.now.Add(testBeat)
		s.bump("1")
		s.table.observe(sight{start: s.now, beats: map[string]beat{"1": s.beats["1"]}, damage: bad}, true)
	}
	s.assert("1 2", "")
	if len(s.table.view().Damaged) != 1 {
		t.Error("no word of the damage")
	}
	s.round("1", "2")
	if len(s.table.view().Damaged) != 0 {
		t.Error("the damage is there although it was mended")
	}
}

func TestIDsAreOrderedAsNumbers(t *testing.T) {
	got := []string{"b", "100", "20", "3", "a"}
	slices.SortFunc(got, compareIDs)
	if want := []string{"3", "20", "100", "a", "b"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestNoStallKills lets the cluster stall, the observer pause and operations be late, at
// random. Nobody who beats as soon as the cluster lets him is ever taken for dead; and who
// is dead is found so within TTL and three rounds of time in which the observer could see.
func TestNoStallKills(t *testing.T) {
	for seed := range uint64(500) {
		rng := rand.New(rand.NewPCG(seed, 3))
		s := newScene(t)
		const members = 6
		due := map[string]time.Time{} // when each beats next
		deadAt := map[string]time.Duration{}
		for n := 1; n <= members; n++ {
			id := strconv.Itoa(n)
			s.beats[id] = beat{}
			due[id] = s.now
		}
		stallUntil := time.Time{}
		served := time.Duration(0) // time that counts for the observer
		nextRound := s.now
		for step := range 3000 {
			s.now = s.now.Add(20 * time.Millisecond)
			if s.now.Before(stallUntil) {
				continue
			}
			switch {
			case rng.IntN(400) == 0: // the cluster stalls, and all beat soon after
				stallUntil = s.now.Add(time.Duration(rng.Int64N(int64(10 * time.Second))))
				for id := range due {
					due[id] = stallUntil.Add(time.Duration(rng.Int64N(int64(300 * time.Millisecond))))
				}
				nextRound = stallUntil.Add(time.Duration(rng.Int64N(int64(300 * time.Millisecond))))
				continue
			case rng.IntN(1500) == 0 && len(deadAt) < 3:
				id := strconv.Itoa(2 + rng.IntN(members-1))
				if _, dead := deadAt[id]; !dead {
					deadAt[id] = served
					delete(due, id)
				}
			case rng.IntN(500) == 0: // the observer is paused, the others are not
				nextRound = s.now.Add(time.Duration(rng.Int64N(int64(10 * time.Second))))
				due["1"] = nextRound
			}
			for id, at := range due {
				if !s.now.Before(at) {
					s.bump(id)
					due[id] = s.now.Add(testBeat + time.Duration(rng.Int64N(int64(200*time.Millisecond))))
				}
			}
			if s.now.Before(nextRound) {
				continue
			}
			before := s.table.ownAt
			s.observe(true)
			switch passed := s.table.ownAt.Sub(before); {
			case passed > testTTL: // it was blind: the measure begins anew
				for id := range deadAt {
					deadAt[id] = served
				}
			case passed > 0:
				served += min(passed, testBeat*3/2)
			}
			nextRound = s.now.Add(testBeat + time.Duration(rng.Int64N(int64(200*time.Millisecond))))
			for id, r := range s.table.rows {
				at, dead := deadAt[id]
				switch {
				case r.dead && !dead:
					t.Fatalf("seed %d, step %d: member %s lives and is taken for dead", seed, step, id)
				case !r.dead && dead && served-at > testTTL+3*testBeat:
					t.Fatalf("seed %d, step %d: member %s has been dead for %v", seed, step, id, served-at)
				}
			}
		}
	}
}
