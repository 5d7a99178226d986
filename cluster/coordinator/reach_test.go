package coordinator

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/cluster/membership"
)

// TestWhoIsCutOff goes through what members say over time: one step is what each says, and who is taken for
// cut off at the end of it.
func TestWhoIsCutOff(t *testing.T) {
	const yes, no, unknown, drains = remoteAnswers, remoteSilent, "", "drains"
	type step struct {
		lasts time.Duration
		says  string // of a, b and c
		cut   string
	}
	words := map[byte]string{'y': yes, 'n': no, '?': unknown, 'd': drains}
	for name, steps := range map[string][]step{
		"one, after a while, and not at once again":  {{time.Hour, "yyy", ""}, {cutAfter - time.Second, "nyy", ""}, {2 * time.Second, "nyy", "a"}, {backAfter - time.Second, "yyy", "a"}, {2 * time.Second, "yyy", ""}},
		"an outage of the primary that all see":      {{time.Hour, "yyy", ""}, {30 * time.Second, "nyy", ""}, {10 * time.Second, "nny", ""}, {time.Hour, "nnn", ""}},
		"and its end":                                {{time.Hour, "nnn", ""}, {30 * time.Second, "ynn", ""}, {10 * time.Second, "yyn", ""}, {time.Hour, "yyy", ""}},
		"its end, which one does not see":            {{time.Hour, "nnn", ""}, {cutAfter - time.Second, "ynn", ""}, {2 * time.Second, "ynn", "bc"}},
		"a link that comes and goes":                 {{time.Hour, "yyy", ""}, {time.Minute, "nyy", "a"}, {time.Minute, "yyy", "a"}, {time.Minute, "nyy", "a"}, {time.Minute, "yyy", "a"}},
		"of those who do not know nobody can tell":   {{time.Hour, "n??", ""}, {time.Hour, "?yy", ""}},
		"a member that drains would not take images": {{time.Hour, "ndd", ""}},
		"two of three":                               {{time.Hour, "yyy", ""}, {time.Hour, "nny", "ab"}},
	} {
		t.Run(name, func(t *testing.T) {
			now, r := time.Now(), reach{}
			for n, s := range steps {
				var v membership.View
				for i := range len(s.says) {
					m := membership.Member{ID: string(rune('a' + i)), Extra: map[string]string{extraRemote: words[s.says[i]]}}
					if s.says[i] == 'd' {
						m.Draining, m.Extra[extraRemote] = true, yes
					}
					v.Members = append(v.Members, m)
				}
				var cut map[string]bool
				for range s.lasts / time.Second {
					cut = r.judge(v, now)
					now = now.Add(time.Second)
				}
				cut = r.judge(v, now)
				ids := ""
				for _, id := range slices.Sorted(maps.Keys(cut)) {
					ids += id
				}
				if ids != s.cut {
					t.Errorf("step %d: %q are cut off, want %q", n, ids, s.cut)
				}
			}
		})
	}
}

// A member that alone does not reach the primary's cluster, the leader too, gives its images and the leadership
// to those who do; an outage that all see moves nothing.
func TestAMemberThatIsCutOff(t *testing.T) {
	for _, leader := range []bool{false, true} {
		run(t, 24, func(s *site) {
			all := []*worker{s.start(1, 0, 1), s.start(2, 0, 1), s.start(3, 0, 1)}
			say := func(w *worker, answers bool) {
				for _, ns := range slices.Collect(maps.Keys(w.lists)) {
					w.Reaches(ns, answers)
				}
			}
			s.settledWithin(5*time.Second, true)
			for _, w := range all {
				say(w, true)
			}
			time.Sleep(5 * time.Minute)
			before := s.movedSoFar()
			for _, w := range all {
				say(w, false)
				time.Sleep(10 * time.Second)
			}
			time.Sleep(5 * time.Minute)
			for _, w := range all {
				say(w, true)
				time.Sleep(10 * time.Second)
			}
			time.Sleep(5 * time.Minute)
			if after := s.movedSoFar(); !maps.Equal(before, after) {
				t.Errorf("an outage that all see has moved images: %v, then %v", before, after)
			}
			w := all[slices.IndexFunc(all, func(w *worker) bool { return (s.leaders()[0] == w) == leader })]
			others := map[string]bool{}
			s.mu.Lock()
			for id, owner := range s.runs {
				others[id] = owner != w
			}
			s.mu.Unlock()
			say(w, false)
			time.Sleep(cutAfter - 5*time.Second)
			if s.counts()[w.name] == 0 {
				t.Error("its images are taken from it at once")
			}
			time.Sleep(15 * time.Second)
			s.settledWithin(time.Second, false)
			if n := s.counts(); n[w.name] != 0 {
				t.Errorf("%v", n)
			}
			time.Sleep(time.Minute)
			for id, n := range s.movedSoFar() {
				if others[id] && n != before[id] {
					t.Errorf("%s moved, though it was another's", id)
				}
			}
			if l := s.leaders(); len(l) != 1 || l[0] == w {
				t.Errorf("leaders: %d, and it leads: %v", len(l), w.leads)
			}
			say(w, true)
			s.settledWithin(10*time.Minute, true)
		})
	}
}
