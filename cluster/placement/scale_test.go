package placement

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"
)

// large is a balanced pool of 100,000 images on 20 members of five hosts, each image with
// a load; most images have little, some much.
func large(tb testing.TB) Input {
	in := Input{Options: Defaults(), Now: now}
	for k := range 20 {
		in.Members = append(in.Members, Member{
			ID: fmt.Sprintf("%06d", 4000+k), Seat: fmt.Sprintf("h%d/d/%d", k/4, k%4), Host: fmt.Sprint("h", k/4), Daemon: "d", Started: ago(time.Hour),
		})
	}
	rng := rand.New(rand.NewPCG(7, 7))
	for k := range 100_000 {
		in.Images = append(in.Images, Image{ID: fmt.Sprintf("%08x-0000-4000-8000-%012d", k*2654435761%(1<<32), k), Load: rng.ExpFloat64() * rng.ExpFloat64()})
	}
	d, took := timed(in)
	tb.Logf("first placement: %d moves, decided in %v", len(d.Moves), took)
	in = apply(in, d)
	for n := range in.Images {
		in.Images[n].Moved, in.Images[n].Mapped = ago(time.Hour), ago(time.Hour)
	}
	return in
}

// timed tells the processor's time, not the clock's: other tests run beside this one.
func timed(in Input) (Decision, time.Duration) {
	start := used()
	d := Decide(in)
	return d, used() - start
}

func used() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// settle decides until nothing moves, and tells what that took.
func settle(tb testing.TB, what string, in Input) (after Input, moves int) {
	tb.Helper()
	began, worst, decisions := in.Now, time.Duration(0), 0
	for {
		d, took := timed(in)
		worst = max(worst, took)
		decisions++
		moves += len(d.Moves)
		in = apply(in, d)
		if len(d.Moves) == 0 {
			break
		}
		in = later(in, in.Now.Add(in.UpdateThrottle))
	}
	tb.Logf("%s: %d moves in %d decisions over %v, a decision in up to %v", what, moves, decisions, in.Now.Sub(began), worst)
	if worst > 10*time.Second { // far below one; hours if it were quadratic
		tb.Errorf("%s: a decision took %v", what, worst)
	}
	return in, moves
}

// TestScale: 20 members and 100,000 images. It prints what decisions cost.
func TestScale(t *testing.T) {
	in := large(t)
	if _, moves := settle(t, "nothing happens", in); moves != 0 {
		t.Errorf("%d moves", moves)
	}
	change := func(f func(in *Input)) Input {
		out := in
		out.Members = append([]Member(nil), in.Members...)
		f(&out)
		return out
	}
	expect := func(what string, in Input, want int) {
		t.Helper()
		if _, got := settle(t, what, in); got != want {
			t.Errorf("%s: %d moves, want %d", what, got, want)
		}
	}
	expect("a member's host dies", change(func(in *Input) {
		for k := range 4 {
			in.Members[k].DeadSince = in.Now
		}
	}), 20_000)
	expect("a member dies for good", change(func(in *Input) { in.Members[3].DeadSince = in.Now.Add(-in.HeirGrace) }), 5_000)
	expect("a worker is restarted", change(func(in *Input) {
		heir := in.Members[3]
		heir.ID, heir.Started = "9999", in.Now
		in.Members = append(in.Members, heir)
	}), 5_000)
	expect("a member joins", change(func(in *Input) {
		in.Members = append(in.Members, Member{ID: "9999", Seat: "h9/d/0", Host: "h9", Daemon: "d"})
	}), 100_000/21)
	expect("a member drains", change(func(in *Input) { in.Members[3].Draining = true }), 5_000)
}

// TestLoadsThatWaver: loads are measured, and measurements are noisy. An hour in which
// every image's load wavers by half of it moves next to nothing.
func TestLoadsThatWaver(t *testing.T) {
	in := Input{Options: Defaults(), Now: now}
	for k := range 4 {
		in.Members = append(in.Members, member(fmt.Sprint(k)))
	}
	rng := rand.New(rand.NewPCG(3, 4))
	in.Images = images("", 400)
	base := make([]float64, len(in.Images))
	for n := range base {
		base[n] = rng.ExpFloat64() + 0.1
	}
	moves, late := 0, 0
	for minute := range 120 {
		for n := range in.Images {
			in.Images[n].Load = base[n] * (0.5 + rng.Float64())
		}
		d := Decide(in)
		if minute > 0 {
			moves += len(d.Moves)
		}
		if minute > 60 {
			late += len(d.Moves)
		}
		in = later(apply(in, d), in.Now.Add(time.Minute))
	}
	t.Logf("%d moves, %d of them in the second hour", moves, late)
	if late > 0 {
		t.Errorf("%d moves in the second hour", late)
	}
	// A load that is really different is not noise.
	for n := range in.Images {
		if in.Images[n].Owner == "2" {
			in.Images[n].Load *= 3
		}
	}
	if d := Decide(in); len(d.Moves) == 0 || d.Moves[0].Reason != Cooled {
		t.Errorf("a member three times as loaded as the others is left so: %+v", d.Moves)
	}
}

func BenchmarkDecide(b *testing.B) {
	in := large(b)
	b.ReportAllocs()
	for b.Loop() {
		Decide(in)
	}
}
