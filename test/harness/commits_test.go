package harness

import (
	"testing"
	"time"
)

func TestLongestPause(t *testing.T) {
	at := func(seconds ...int) (times []time.Time) {
		for _, s := range seconds {
			times = append(times, time.Unix(int64(s), 0))
		}
		return times
	}
	for _, c := range []struct {
		name            string
		advances, wrote []time.Time
		want            time.Duration
	}{
		{"gets on", at(11, 12, 13, 14, 15, 16, 17, 18, 19), at(10, 11, 12, 13, 14, 15, 16, 17, 18), time.Second},
		{"stands still at the beginning", at(17, 18, 19), at(10, 11, 12, 13, 14, 15, 16, 17, 18), 7 * time.Second},
		{"stands still at the end", at(11, 12), at(10, 11, 12, 13, 14, 15, 16, 17, 18), 8 * time.Second},
		{"never gets on", nil, at(12, 13), 8 * time.Second},
		{"nothing is written", nil, nil, 0},
		{"the writer stands still", at(11, 18), at(10, 17), time.Second},
		{"outside the span", at(5, 11, 25), at(1, 10, 21), time.Second},
	} {
		if got := longestPause(c.advances, c.wrote, time.Unix(10, 0), time.Unix(20, 0)); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
