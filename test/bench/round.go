package bench

import (
	"context"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// Round is one side's turn in a round of a case.
type Round struct {
	testing.TB
	// Ctx ends when the bench is interrupted.
	Ctx   context.Context
	Pair  *lab.Pair
	Case  string
	Side  Side
	Round int
	Scale Scale
	// Values are what the turn gives.
	Values map[string]float64
	// Images are as in Sample.
	Images []float64

	daemons int // that were started
}

// Bench runs cases and keeps what they give.
type Bench struct {
	Ctx    context.Context
	Scale  Scale
	Rounds int
	// Keep takes the samples of a case after each of its turns.
	Keep func(name string, samples []Sample) error
}

// Run does all rounds of a case on a pair of clusters of its own. A turn that fails gives no sample, and the others go on.
func (b *Bench) Run(t *testing.T, c Case) []Sample {
	pair := harness.OwnPair(t)
	var samples []Sample
	for round := range b.Rounds {
		for _, side := range order(c.Sides, round) {
			if b.Ctx.Err() != nil {
				t.Error("interrupted")
				return samples
			}
			r := &Round{Ctx: b.Ctx, Pair: pair, Case: c.Name, Side: side, Round: round, Scale: b.Scale, Values: map[string]float64{}}
			began := time.Now()
			ok := t.Run(string(side), func(t *testing.T) {
				r.TB = t
				c.Turn(r)
			})
			if !ok {
				continue
			}
			t.Logf("round %d, %s: %v (took %v)", round, side, r.Values, time.Since(began).Round(time.Second))
			samples = append(samples, Sample{Case: c.Name, Side: side, Round: round, Values: r.Values, Images: r.Images})
			if err := b.Keep(c.Name, samples); err != nil {
				t.Fatal(err)
			}
		}
	}
	return samples
}

// must fails the turn upon an error.
func (r *Round) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// patience is how long a turn waits for a daemon to do what it must do in the end.
const patience = 4 * time.Minute

// await calls a condition again and again, with a pause between, until it answers nothing. It fails the turn when the bench
// is interrupted, or with the last answer when patience is over.
func (r *Round) await(pause time.Duration, condition func() string) {
	r.Helper()
	deadline := time.Now().Add(patience)
	for {
		why := condition()
		if why == "" {
			return
		}
		if time.Now().After(deadline) {
			r.Fatalf("not within %v: %s", patience, why)
		}
		r.sleep(pause)
	}
}

// sleep lets time pass. It fails the turn when the bench is interrupted.
func (r *Round) sleep(pause time.Duration) {
	r.Helper()
	select {
	case <-r.Ctx.Done():
		r.Fatal("interrupted")
	case <-time.After(pause):
	}
}
