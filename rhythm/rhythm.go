// Package rhythm lets waits of one process end together that need not end at an exact moment.
//
// A process with a thousand images at rest has thousands of timers, each of which wakes it for
// very little work: the waking then costs ten times as much as the work. Waits that are measured with
// Within end on a grid that all of the process share, so that it wakes a few times a second,
// however many there are.
//
// It does so from Begin on. Without that every wait is as long as was asked for: in simulations, where
// one process plays many and what happens at one moment has no order.
package rhythm

import (
	"sync/atomic"
	"time"
)

// Grids, and the shortest waits that end on them.
const (
	fine, fineFrom     = 500 * time.Millisecond, time.Second
	coarse, coarseFrom = time.Second, 2 * time.Second
)

// begun is where the grids begin; nil before Begin.
var begun atomic.Pointer[time.Time]

// Begin has this process's waits end together from now on. Processes that begin at different times do
// not keep time with each other, which would have all of them ask a cluster at the same moments.
func Begin() {
	now := time.Now()
	begun.Store(&now)
}

// Within is a wait that takes no longer than d and no less than half of it, and ends together with
// others if d is a second or more.
func Within(d time.Duration) time.Duration {
	if b := begun.Load(); b != nil {
		return within(time.Since(*b), d)
	}
	return d
}

func within(now, d time.Duration) time.Duration {
	grid := coarse
	switch {
	case d < fineFrom:
		return d
	case d < coarseFrom:
		grid = fine
	}
	return d - (now+d)%grid
}

// Beat is the wait for the next of a series of beats, d apart, which meet the beats of others: at
// least half of d and at most half more than it for the first, and d from then on.
func Beat(d time.Duration) time.Duration {
	if b := begun.Load(); b != nil {
		return beat(time.Since(*b), d)
	}
	return d
}

func beat(now, d time.Duration) time.Duration {
	over := now % d
	if over > d/2 {
		return 2*d - over
	}
	return d - over
}

// Ticker ticks about every d, together with others. Unlike a time.Ticker's, the next
// wait begins when its owner calls Next.
type Ticker struct {
	d     time.Duration
	timer *time.Timer
	C     <-chan time.Time
}

// NewTicker begins with the first wait.
func NewTicker(d time.Duration) *Ticker {
	t := &Ticker{d: d, timer: time.NewTimer(Within(d))}
	t.C = t.timer.C
	return t
}

// Next begins the wait for the next tick, when one was taken.
func (t *Ticker) Next() { t.timer.Reset(Within(t.d)) }

// Stop ends it.
func (t *Ticker) Stop() { t.timer.Stop() }
