package replayer

import (
	"math"
	"time"
)

// rates are replayed entries and bytes a second, averaged with exponentially falling
// weight so that about the last half minute counts. In the first half minute the
// average is over the time that has passed, so that it is right from the start.
type rates struct {
	at             time.Time
	entries, bytes float64 // weighted sums a second
	weight         float64 // of what they are made from, up to 1
	newE, newB     float64 // since at
}

const (
	rateWindow = 30 * time.Second
	rateTick   = time.Second
)

func (r *rates) add(now time.Time, entries int, bytes int64) {
	r.roll(now)
	r.newE += float64(entries)
	r.newB += float64(bytes)
}

// roll folds what came since the last tick into the averages.
func (r *rates) roll(now time.Time) {
	if r.at.IsZero() {
		r.at = now
		return
	}
	passed := now.Sub(r.at)
	if passed < rateTick {
		return
	}
	keep := math.Exp(-passed.Seconds() / rateWindow.Seconds())
	r.entries = r.entries*keep + r.newE/passed.Seconds()*(1-keep)
	r.bytes = r.bytes*keep + r.newB/passed.Seconds()*(1-keep)
	r.weight = r.weight*keep + (1 - keep)
	r.newE, r.newB, r.at = 0, 0, now
}

// perSecond gives the averages, rounded to two places as rbd-mirror shows them.
func (r *rates) perSecond(now time.Time) (entries, bytes float64) {
	r.roll(now)
	if r.weight == 0 {
		return 0, 0
	}
	round := func(v float64) float64 { return math.Round(v/r.weight*100) / 100 }
	return round(r.entries), round(r.bytes)
}
