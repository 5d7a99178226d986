package coordinator

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/cluster/membership"
	"github.com/rbdwarden/rbdwarden/cluster/placement"
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
		"one, after a while, and not at once again":  {{time.Hour, "yyy", ""}, {cutAfter - time.Second, "nyy", ""}, {2 * time.Second, "nyy", "a"}, {trusted - time.Second, "yyy", "a"}, {2 * time.Second, "yyy", ""}},
		"an outage of the primary that all see":      {{time.Hour, "yyy", ""}, {30 * time.Second, "nyy", ""}, {10 * time.Second, "nny", ""}, {time.Hour, "nnn", ""}},
		"and its end":                                {{time.Hour, "nnn", ""}, {30 * time.Second, "ynn", ""}, {10 * time.Second, "yyn", ""}, {time.Hour, "yyy", ""}},
		"its end, which one does not see":            {{time.Hour, "nnn", ""}, {trusted - time.Second, "ynn", ""}, {2 * time.Second, "ynn", "bc"}},
		"a link that comes and goes":                 {{time.Hour, "yyy", ""}, {cutAfter, "nyy", "a"}, {time.Minute, "yyy", "a"}, {time.Second, "nyy", "a"}, {time.Minute, "yyy", "a"}},
		"of those who do not know nobody can tell":   {{time.Hour, "n??", ""}, {time.Hour, "?yy", ""}},
		"a member that drains would not take images": {{time.Hour, "ndd", ""}},
		"two of three":                               {{time.Hour, "yyy", ""}, {time.Hour, "nny", "ab"}},
	} {
		t.Run(name, func(t *testing.T) {
			now, r := time.Now(), newReach(nil)
			for n, s := range steps {
				var v membership.View
				for i := range len(s.says) {
					m := membership.Member{ID: string(rune('a' + i)), Extra: map[string]string{extraRemote: words[s.says[i]]}}
					if s.says[i] == 'd' {
						m.Draining, m.Extra[extraRemote] = true, yes
					}
					v.Members = append(v.Members, m)
				}
				for range s.lasts / time.Second {
					r.judge(v, now)
					now = now.Add(time.Second)
				}
				cut := r.judge(v, now)
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

// A member that takes the place of one that was cut off, on the same host, is cut off until it says otherwise; time in
// which the leader did not look does not count.
func TestWhoIsCutOffAcrossLives(t *testing.T) {
	now, r := time.Now(), newReach(nil)
	look := func(lasts, every time.Duration, says map[string]string) map[string]bool {
		var v membership.View
		for _, id := range slices.Sorted(maps.Keys(says)) {
			v.Members = append(v.Members, membership.Member{ID: id, Host: id[:1], Extra: map[string]string{extraRemote: says[id]}})
		}
		var cut map[string]bool
		for end := now.Add(lasts); now.Before(end); now = now.Add(every) {
			cut = r.judge(v, now)
		}
		return cut
	}
	const yes, no, unknown = remoteAnswers, remoteSilent, ""
	look(time.Hour, time.Second, map[string]string{"a1": yes, "b1": yes})
	if cut := look(20*time.Second, time.Second, map[string]string{"a1": no, "b1": yes}); len(cut) > 0 {
		t.Errorf("at once: %v", cut)
	}
	now = now.Add(time.Hour)
	if cut := look(20*time.Second, time.Second, map[string]string{"a1": no, "b1": yes}); len(cut) > 0 {
		t.Errorf("after an hour that nobody saw: %v", cut)
	}
	if cut := look(cutAfter, time.Second, map[string]string{"a1": no, "b1": yes}); !cut["a1"] {
		t.Errorf("not cut off: %v", cut)
	}
	look(time.Minute, time.Second, map[string]string{"b1": yes})
	if cut := look(2*time.Second, time.Second, map[string]string{"a2": unknown, "b1": yes, "c1": unknown}); !cut["a2"] || cut["c1"] {
		t.Errorf("its successor, and one of another host: %v", cut)
	}
	if cut := look(trusted+2*time.Second, time.Second, map[string]string{"a2": yes, "b1": yes}); len(cut) > 0 {
		t.Errorf("reaches it again: %v", cut)
	}
	if cut := look(2*time.Second, time.Second, map[string]string{"a2": yes, "a3": unknown, "b1": yes}); len(cut) > 0 {
		t.Errorf("another one there: %v", cut)
	}
}

// A leader that is cut off leaves the lead with the policy that gives all images to the leader; who does not hear the primary
// does not take a lead that is free.
func TestTheLeadGoesToWhoHearsThePrimary(t *testing.T) {
	run(t, 6, func(s *site) {
		s.placement.Policy = placement.None
		a, b := s.start(1, 0, 1), s.start(2, 0, 1)
		s.settledWithin(10*time.Second, false)
		leads, other := s.leaders()[0], b
		if leads == b {
			other = a
		}
		for _, w := range []*worker{a, b} {
			w.Reaches("", true)
		}
		time.Sleep(5 * time.Minute)
		leads.Reaches("", false)
		time.Sleep(cutAfter + 20*time.Second)
		if l := s.leaders(); len(l) != 1 || l[0] != other {
			t.Fatalf("%d lead, and the one that is cut off: %v", len(l), leads.leads)
		}
		if n := s.counts(); n[leads.name] > 0 || n[""] > 0 {
			t.Errorf("%v", n)
		}
		other.Release() // nobody else may have it
		time.Sleep(time.Minute)
		if l := s.leaders(); len(l) != 1 || l[0] != other {
			t.Errorf("%d lead, and the one that is cut off: %v", len(l), leads.leads)
		}
	})
}

// A member that alone does not reach the primary's cluster, the leader too, gives its images and the leadership
// to those who do; an outage that all see moves nothing.
func TestAMemberThatIsCutOff(t *testing.T) {
	for _, leader := range []bool{false, true} {
		run(t, 24, func(s *site) {
			all := []*worker{s.start(1, 0, 1), s.start(2, 0, 1), s.start(3, 0, 1)}
			say := func(w *worker, answers bool) {
				w.mu.Lock()
				namespaces := slices.Collect(maps.Keys(w.lists))
				w.mu.Unlock()
				for _, ns := range namespaces {
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
			assertGone := s.givesAway(w)
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
			assertGone()
			say(w, true)
			s.settledWithin(10*time.Minute, true)
		})
	}
}
