package placement

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// world draws members in every state and images in every relation to them.
func world(t *rapid.T) Input {
	in := Input{Options: Defaults(), Now: now, Leader: "m0"}
	in.Policy = rapid.SampledFrom([]Policy{Balanced, Simple}).Draw(t, "policy")
	if rapid.IntRange(0, 4).Draw(t, "begin") == 0 {
		in.Begun = ago(time.Duration(rapid.IntRange(0, 3000).Draw(t, "begun")) * time.Millisecond)
	}
	n := rapid.IntRange(1, 8).Draw(t, "members")
	for k := range n {
		m := Member{
			ID: fmt.Sprint("m", k), Host: rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "host"), Daemon: "d",
			Started: ago(time.Duration(rapid.IntRange(0, 100).Draw(t, "started")) * time.Second),
			Workers: rapid.IntRange(0, 3).Draw(t, "workers"),
		}
		m.Seat = fmt.Sprint(m.Host, rapid.IntRange(0, 3).Draw(t, "seat"))
		switch rapid.IntRange(0, 5).Draw(t, "state") {
		case 0:
			m.DeadSince = ago(time.Duration(rapid.IntRange(1, 4000).Draw(t, "dead since")) * time.Millisecond)
		case 1:
			m.Draining = true
		case 2:
			m.Cut = true
		case 3:
			m.Silent = true
		}
		if rapid.IntRange(0, 4).Draw(t, "weighs") == 0 {
			m.Weight = rapid.Float64Range(0.25, 4).Draw(t, "weight")
		}
		in.Members = append(in.Members, m)
	}
	for k := range rapid.IntRange(0, 120).Draw(t, "images") {
		owner := rapid.IntRange(-2, n-1).Draw(t, "owner")
		i := Image{ID: fmt.Sprintf("i%03d", k), Load: float64(rapid.IntRange(0, 20).Draw(t, "load"))}
		switch owner {
		case -1:
		case -2:
			i.Owner, i.Seat = "gone", rapid.SampledFrom([]string{"", "x0", "w9"}).Draw(t, "seat")
		default:
			i.Owner, i.Seat = in.Members[owner].ID, in.Members[owner].Seat
		}
		if rapid.IntRange(0, 9).Draw(t, "is pinned") == 0 {
			i.Pin = rapid.SampledFrom(in.Members).Draw(t, "pin").Seat
		}
		if rapid.Bool().Draw(t, "was moved") {
			i.Moved = ago(time.Duration(rapid.IntRange(-10, 400).Draw(t, "moved")) * time.Second)
		}
		if rapid.Bool().Draw(t, "was mapped") {
			i.Mapped = ago(time.Duration(rapid.IntRange(-10, 100).Draw(t, "mapped")) * time.Second)
		}
		in.Images = append(in.Images, i)
	}
	return in
}

// able are the living members that hold their seats, and of those the best that there are: who hears
// the primary's cluster, who does not drain and is not cut off, all.
func able(in Input) (living, receiving map[string]Member) {
	living, receiving = map[string]Member{}, map[string]Member{}
	holds := map[string]Member{}
	for _, m := range in.Members {
		h, taken := holds[m.Seat]
		if m.DeadSince.IsZero() && (!taken || m.Started.After(h.Started) || m.Started.Equal(h.Started) && m.ID > h.ID) {
			holds[m.Seat] = m
		}
	}
	for _, m := range holds {
		living[m.ID] = m
	}
	for _, least := range []func(Member) bool{
		func(m Member) bool { return !m.Draining && !m.Cut && !m.Silent },
		func(m Member) bool { return !m.Draining && !m.Cut },
		func(Member) bool { return true },
	} {
		for id, m := range living {
			if least(m) {
				receiving[id] = m
			}
		}
		if len(receiving) > 0 {
			break
		}
	}
	return living, receiving
}

