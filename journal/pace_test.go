package journal

import (
	"testing"
	"time"
)

// A write every so often: how many looks there are for each, and how long the slowest waits to be seen.
func TestPace(t *testing.T) {
	for _, test := range []struct {
		every time.Duration
		looks float64 // for each write, at most
		worst time.Duration
	}{
		{10 * time.Millisecond, 1, 25 * time.Millisecond}, // two in one look
		{40 * time.Millisecond, 3, 25 * time.Millisecond},
		{100 * time.Millisecond, 3, 55 * time.Millisecond},
		{500 * time.Millisecond, 6, 105 * time.Millisecond},
		{900 * time.Millisecond, 10, 105 * time.Millisecond},
		{3 * time.Second, 9, 2600 * time.Millisecond}, // no flow: the waits double
		{time.Minute, 20, 5 * time.Second},
	} {
		p := pace{least: 20 * time.Millisecond, most: 5 * time.Second}
		begin := time.Unix(1000, 0)
		now, due, looks, writes := begin, begin.Add(test.every), 0, 0
		var worst time.Duration
		for writes < 100 {
			now = now.Add(p.wait())
			looks++
			p.nothing(now)
			if now.Before(due) {
				continue
			}
			if writes > 10 { // the gap is known
				worst = max(worst, now.Sub(due))
			}
			for ; !now.Before(due); due = due.Add(test.every) {
				writes++
			}
			p.found(now)
		}
		if each := float64(looks) / float64(writes); each > test.looks || worst > test.worst {
			t.Errorf("a write every %v: %.1f looks for each, the slowest seen after %v", test.every, each, worst)
		}
	}
}

// When a flow ends the waits grow as they do for what never flowed, and one silence does not make a flow forget itself.
func TestPaceAfterAFlow(t *testing.T) {
	p := pace{least: 20 * time.Millisecond, most: 5 * time.Second}
	now := time.Unix(1000, 0)
	for range 50 {
		now = now.Add(200 * time.Millisecond)
		p.found(now)
	}
	if p.wait() != flowPoll {
		t.Fatalf("waits %v in a flow", p.wait())
	}
	end, looks := now, 0
	for p.wait() < p.most {
		now = now.Add(p.wait())
		p.nothing(now)
		looks++
	}
	if now.Sub(end) > 12*time.Second || looks > 16 {
		t.Errorf("at rest after %v and %d looks", now.Sub(end), looks)
	}
	now = now.Add(time.Hour)
	p.found(now)
	if p.wait() != p.least {
		t.Errorf("waits %v after the first find of a time", p.wait())
	}
	for range 8 {
		now = now.Add(200 * time.Millisecond)
		p.found(now)
	}
	if p.wait() != flowPoll || !p.flows(now) {
		t.Errorf("waits %v in the next flow", p.wait())
	}
}
