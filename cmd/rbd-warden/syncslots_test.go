package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// word is what a member says in tests: "holding|wanting".
func word(member string, seq uint64, text string) slotWord {
	w := slotWord{member: member, seq: seq}
	for n, list := range strings.SplitN(text, "|", 2) {
		for _, f := range strings.Fields(list) {
			var id uint64
			fmt.Sscan(f, &id)
			if n == 0 {
				w.holding = append(w.holding, id)
			} else {
				w.wanting = append(w.wanting, id)
			}
		}
	}
	return w
}

// The protocol of slots, word by word: three members, a bound of two.
func TestSlotDesk(t *testing.T) {
	var d slotDesk
	at := time.Unix(1000, 0)
	all := []string{"a", "b", "c"}
	for n, s := range []struct {
		after  time.Duration
		living []string
		term   int
		w      slotWord
		want   []uint64
	}{
		// A new leader waits until all who hold slots have said so.
		{0, all, 1, word("a", 1, "|1 2"), nil},
		{time.Second, all, 1, word("b", 1, "9|10"), nil},
		{slotGrace, all, 1, word("a", 2, "|1 2"), []uint64{1}}, // b holds one
		{0, all, 1, word("c", 1, "|5"), nil},
		{0, all, 1, word("a", 3, "1|2"), nil},
		// The answer was lost: it is given again.
		{0, all, 1, word("b", 2, "|10"), nil}, // 9 is back, and a has waited longer
		{0, all, 1, word("a", 4, "1|2"), []uint64{2}},
		{0, all, 1, word("a", 5, "1|2"), []uint64{2}},
		// A late word says nothing.
		{0, all, 1, word("a", 4, "|"), nil},
		{0, all, 1, word("c", 2, "|5"), nil},
		// Who gives up waiting makes room for the next.
		{0, all, 1, word("b", 3, "|"), nil},
		{0, all, 1, word("a", 6, "1|"), nil}, // 2 is not wanted any more
		{0, all, 1, word("c", 3, "|5 6"), []uint64{5}},
		{0, all, 1, word("c", 4, "5|6"), nil},
		// The holder dies.
		{0, []string{"b", "c"}, 1, word("c", 5, "5|6"), []uint64{6}},
		// Another leader knows nothing, and learns.
		{0, []string{"b", "c"}, 2, word("b", 4, "|11"), nil},
		{time.Second, []string{"b", "c"}, 2, word("c", 6, "5 6|"), nil},
		{slotGrace, []string{"b", "c"}, 2, word("b", 5, "|11"), nil},
		{0, []string{"b", "c"}, 2, word("c", 7, "6|"), nil},
		{0, []string{"b", "c"}, 2, word("b", 6, "|11"), []uint64{11}},
		// Who lives, and says nothing for long, has lost its slots.
		{slotSilence + time.Second, []string{"b", "c"}, 2, word("b", 7, "11|12"), []uint64{12}},
		// Who is alone waits for nobody.
		{0, []string{"z"}, 3, word("z", 1, "|1 2 3"), []uint64{1, 2}},
		// Who leads again knows nothing of what another leader gave meanwhile.
		{time.Minute / 2, []string{"b", "z"}, 4, word("b", 20, "|13"), nil},
		{slotGrace, []string{"b", "z"}, 4, word("b", 21, "|13"), []uint64{13}},
		// When all have told what they hold, be it nothing, there is nobody to wait for.
		{time.Minute / 2, []string{"b", "c", "z"}, 5, word("b", 22, "|14 15"), nil},
		{0, []string{"b", "c", "z"}, 5, word("c", 30, "7|"), nil},
		{0, []string{"b", "c", "z"}, 5, word("b", 23, "|14 15"), nil},
		{0, []string{"b", "c", "z"}, 5, word("z", 2, "|"), nil},
		{0, []string{"b", "c", "z"}, 5, word("b", 24, "|14 15"), []uint64{14}},
	} {
		at = at.Add(s.after)
		if got := d.hear(at, s.term, s.living, 2, s.w); !slices.Equal(got, s.want) {
			t.Fatalf("step %d, %+v: %v, want %v", n, s.w, got, s.want)
		}
	}
}

