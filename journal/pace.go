package journal

import "time"

// Bounds of a pace.
const (
	// flowGap is the longest time between finds that is a flow. What is written more seldom is not waited for evenly: that would
	// be many looks for a single find.
	flowGap = time.Second
	// flowPoll is the longest time between looks at a flow: so long may a write of it wait to be seen.
	flowPoll = 100 * time.Millisecond
	// gapWeight is how much of the gap between finds is by those before the last one: three quarters.
	gapWeight = 3
)

// pace says when a journal is worth another look. While entries flow, looks come evenly, two for each find that is expected: a
// find a second later is no reason to look at half of it. When the flow has ended, and for what never flowed, each wait
// is twice the one before it, from least to most.
//
// An even pace serves a slow flow better than one that doubles after each find, for as many looks: with a write every half second
// the latter looks five times in between, and the last wait is a quarter of a second long.
type pace struct {
	least, most time.Duration

	gap  time.Duration // between finds, smoothed; 0: not known
	last time.Time     // of the finds
	next time.Duration // the next wait
}

// found tells of entries at a look.
func (p *pace) found(now time.Time) {
	if !p.last.IsZero() {
		since := min(now.Sub(p.last), 4*flowGap) // one silence is not many
		if p.gap == 0 {
			p.gap = since
		}
		p.gap = (gapWeight*p.gap + since) / (gapWeight + 1)
	}
	p.last = now
	p.next = p.least
	if p.flows(now) {
		p.next = min(max(p.gap/2, p.least), flowPoll, p.most)
	}
}

// flows tells whether the next find is to be expected soon: for three gaps.
func (p *pace) flows(now time.Time) bool {
	return p.gap > 0 && p.gap <= flowGap && now.Sub(p.last) <= 3*p.gap
}

// nothing tells of a wait that has ended, with nothing known to have come meanwhile.
func (p *pace) nothing(now time.Time) {
	if !p.flows(now) {
		p.next = min(2*max(p.next, p.least), p.most)
	}
}

// wait is how long to wait now.
func (p *pace) wait() time.Duration { return max(p.next, p.least) }
