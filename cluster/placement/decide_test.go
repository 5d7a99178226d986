package placement

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var now = time.Unix(1_800_000_000, 0)

func ago(d time.Duration) time.Time { return now.Add(-d) }

// member is a living one: the first letter of its name is its host, the whole its seat.
func member(name string, change ...func(*Member)) Member {
	m := Member{ID: name, Seat: "seat-" + name, Host: name[:1], Daemon: "d", Started: ago(time.Hour)}
	for _, c := range change {
		c(&m)
	}
	return m
}

func dead(since time.Duration) func(*Member) { return func(m *Member) { m.DeadSince = ago(since) } }
func draining(m *Member)                     { m.Draining = true }
func cut(m *Member)                          { m.Cut, m.Silent = true, true }
func silent(m *Member)                       { m.Silent = true }
func weighs(w float64) func(*Member)         { return func(m *Member) { m.Weight = w } }

// heirOf puts a member on another's seat, as its successor.
func heirOf(name string) func(*Member) {
	return func(m *Member) {
		m.Seat, m.Host, m.Started = "seat-"+name, name[:1], ago(time.Minute)
	}
}

// images gives each owner as many as the number says, in order of names: owner "a" and
// n=2 makes a0, a1.
func images(owner string, n int, change ...func(*Image)) (out []Image) {
	for k := range n {
		i := Image{ID: fmt.Sprintf("%s%03d", owner, k), Owner: owner}
		if owner != "" {
			i.Seat = "seat-" + owner
		}
		for _, c := range change {
			c(&i)
		}
		out = append(out, i)
	}
	return out
}

func moved(since time.Duration) func(*Image)  { return func(i *Image) { i.Moved = ago(since) } }
func mapped(since time.Duration) func(*Image) { return func(i *Image) { i.Mapped = ago(since) } }
func loaded(load float64) func(*Image)        { return func(i *Image) { i.Load = load } }
func pinned(seat string) func(*Image)         { return func(i *Image) { i.Pin = "seat-" + seat } }