// inherits tells whether a member sits where an image's owner sat. It may not hear the primary's cluster yet.
func inherits(in Input, i Image, m Member) bool {
	seat := i.Seat
	for _, was := range in.Members {
		if was.ID == i.Owner {
			seat = was.Seat
		}
	}
	return m.Seat == seat && !m.Draining && !m.Cut
}

// later is the input at another time.
func later(in Input, t time.Time) Input { in.Now = t; return in }

// Whatever the state: nobody is left out while a member lives, nobody gets what it must
// not, and deciding again moves nothing.
func TestEveryDecision(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := world(t)
		d := Decide(in)
		living, receiving := able(in)
		after := apply(in, d)
		waits := map[string]bool{}
		for _, id := range d.Waiting {
			waits[id] = true
		}
		if len(d.Waiting) > 0 && (d.Next.IsZero() || d.Next.After(in.Now.Add(in.HeirGrace))) {
			t.Fatalf("%d images wait until %v", len(d.Waiting), d.Next)
		}
		for n, i := range after.Images {
			_, lives := living[i.Owner]
			if len(living) > 0 && lives == waits[i.ID] {
				t.Fatalf("%+v: lives %v, waits %v", i, lives, waits[i.ID])
			}
			before := in.Images[n]
			if before.Owner == i.Owner {
				continue
			}
			if _, ok := receiving[i.Owner]; !ok && !inherits(in, before, living[i.Owner]) {
				t.Fatalf("%+v went to one that may not have it", i)
			}
		}
		moved := map[string]time.Duration{}
		for _, i := range in.Images {
			if moved[i.ID] = time.Hour; !i.Moved.IsZero() && !i.Moved.After(in.Now) {
				moved[i.ID] = in.Now.Sub(i.Moved)
			}
		}
		for _, m := range d.Moves {
			if m.Reason == Evened && moved[m.Image] < in.MigrationThrottle/impatience || m.Reason == Cooled && moved[m.Image] < in.MigrationThrottle {
				t.Fatalf("%+v was moved lately", m)
			}
		}
		if again := Decide(after); len(again.Moves) > 0 {
			t.Fatalf("deciding again: %+v", again.Moves)
		}
	})
}

// Time goes on and nothing else happens: it becomes even by as few moves as that takes,
// no image is moved for balance's sake twice within the throttle, and then it is quiet.
func TestItSettles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := world(t)
		if living, _ := able(in); len(living) == 0 {
			return
		}
		equalWeights := true
		for n := range in.Members { // what is dead stays dead
			equalWeights = equalWeights && (in.Members[n].Weight == 0 || in.Members[n].Weight == 1)
		}
		last := map[string]time.Time{}
		evened, moves := 0, 0
		least := -1
		for round := 0; ; round++ {
			if round > 400 {
				t.Fatal("it does not settle")
			}
			d := Decide(in)
			if least < 0 && len(d.Waiting) == 0 {
				least = leastMoves(in)
				evened = 0
			}
			for _, m := range d.Moves {
				moves++
				if m.Reason != Evened && m.Reason != Cooled {
					continue
				}
				if m.Reason == Evened {
					evened++
				}
				if at, again := last[m.Image]; again && in.Now.Sub(at) < in.MigrationThrottle/impatience {
					t.Fatalf("%+v was moved %v before", m, in.Now.Sub(at))
				}
				last[m.Image] = in.Now
			}
			in = apply(in, d)
			if len(d.Moves) == 0 && in.Now.After(now.Add(time.Hour)) {
				break
			}
			if d.Next.IsZero() {
				d.Next = in.Now.Add(time.Minute)
			}
			in = later(in, d.Next)
		}
		living, receiving := able(in)
		pins := false
		count := map[string]int{}
		for id := range receiving {
			count[id] = 0
		}
		draining := !slices.ContainsFunc(slices.Collect(maps.Values(receiving)), func(m Member) bool { return !m.Draining && !m.Cut })
		for _, i := range in.Images {
			if _, ok := receiving[i.Owner]; ok {
				count[i.Owner]++
			} else if m := living[i.Owner]; !m.Silent || m.Draining || m.Cut {
				t.Fatalf("%+v stays where it must not", i)
			}
			pins = pins || i.Pin != ""
		}
		if pins || !equalWeights || draining {
			return
		}
		if spread(count) > 1 {
			t.Fatalf("uneven: %v", count)
		}
		if evened > least {
			t.Fatalf("%d moves made even what %d could", evened, least)
		}
	})
}

