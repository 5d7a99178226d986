package supervision

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rbdwarden/rbdwarden/report"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func at(seconds float64) time.Time { return t0.Add(time.Duration(seconds * float64(time.Second))) }

func died(seconds, random float64) Died {
	return Died{Cause: Cause{What: "x", Why: report.WhyPanic, When: at(seconds)}, Random: random}
}

func start(seconds float64, parked bool) Decision {
	return Decision{Start: true, At: at(seconds), Parked: parked}
}

var testStrategy = Strategy{
	Min: time.Second, Max: 8 * time.Second, Factor: 2, Intensity: 4, Window: time.Minute,
	ParkedRetry: 100 * time.Second, Calm: 30 * time.Second,
}

func TestRestarter(t *testing.T) {
	type step struct {
		event Event
		want  Decision
	}
	for _, c := range []struct {
		name     string
		steps    []step
		restarts int
	}{
		{"first start", []step{{Started{at(0)}, Decision{}}}, 0},
		{"delays grow to their cap; a random number of 0 halves them", []step{
			{Started{at(0)}, Decision{}},
			{died(0, 0), start(0.5, false)}, {Started{at(0.5)}, Decision{}},
			{died(1, 0), start(2, false)}, {Started{at(2)}, Decision{}},
			{died(2, 0), start(4, false)}, {Started{at(4)}, Decision{}},
			{died(4, 0), start(8, false)},
		}, 3},
		{"the delay is capped", []step{
			{died(0, 0.5), start(0.75, false)}, {died(100, 0.5), start(101.5, false)}, {died(200, 0.5), start(203, false)},
			{died(300, 0.5), start(306, false)}, {died(400, 0.5), start(406, false)}, {died(500, 0.5), start(506, false)},
		}, 0},
		{"a calm time forgives", []step{
			{Started{at(0)}, Decision{}}, {died(1, 0), start(1.5, false)},
			{Started{at(2)}, Decision{}}, {died(3, 0), start(4, false)},
			{Started{at(4)}, Decision{}}, {died(34, 0), start(34.5, false)},
			{Started{at(35)}, Decision{}}, {died(64.9, 0), start(65.9, false)},
		}, 3},
		{"too many within the window park; parked things are retried slowly", []step{
			{died(0, 0), start(0.5, false)}, {died(1, 0), start(2, false)}, {died(2, 0), start(4, false)},
			{died(3, 0), start(7, false)}, {died(4, 0), start(54, true)},
			{Started{at(54)}, Decision{}}, {died(55, 0.5), start(130, true)},
			{Started{at(130)}, Decision{}}, {died(131, 0), start(135, false)},
		}, 2},
		{"deaths leave the window", []step{
			{died(0, 0), start(0.5, false)}, {died(1, 0), start(2, false)}, {died(2, 0), start(4, false)},
			{died(3, 0), start(7, false)}, {died(60.5, 0), start(64.5, false)}, {died(60.6, 0), start(110.6, true)},
		}, 0},
		{"forgiveness starts at once, with a clean slate", []step{
			{died(0, 0), start(0.5, false)}, {died(1, 0), start(2, false)}, {died(2, 0), start(4, false)},
			{died(3, 0), start(7, false)}, {died(4, 0), start(54, true)},
			{Forgiven{at(10)}, start(10, false)}, {Started{at(10)}, Decision{}}, {died(11, 0), start(11.5, false)},
		}, 1},
		{"what runs, or never ran, needs no forgiveness", []step{
			{Forgiven{at(0)}, Decision{}}, {Started{at(1)}, Decision{}}, {Forgiven{at(2)}, Decision{}},
		}, 0},
		{"a start that fails is a death too", []step{
			{died(0, 0), start(0.5, false)}, {died(0.5, 0), start(1.5, false)}, {Started{at(2)}, Decision{}},
		}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := NewRestarter(testStrategy)
			for i, s := range c.steps {
				if got := r.Step(s.event); got != s.want {
					t.Fatalf("step %d, %+v: got %+v, want %+v", i, s.event, got, s.want)
				}
				if d, ok := s.event.(Died); ok {
					if r.Parked() != s.want.Parked || !r.Next().Equal(s.want.At) || r.Last().When != d.Cause.When {
						t.Errorf("step %d: parked %v, next %v, last %+v", i, r.Parked(), r.Next(), r.Last())
					}
				} else if !s.want.Start && !r.Next().IsZero() {
					t.Errorf("step %d: it runs and is to be started at %v", i, r.Next())
				}
			}
			if r.Restarts() != c.restarts {
				t.Errorf("%d restarts, want %d", r.Restarts(), c.restarts)
			}
		})
	}
}

// Whatever happens: a death is always answered by a start, never sooner than half of
// Min nor later than the longest delay, and memory does not grow.
func TestRestarterProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, now := NewRestarter(testStrategy), t0
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "gap")))
			switch rapid.IntRange(0, 3).Draw(t, "event") {
			case 0:
				r.Step(Started{now})
			case 1:
				r.Step(Forgiven{now})
			default:
				d := r.Step(Died{Cause: Cause{When: now}, Random: rapid.Float64Range(0, 0.999999).Draw(t, "random")})
				wait := d.At.Sub(now)
				longest := testStrategy.Max
				if d.Parked {
					longest = testStrategy.ParkedRetry
				}
				if !d.Start || wait < testStrategy.Min/2 || wait > longest {
					t.Fatalf("decision %+v after %v", d, wait)
				}
				if d.Parked && wait < testStrategy.ParkedRetry/2 {
					t.Fatalf("parked for %v only", wait)
				}
			}
			if len(r.deaths) > testStrategy.Intensity+1 {
				t.Fatalf("%d deaths are remembered", len(r.deaths))
			}
		}
	})
}

func TestLastIsACopy(t *testing.T) {
	r := NewRestarter(testStrategy)
	if r.Last() != nil {
		t.Error("something that never died has a cause")
	}
	r.Step(died(0, 0))
	r.Last().What = "changed"
	if r.Last().What != "x" {
		t.Error("the caller changed the memory")
	}
}