func TestDecide(t *testing.T) {
	type counts map[string]int
	for name, c := range map[string]struct {
		members []Member
		images  [][]Image
		change  func(*Input)
		want    counts         // images by owner afterwards
		reasons map[Reason]int // of the moves
		waiting int
		next    time.Duration
	}{
		"nobody lives": {
			members: []Member{member("a", dead(time.Hour))}, images: [][]Image{images("a", 2), images("", 1)},
			want: counts{"a": 2, "": 1},
		},
		"new images go to the fewest": {
			members: []Member{member("a"), member("b")}, images: [][]Image{images("a", 4), images("b", 1), images("", 3)},
			want: counts{"a": 4, "b": 4}, reasons: map[Reason]int{Placed: 3},
		},
		"one new image where it makes no difference to the shares": {
			members: []Member{member("a"), member("b")}, images: [][]Image{images("a", 2, loaded(9)), images("b", 2, loaded(8)), images("", 1)},
			want: counts{"a": 2, "b": 3}, reasons: map[Reason]int{Placed: 1},
		},
		"uneven by one is even": {
			members: []Member{member("a"), member("b"), member("c")},
			images:  [][]Image{images("a", 1), images("b", 2), images("c", 2)},
			want:    counts{"a": 1, "b": 2, "c": 2},
		},
		"a member joins": {
			members: []Member{member("a"), member("b"), member("c")},
			images:  [][]Image{images("a", 5), images("b", 4)},
			want:    counts{"a": 3, "b": 3, "c": 3}, reasons: map[Reason]int{Evened: 3},
		},
		"by weight": {
			members: []Member{member("a", weighs(2)), member("b"), member("c", weighs(math.NaN()))},
			images:  [][]Image{images("", 8)},
			want:    counts{"a": 4, "b": 2, "c": 2}, reasons: map[Reason]int{Placed: 8},
		},
		"what was moved lately stays": {
			members: []Member{member("a"), member("b")},
			images:  [][]Image{images("a", 6, moved(4*time.Minute)), images("b", 2)},
			want:    counts{"a": 6, "b": 2}, next: time.Minute,
		},
		"unless somebody has less than half of its share": {
			members: []Member{member("a"), member("b")},
			images:  [][]Image{images("a", 7, moved(31*time.Second)), images("b", 1)},
			want:    counts{"a": 4, "b": 4}, reasons: map[Reason]int{Evened: 3},
		},
		"and then for a moment only": {
			members: []Member{member("a"), member("b")},
			images:  [][]Image{images("a", 7, moved(20*time.Second)), images("b", 1)},
			want:    counts{"a": 7, "b": 1}, next: 10 * time.Second,
		},
		"what a death or a drain has moved lately does not": {
			members: []Member{member("a"), member("b")},
			images:  [][]Image{images("a", 4, mapped(time.Second))},
			want:    counts{"a": 2, "b": 2}, reasons: map[Reason]int{Evened: 2},
		},
		"a time ahead of ours does not hold an image for ever": {
			members: []Member{member("a"), member("b")},
			images:  [][]Image{images("a", 4, moved(-time.Hour))},
			want:    counts{"a": 2, "b": 2}, reasons: map[Reason]int{Evened: 2},
		},
		"moves are paced": {
			members: []Member{member("a"), member("b")},
			images:  [][]Image{images("a", 100)},
			want:    counts{"a": 84, "b": 16}, reasons: map[Reason]int{Evened: 16}, next: time.Second,
		},
		"the next pace comes later": {
			members: []Member{member("a"), member("b")},
			images:  [][]Image{images("a", 84), images("b", 16, mapped(600*time.Millisecond))},
			want:    counts{"a": 84, "b": 16}, next: 400 * time.Millisecond,
		},
		"a restarted worker inherits, and nobody else's images move": {
			members: []Member{member("a", dead(0)), member("a2", heirOf("a")), member("b")},
			images:  [][]Image{images("a", 3), images("b", 2)},
			want:    counts{"a2": 3, "b": 2}, reasons: map[Reason]int{Inherited: 3},
		},
		"a restarted worker inherits before its predecessor's death is noticed": {
			members: []Member{member("a"), member("a2", heirOf("a")), member("b")},
			images:  [][]Image{images("a", 3), images("b", 2)},
			want:    counts{"a2": 3, "b": 2}, reasons: map[Reason]int{Inherited: 3},
		},
		"who was superseded gets nothing": {
			members: []Member{member("a"), member("a2", heirOf("a"))},
			images:  [][]Image{images("", 3)},
			want:    counts{"a2": 3}, reasons: map[Reason]int{Placed: 3},
		},
		"a restarted worker inherits from an owner without a record": {
			members: []Member{member("a2", heirOf("a")), member("b")},
			images:  [][]Image{images("a", 3), images("b", 2)},
			want:    counts{"a2": 3, "b": 2}, reasons: map[Reason]int{Inherited: 3},
		},
		"a seat that drains inherits nothing": {
			members: []Member{member("a2", heirOf("a"), draining), member("b")},
			images:  [][]Image{images("a", 3)},
			want:    counts{"b": 3}, reasons: map[Reason]int{Failover: 3},
		},
		"the dead are waited for while their daemon lives": {
			members: []Member{member("a1", dead(500*time.Millisecond)), member("a2"), member("b")},
			images:  [][]Image{images("a1", 3), images("a2", 2), images("b", 2)},
			want:    counts{"a1": 3, "a2": 2, "b": 2}, waiting: 3, next: 1500 * time.Millisecond,
		},
		"but not for long": {
			members: []Member{member("a1", dead(2*time.Second)), member("a2"), member("b")},
			images:  [][]Image{images("a1", 4), images("a2", 2), images("b", 2)},
			want:    counts{"a2": 4, "b": 4}, reasons: map[Reason]int{Failover: 4},
		},
		"the dead without a daemon are not waited for": {
			members: []Member{member("a", dead(0)), member("b"), member("c")},
			images:  [][]Image{images("a", 4), images("b", 2), images("c", 2)},
			want:    counts{"b": 4, "c": 4}, reasons: map[Reason]int{Failover: 4},
		},
		"nor those that were to go anyway": {
			members: []Member{member("a1", dead(0), draining), member("a2")},
			images:  [][]Image{images("a1", 4)},
			want:    counts{"a2": 4}, reasons: map[Reason]int{Failover: 4},
		},
		"what has nobody waits for the other workers when a term begins": {
			members: []Member{member("a1", func(m *Member) { m.Workers = 2 })},
			images:  [][]Image{images("", 2), images("x", 2)},
			change:  func(in *Input) { in.Begun = ago(time.Second) },
			want:    counts{"": 2, "x": 2}, waiting: 4, next: time.Second,
		},
		"not when they are all there": {
			members: []Member{member("a1", func(m *Member) { m.Workers = 2 }), member("a2", func(m *Member) { m.Workers = 2 })},
			images:  [][]Image{images("", 2)},
			change:  func(in *Input) { in.Begun = ago(time.Second) },
			want:    counts{"a1": 1, "a2": 1}, reasons: map[Reason]int{Placed: 2},
		},
		"nor later": {
			members: []Member{member("a1", func(m *Member) { m.Workers = 2 })},
			images:  [][]Image{images("", 2)},
			change:  func(in *Input) { in.Begun = ago(2 * time.Second) },
			want:    counts{"a1": 2}, reasons: map[Reason]int{Placed: 2},
		},
		"a draining member is emptied": {
			members: []Member{member("a", draining), member("b"), member("c")},
			images:  [][]Image{images("a", 4, moved(time.Minute)), images("b", 2), images("c", 2), images("", 2)},
			want:    counts{"b": 5, "c": 5}, reasons: map[Reason]int{Drained: 4, Placed: 2},
		},
		"some at a time": {
			members: []Member{member("a", draining), member("b")},
			images:  [][]Image{images("a", 40)},
			want:    counts{"a": 24, "b": 16}, reasons: map[Reason]int{Drained: 16}, next: time.Second,
		},
		"a member that is cut off from the primary is emptied, those who drain go on draining": {
			members: []Member{member("a", cut), member("b"), member("c", draining)},
			images:  [][]Image{images("a", 3, pinned("a")), images("b", 2), images("c", 2), images("", 1)},
			want:    counts{"b": 8}, reasons: map[Reason]int{CutOff: 3, Drained: 2, Placed: 1},
		},
		"a member that does not hear the primary's cluster keeps what it has, and gets nothing": {
			members: []Member{member("a", silent), member("b"), member("c")},
			images:  [][]Image{images("a", 1), images("b", 5), images("c", 3), images("", 2)},
			want:    counts{"a": 1, "b": 5, "c": 5}, reasons: map[Reason]int{Placed: 2},
		},
		"while nobody hears it, that says nothing": {
			members: []Member{member("a", silent), member("b", silent)},
			images:  [][]Image{images("a", 1), images("b", 5), images("", 2)},
			want:    counts{"a": 4, "b": 4}, reasons: map[Reason]int{Placed: 2, Evened: 1},
		},
		"nor does that keep a member from draining": {
			members: []Member{member("a", silent, draining), member("b", silent)},
			images:  [][]Image{images("a", 3), images("b", 2), images("x", 1)},
			want:    counts{"b": 6}, reasons: map[Reason]int{Drained: 3, Failover: 1},
		},
		"a successor that has not heard it yet inherits, one on a host that is cut off does not": {
			members: []Member{member("a", dead(time.Second)), member("A", heirOf("a"), silent), member("b", dead(time.Second)), member("B", heirOf("b"), cut), member("c")},
			images:  [][]Image{images("a", 2), images("b", 2), images("c", 2)},
			want:    counts{"A": 2, "c": 4}, reasons: map[Reason]int{Inherited: 2, Failover: 2},
		},
		"where all are cut off or drain, all stays": {
			members: []Member{member("a", cut), member("b", draining), member("c", cut, draining)},
			images:  [][]Image{images("a", 3), images("b", 2), images("c", 1)},
			want:    counts{"a": 3, "b": 2, "c": 1},
		},
		"where all drain, all stays, and what has nobody is better there than nowhere": {
			members: []Member{member("a", draining), member("b", draining)},
			images:  [][]Image{images("a", 4), images("", 1), images("x", 1)},
			want:    counts{"a": 4, "b": 2}, reasons: map[Reason]int{Placed: 1, Failover: 1},
		},
		"pinned images go where they are pinned, and the others make room": {
			members: []Member{member("a"), member("b")},
			images:  [][]Image{images("a", 3), images("b", 1, pinned("b")), images("c", 2, pinned("a"), moved(time.Second)), images("", 2, pinned("a"))},
			want:    counts{"a": 4, "b": 4}, reasons: map[Reason]int{Failover: 2, Placed: 2, Evened: 3},
		},
		"pins that do not fit the shares": {
			members: []Member{member("a"), member("b"), member("c")},
			images:  [][]Image{images("b", 6, pinned("a")), images("", 3)},
			want:    counts{"a": 6, "b": 2, "c": 1}, reasons: map[Reason]int{Pinned: 6, Placed: 3},
		},
		"who has more pinned to it than its part leaves the others less": {
			members: []Member{member("a"), member("b"), member("c")},
			images:  [][]Image{images("a", 6, pinned("a")), images("b", 3)},
			want:    counts{"a": 6, "b": 2, "c": 1}, reasons: map[Reason]int{Evened: 1},
		},
		"who is just above its part is left alone": {
			members: []Member{member("a"), member("b"), member("c")},
			images:  [][]Image{images("a", 8), images("b", 5)},
			want:    counts{"a": 4, "b": 5, "c": 4}, reasons: map[Reason]int{Evened: 4},
		},
		"a pin to a seat that drains or is not there does not count": {
			members: []Member{member("a", draining), member("b")},
			images:  [][]Image{images("a", 1, pinned("a")), images("b", 1, pinned("none"))},
			want:    counts{"b": 2}, reasons: map[Reason]int{Drained: 1},
		},
		"loads are evened out, counts kept": {
			members: []Member{member("a"), member("b")},
			images:  [][]Image{images("a", 4, loaded(10)), images("b", 4, loaded(1))},
			want:    counts{"a": 4, "b": 4}, reasons: map[Reason]int{Cooled: 4}, next: time.Minute,
		},
		"not by the simple policy": {
			members: []Member{member("a"), member("b")},
			images:  [][]Image{images("a", 4, loaded(10)), images("b", 4, loaded(1))},
			change:  func(in *Input) { in.Policy = Simple },
			want:    counts{"a": 4, "b": 4},
		},
		"nor where next to nothing is to be had": {
			members: []Member{member("a"), member("b")},
			images:  [][]Image{images("a", 4, loaded(10)), images("b", 4, loaded(1))},
			change:  func(in *Input) { in.LeastLoad = 20 },
			want:    counts{"a": 4, "b": 4},
		},
		"not a short time after other moves": {
			members: []Member{member("a"), member("b")},
			images:  [][]Image{images("a", 3, loaded(10)), images("b", 3, loaded(1)), images("ax", 1, loaded(0), moved(10*time.Second), func(i *Image) { i.Owner = "a" })},
			want:    counts{"a": 4, "b": 3}, next: 50 * time.Second,
		},
		"nor together with them": {
			members: []Member{member("a", dead(0)), member("b"), member("c")},
			images:  [][]Image{images("a", 2), images("b", 4, loaded(10)), images("c", 4, loaded(1))},
			want:    counts{"b": 5, "c": 5}, reasons: map[Reason]int{Failover: 2}, next: time.Minute,
		},
		"nor for a little": {
			members: []Member{member("a"), member("b")},
			images:  [][]Image{images("a", 4, loaded(10)), images("b", 4, loaded(8))},
			want:    counts{"a": 4, "b": 4}, next: time.Minute,
		},
		"nor while the load of what came lately is not known": {
			members: []Member{member("a"), member("b")},
			images:  [][]Image{images("a", 4, loaded(10)), images("b", 4, loaded(0), func(i *Image) { i.Mapped = ago(time.Second) })},
			want:    counts{"a": 4, "b": 4},
		},
		"one heavy image is not handed around": {
			members: []Member{member("a"), member("b")},
			images:  [][]Image{images("a", 1, loaded(100)), images("b", 1, loaded(1))},
			want:    counts{"a": 1, "b": 1}, next: time.Minute,
		},
		"none leaves all to the leader": {
			members: []Member{member("a"), member("b")},
			images:  [][]Image{images("a", 2), images("b", 2), images("", 1), images("x", 1)},
			change:  func(in *Input) { in.Policy, in.Leader = None, "b" },
			want:    counts{"b": 6}, reasons: map[Reason]int{ByPolicy: 4},
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := Input{Options: Defaults(), Now: now, Members: c.members, Images: slices.Concat(c.images...)}
			if c.change != nil {
				c.change(&in)
			}
			d := decide(t, in)
			after := counts{}
			for _, i := range apply(in, d).Images {
				after[i.Owner]++
			}
			var reasons map[Reason]int
			for _, m := range d.Moves {
				if reasons == nil {
					reasons = map[Reason]int{}
				}
				reasons[m.Reason]++
			}
			equal(t, "images", after, c.want)
			equal(t, "reasons", reasons, c.reasons)
			equal(t, "waiting", len(d.Waiting), c.waiting)
			var next time.Duration
			if !d.Next.IsZero() {
				next = d.Next.Sub(now)
			}
			if c.next == 0 && in.Policy == Balanced && next == time.Minute {
				next = 0 // the look at the loads, which always comes
			}
			equal(t, "next", next, c.next)
		})
	}
}