// Loads are measured with noise, and each image's may change once: they come near to each other
// while the counts stay even, by few exchanges, and then it is quiet.
func TestLoadsSettle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := Input{Options: Defaults(), Now: now}
		in.LeastLoad = 1
		n := rapid.IntRange(2, 6).Draw(t, "members")
		for k := range n {
			in.Members = append(in.Members, member(fmt.Sprintf("%c", 'a'+k)))
		}
		in.Images = images("", rapid.IntRange(4*n, 40).Draw(t, "images"))
		in = apply(in, Decide(in))
		loads := map[string]float64{}
		change := func() {
			for _, i := range in.Images {
				loads[i.ID] = rapid.Float64Range(0, 100).Draw(t, "load")
			}
		}
		change()
		hour := func(h int) (moves int) {
			for range 30 {
				in = later(in, in.Now.Add(2*time.Minute))
				for k := range in.Images {
					noise := 1 + 0.02*float64((h*7+k*13+in.Now.Minute()*5)%11-5)/5
					in.Images[k].Load = loads[in.Images[k].ID] * noise
				}
				d := Decide(in)
				for _, m := range d.Moves {
					if m.Reason != Cooled {
						t.Fatalf("%+v", m)
					}
				}
				moves += len(d.Moves)
				in = apply(in, d)
				count := map[string]int{}
				for _, i := range in.Images {
					count[i.Owner]++
				}
				if spread(count) > 1 {
					t.Fatalf("uneven: %v", count)
				}
			}
			return moves
		}
		for phase := range 2 {
			before := heatSpread(in, loads)
			moves := 0
			for h := range 2 {
				moves += hour(h)
			}
			if moves > len(in.Images) {
				t.Fatalf("phase %d: %d moves of %d images", phase, moves, len(in.Images))
			}
			if after := heatSpread(in, loads); moves > 0 && after >= before {
				t.Fatalf("phase %d: %d moves, and the members were %.2f unlike and are %.2f", phase, moves, before, after)
			}
			if late := hour(2); late > 0 {
				t.Fatalf("phase %d: %d moves when all was quiet", phase, late)
			}
			change()
		}
	})
}

// heatSpread is how unlike the members are: the sum of the squares of their loads.
func heatSpread(in Input, loads map[string]float64) float64 {
	heat, sum := map[string]float64{}, 0.0
	for _, i := range in.Images {
		heat[i.Owner] += loads[i.ID]
	}
	for _, h := range heat {
		sum += h * h
	}
	return sum
}

// A member dies and comes back again and again: what it had fails over each time, for that
// has to be, but no image goes back to it twice within a tenth of the throttle.
func TestAMemberThatComesAndGoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := Input{Options: Defaults(), Now: now, Members: []Member{member("a"), member("b"), member("c")}}
		in.Images = images("", rapid.IntRange(3, 60).Draw(t, "images"))
		last, back := map[string]time.Time{}, 0
		for end := in.Now.Add(20 * time.Minute); in.Now.Before(end); {
			c := &in.Members[2]
			if c.DeadSince.IsZero() {
				c.DeadSince = in.Now
			} else {
				c.DeadSince = time.Time{}
			}
			for range rapid.IntRange(5, 60).Draw(t, "seconds") {
				d := Decide(in)
				for _, m := range d.Moves {
					if m.Reason != Evened {
						continue
					}
					back++
					if at, again := last[m.Image]; again && in.Now.Sub(at) < in.MigrationThrottle/impatience {
						t.Fatalf("%+v went back %v after it last did", m, in.Now.Sub(at))
					}
					last[m.Image] = in.Now
				}
				in = later(apply(in, d), in.Now.Add(time.Second))
			}
		}
		if back == 0 {
			t.Fatal("nothing ever went back")
		}
	})
}