// Members that come, die and lose words, and leaders that change: never do the living hold more than the
// bound, and in the end everybody gets a slot.
func TestSlotsOfASiteHoldTheirBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const bound = 3
		type member struct {
			name        string
			seq, id     uint64
			holds, want []uint64
		}
		var (
			d       = &slotDesk{}
			at      = time.Unix(1000, 0)
			term    = 0
			members []*member
			born    int
		)
		names := func() (all []string) {
			for _, m := range members {
				all = append(all, m.name)
			}
			return all
		}
		add := func() {
			born++
			members = append(members, &member{name: fmt.Sprint("m", born)})
		}
		say := func(m *member, lost bool) {
			m.seq++
			got := d.hear(at, term, names(), bound, slotWord{m.name, m.seq, slices.Clone(m.holds), slices.Clone(m.want)})
			if lost {
				return
			}
			for _, id := range got {
				m.holds = append(m.holds, id)
				m.want = slices.DeleteFunc(m.want, func(w uint64) bool { return w == id })
			}
		}
		for range 3 {
			add()
		}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			m := rapid.SampledFrom(members).Draw(t, "member")
			switch rapid.IntRange(0, 20).Draw(t, "what") {
			case 0:
				term++ // all are heard within the grace, as they are
				d = &slotDesk{}
				for _, m := range members {
					say(m, false)
				}
			case 1:
				if len(members) > 2 {
					members = slices.DeleteFunc(members, func(o *member) bool { return o == m })
				}
			case 2:
				add()
			case 3, 4, 5, 6:
				m.id++
				m.want = append(m.want, m.id)
			case 7, 8, 9:
				if len(m.holds) > 0 {
					m.holds = m.holds[1:]
				}
			case 10:
				if len(m.want) > 0 {
					m.want = m.want[1:]
				}
			default:
				at = at.Add(slotPoll / 2)
				say(m, rapid.IntRange(0, 3).Draw(t, "lost") == 0)
			}
			out := 0
			for _, m := range members {
				out += len(m.holds)
			}
			if out > bound {
				t.Fatalf("%d slots are out", out)
			}
		}
		for range 1000 {
			at = at.Add(slotPoll)
			waits := false
			for _, m := range members {
				say(m, false)
				m.holds = nil
				waits = waits || len(m.want) > 0
			}
			if !waits {
				return
			}
		}
		t.Fatal("somebody waits for ever")
	})
}

// site of slots: workers that share a desk which may be out of reach.
type slotSite struct {
	mu    sync.Mutex
	desk  slotDesk
	term  int
	names []string
	away  error
	asked int
}

func (s *slotSite) worker(name string, part int) *siteSlots {
	s.names = append(s.names, name)
	return newSiteSlots(part, func(_ context.Context, w slotWord) ([]uint64, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.asked++; s.away != nil {
			return nil, s.away
		}
		w.member = name
		return s.desk.hear(time.Now(), s.term, s.names, 2, w), nil
	})
}

// Workers share two slots, whoever asks; a slot that is given back is the next one's; and when nobody wants
// one, nobody asks.
func TestWorkersShareSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slotSite{}
		a, b := s.worker("a", 2), s.worker("b", 2)
		var mu sync.Mutex
		out, most, waited, done := 0, 0, 0, 0
		var all sync.WaitGroup
		for n := range 12 {
			all.Go(func() {
				w := map[bool]*siteSlots{true: a, false: b}[n%2 == 0]
				release, err := w.AcquireTelling(t.Context(), func() {
					mu.Lock()
					defer mu.Unlock()
					waited++
				})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				out++
				most = max(most, out)
				mu.Unlock()
				time.Sleep(3 * time.Second)
				mu.Lock()
				out--
				done++
				mu.Unlock()
				release()
			})
		}
		began := time.Now()
		all.Wait()
		if most != 2 || done != 12 || waited != 10 { // both have spoken, so nobody waits for a new leader's grace
			t.Errorf("%d together, %d done, %d waited", most, done, waited)
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("it took %v", took)
		}
		time.Sleep(5 * time.Second)
		asked := s.asked
		time.Sleep(time.Minute)
		if s.asked != asked {
			t.Error("they ask although nobody wants anything")
		}
		if r, trouble := a.Report(); r.Running != 0 || r.Waiting != 0 || trouble != "" {
			t.Errorf("%+v, %s", r, trouble)
		}
	})
}

// A new leader waits for who has nothing to say, too, and does not have to when that one says so.
func TestSlotsOfANewLeader(t *testing.T) {
	for _, says := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := &slotSite{}
			a, b := s.worker("a", 1), s.worker("b", 1)
			if says {
				b.Hello()
			}
			began := time.Now()
			release, err := a.AcquireTelling(t.Context(), func() {})
			if took := time.Since(began); err != nil || says != (took < slotPoll) || took > 2*slotGrace {
				t.Errorf("says %t: a slot after %v: %v", says, took, err)
			}
			release()
			time.Sleep(time.Minute)
		})
	}
}

// The leader is out of reach: a worker goes by its own part, says so, and stops when the leader is back. Who
// gives up waiting gets nothing.
func TestSlotsWithoutALeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slotSite{away: errors.New("nobody is known to lead the pool")}
		a := s.worker("a", 1)
		_ = s.worker("b", 1)
		began := time.Now()
		release, err := a.AcquireTelling(t.Context(), func() {})
		if took := time.Since(began); err != nil || took < slotPatience || took > slotPatience+5*time.Second {
			t.Fatalf("after %v: %v", took, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if _, err := a.AcquireTelling(ctx, func() {}); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("a second one, of a part of one: %v", err)
		}
		if r, trouble := a.Report(); r.Running != 1 || r.Waiting != 0 || !strings.Contains(trouble, "nobody is known") {
			t.Errorf("%+v, %q", r, trouble)
		}
		s.mu.Lock()
		s.away = nil
		s.mu.Unlock()
		second, err := a.AcquireTelling(t.Context(), func() {}) // the site has two
		if err != nil {
			t.Fatal(err)
		}
		if _, trouble := a.Report(); trouble != "" {
			t.Error(trouble)
		}
		release()
		second()
		a.SetLimit(0) // no bound: nobody has to be asked
		s.mu.Lock()
		s.away = errors.New("away")
		s.mu.Unlock()
		if release, err := a.AcquireTelling(t.Context(), func() { t.Error("it waits") }); err != nil {
			t.Error(err)
		} else {
			release()
		}
		time.Sleep(time.Minute)
	})
}