func equal(t testing.TB, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

// decide also checks that the order of the input makes no difference, that it is left as
// it was, and that the moves say what they are.
func decide(t testing.TB, in Input) Decision {
	t.Helper()
	before := in
	before.Members, before.Images = slices.Clone(in.Members), slices.Clone(in.Images)
	d := Decide(in)
	if fmt.Sprint(before.Images) != fmt.Sprint(in.Images) || fmt.Sprint(before.Members) != fmt.Sprint(in.Members) {
		t.Fatal("the input was changed")
	}
	rng := rand.New(rand.NewPCG(1, 2))
	rng.Shuffle(len(before.Images), func(i, j int) { before.Images[i], before.Images[j] = before.Images[j], before.Images[i] })
	rng.Shuffle(len(before.Members), func(i, j int) { before.Members[i], before.Members[j] = before.Members[j], before.Members[i] })
	equal(t, "the order of the input", Decide(before), d)
	owners := map[string]Image{}
	for _, i := range in.Images {
		owners[i.ID] = i
	}
	seats := map[string]string{}
	for _, m := range in.Members {
		seats[m.ID] = m.Seat
	}
	for _, m := range d.Moves {
		i := owners[m.Image]
		stays := m.Reason != Evened && m.Reason != Cooled // not for balance's sake
		if m.From != i.Owner || m.To == m.From || m.Seat != seats[m.To] || stays && !m.Moved.Equal(i.Moved) || !stays && !m.Moved.Equal(in.Now) {
			t.Errorf("%+v of %+v", m, i)
		}
	}
	return d
}

// After a restart loads are measured anew: what looks cool then is not.
func TestARestartCoolsNobody(t *testing.T) {
	in := Input{Options: Defaults(), Now: now, Members: []Member{member("a", dead(0)), member("a2", heirOf("a")), member("b")}}
	in.Images = slices.Concat(images("a", 4), images("b", 4, loaded(10)))
	for range 59 {
		d := decide(t, in)
		for _, m := range d.Moves {
			if m.Reason != Inherited {
				t.Fatalf("%+v", m)
			}
		}
		in = apply(in, d)
		in.Now = in.Now.Add(time.Second)
	}
}

// apply is the input after the decision has been written.
func apply(in Input, d Decision) Input {
	moves := map[string]Move{}
	for _, m := range d.Moves {
		moves[m.Image] = m
	}
	in.Images = slices.Clone(in.Images)
	for n := range in.Images {
		i := &in.Images[n]
		if m, ok := moves[i.ID]; ok {
			i.Owner, i.Seat, i.Moved, i.Mapped = m.To, m.Seat, m.Moved, in.Now
		}
	}
	return in
}