func spread(count map[string]int) int {
	low, high := -1, 0
	for _, c := range count {
		if high = max(high, c); low < 0 || c < low {
			low = c
		}
	}
	return high - max(low, 0)
}

// leastMoves is how many images of receiving members must leave them, for equal weights
// and without pins.
func leastMoves(in Input) int {
	living, receiving := able(in)
	holders := map[string]string{}
	for id, m := range living {
		holders[m.Seat] = id
	}
	members := map[string]Member{}
	for _, m := range in.Members {
		members[m.ID] = m
	}
	count := map[string]int{}
	for _, i := range in.Images {
		owner := i.Owner
		if _, ok := living[owner]; !ok && owner != "" { // the heir has it
			seat := i.Seat
			if m, known := members[owner]; known {
				seat = m.Seat
			}
			owner = holders[seat]
		}
		count[owner]++
	}
	base := len(in.Images) / len(receiving)
	extra := len(in.Images) % len(receiving)
	moves := 0
	for id := range receiving {
		if over := count[id] - base; over > 0 {
			moves += over
			if extra > 0 {
				extra--
				moves--
			}
		}
	}
	return moves
}

// A balanced pool in which something happens: who is not concerned keeps its images.
func TestFewMoves(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, total := rapid.IntRange(2, 12).Draw(t, "members"), rapid.IntRange(0, 300).Draw(t, "images")
		in := Input{Options: Defaults(), Now: now}
		in.MigrationThrottle, in.UpdateThrottle = time.Second, 0
		in.Policy = rapid.SampledFrom([]Policy{Balanced, Simple}).Draw(t, "policy")
		for k := range n {
			in.Members = append(in.Members, member(fmt.Sprintf("%c", 'a'+k)))
		}
		in.Images = images("", total)
		step := func(reasons ...Reason) (moves int) {
			for {
				d := Decide(in)
				for _, m := range d.Moves {
					if !slices.Contains(reasons, m.Reason) {
						t.Fatalf("%+v", m)
					}
				}
				moves += len(d.Moves)
				in = apply(later(in, in.Now.Add(2*time.Second)), d)
				if len(d.Moves) == 0 {
					return moves
				}
			}
		}
		owned := func(id string) (count int) {
			for _, i := range in.Images {
				if i.Owner == id {
					count++
				}
			}
			return count
		}
		if got := step(Placed); got != total {
			t.Fatalf("%d of %d placed", got, total)
		}
		victim := rapid.IntRange(0, n-1).Draw(t, "victim")
		had := owned(in.Members[victim].ID)
		switch rapid.IntRange(0, 3).Draw(t, "what") {
		case 0: // it dies
			in.Members[victim].DeadSince = in.Now
			if got := step(Failover); got != had {
				t.Fatalf("a member with %d images dies: %d moves", had, got)
			}
		case 1: // it is restarted
			in.Members[victim].DeadSince = in.Now
			in.Members = append(in.Members, member("Z", heirOf(in.Members[victim].ID)))
			if got := step(Inherited); got != had {
				t.Fatalf("a member with %d images is restarted: %d moves", had, got)
			}
		case 2: // it drains
			in.Members[victim].Draining = true
			if got := step(Drained); got != had {
				t.Fatalf("a member with %d images drains: %d moves", had, got)
			}
		case 3: // another joins
			in.Members = append(in.Members, member("Z"))
			if got := step(Evened); got != total/(n+1) {
				t.Fatalf("another joins %d with %d images: %d moves", n, total, got)
			}
		}
	})
}
