package supervision

import (
	"time"

	"github.com/rbdwarden/rbdwarden/report"
)

// Cause says what died, why and when.
type Cause = report.Cause

// Strategy says how deaths are answered. The zero Strategy is not usable; start
// from DefaultStrategy.
type Strategy struct {
	Min    time.Duration // delay of the first restart
	Max    time.Duration // longest delay
	Factor float64       // by which the delay grows; at least 1
	// Intensity is how many deaths within Window are borne. One more parks.
	Intensity int
	Window    time.Duration
	// ParkedRetry is the time between attempts with something that is parked.
	ParkedRetry time.Duration
	// Calm is how long something must have run for its delay to start over.
	Calm time.Duration
}

// DefaultStrategy fits both processes and images.
var DefaultStrategy = Strategy{
	Min: 200 * time.Millisecond, Max: 30 * time.Second, Factor: 2,
	Intensity: 10, Window: 5 * time.Minute,
	ParkedRetry: time.Minute, Calm: time.Minute,
}

// Event is something that a Restarter has to know. Times never go back.
type Event interface{ event() }

// Died says that the supervised thing is dead. Random is a random number, at least 0
// and less than 1.
type Died struct {
	Cause  Cause // Cause.When is the time of the event
	Random float64
}

// Started says that the supervised thing was started.
type Started struct{ When time.Time }

// Forgiven says that a person asked for an attempt now, with a clean slate.
type Forgiven struct{ When time.Time }

func (Died) event()     {}
func (Started) event()  {}
func (Forgiven) event() {}

// Decision is what to do after an event.
type Decision struct {
	// Start says that the thing is to be started at At. Otherwise there is
	// nothing to do.
	Start bool
	At    time.Time
	// Parked says that it died too often and that At is a slow retry.
	Parked bool
}

// Restarter is the memory of one supervised thing.
type Restarter struct {
	strategy Strategy
	deaths   []time.Time // within the window, oldest first; at most Intensity+1
	streak   int         // deaths since the last calm time
	started  time.Time   // of the running one; zero while it is dead
	restarts int
	last     *Cause
	parked   bool
	next     time.Time
}

// NewRestarter makes the memory of something that was not started yet.
func NewRestarter(s Strategy) *Restarter { return &Restarter{strategy: s} }

// Restarts counts how often it was started again.
func (r *Restarter) Restarts() int { return r.restarts }

// Last is the cause of its last death, nil if it never died.
func (r *Restarter) Last() *Cause {
	if r.last == nil {
		return nil
	}
	c := *r.last
	return &c
}

// Parked tells whether it is dead because it died too often.
func (r *Restarter) Parked() bool { return r.parked }

// Next is when it is to be started; zero while it runs.
func (r *Restarter) Next() time.Time { return r.next }

// Step takes an event and decides.
func (r *Restarter) Step(e Event) Decision {
	switch e := e.(type) {
	case Started:
		if r.last != nil && r.started.IsZero() {
			r.restarts++
		}
		r.started, r.next, r.parked = e.When, time.Time{}, false
		return Decision{}
	case Forgiven:
		r.deaths, r.streak, r.parked = nil, 0, false
		if !r.started.IsZero() || r.last == nil {
			return Decision{}
		}
		r.next = e.When
		return Decision{Start: true, At: e.When}
	case Died:
		return r.died(e)
	}
	return Decision{}
}

func (r *Restarter) died(e Died) Decision {
	now, s := e.Cause.When, r.strategy
	if !r.started.IsZero() && now.Sub(r.started) >= s.Calm {
		r.streak = 0
	}
	r.started = time.Time{}
	cause := e.Cause
	r.last = &cause
	r.streak++
	r.deaths = append(within(r.deaths, now.Add(-s.Window)), now)
	if len(r.deaths) > s.Intensity {
		r.deaths = r.deaths[len(r.deaths)-s.Intensity-1:]
		r.parked = true
		r.next = now.Add(jitter(s.ParkedRetry, e.Random))
		return Decision{Start: true, At: r.next, Parked: true}
	}
	r.parked = false
	r.next = now.Add(jitter(s.delay(r.streak), e.Random))
	return Decision{Start: true, At: r.next}
}

// within drops the times before from.
func within(times []time.Time, from time.Time) []time.Time {
	for len(times) > 0 && times[0].Before(from) {
		times = times[1:]
	}
	return times
}

// delay is the longest delay after so many deaths in a row.
func (s Strategy) delay(streak int) time.Duration {
	d := float64(s.Min)
	for i := 1; i < streak && d < float64(s.Max); i++ {
		d *= s.Factor
	}
	return min(time.Duration(d), s.Max)
}

// jitter draws between half of d and d.
func jitter(d time.Duration, random float64) time.Duration {
	return d/2 + time.Duration(float64(d-d/2)*random)
}
