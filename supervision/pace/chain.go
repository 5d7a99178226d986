package pace

import (
	"context"
	"sync"
	"time"
)

// Scope is whose limit a bucket is.
type Scope string

// The scopes of limits, narrowest first.
const (
	Image  Scope = "image"
	Pool   Scope = "pool"
	Daemon Scope = "daemon"
)

// Link is one bucket of a chain.
type Link struct {
	Scope  Scope
	Bucket *Bucket
}

// Chain are the limits of one reader, narrowest first. Its methods may be called by any
// goroutine.
type Chain struct {
	links []Link

	mu      sync.Mutex
	waiting []int // at each link
	last    int   // where somebody waited last
	ended   time.Time
}

// NewChain makes a chain. A nil chain limits nothing.
func NewChain(links ...Link) *Chain { return &Chain{links: links, waiting: make([]int, len(links))} }

// Take takes bytes from every bucket, and waits where there are none. The error is the
// context's, and then nothing was taken.
func (c *Chain) Take(ctx context.Context, bytes int64) error {
	if c == nil {
		return nil
	}
	for i, l := range c.links {
		if l.Bucket.TryTake(bytes) {
			continue
		}
		if err := c.wait(ctx, i, bytes); err != nil {
			c.giveBack(i, bytes)
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		c.giveBack(len(c.links), bytes)
		return err
	}
	return nil
}

// giveBack gives back what was taken of the first n buckets.
func (c *Chain) giveBack(n int, bytes int64) {
	for _, taken := range c.links[:n] {
		taken.Bucket.Correct(-bytes)
	}
}

func (c *Chain) wait(ctx context.Context, i int, bytes int64) error {
	c.mu.Lock()
	c.waiting[i]++
	c.last = i
	c.mu.Unlock()
	err := c.links[i].Bucket.Take(ctx, bytes)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting[i]--
	c.last, c.ended = i, time.Now()
	return err
}

// Correct adds to what was taken of every bucket, or with less than 0 gives back.
func (c *Chain) Correct(by int64) {
	if c == nil || by == 0 {
		return
	}
	for _, l := range c.links {
		l.Bucket.Correct(by)
	}
}

// Rate is the smallest limit; 0: there is none.
func (c *Chain) Rate() int64 {
	rate := int64(0)
	if c == nil {
		return 0
	}
	for _, l := range c.links {
		if r := l.Bucket.Rate(); r > 0 && (rate == 0 || r < rate) {
			rate = r
		}
	}
	return rate
}

// Waits tells whether somebody waits now.
func (c *Chain) Waits() bool {
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.waiting {
		if n > 0 {
			return true
		}
	}
	return false
}

// lately is for how long a wait that is over still tells what slows a reader down: one that
// is held back reads, too, between two waits.
const lately = 2 * time.Second

// HeldBack tells which limit slows the reader down, and what that is; "" if none does.
func (c *Chain) HeldBack(now time.Time) (Scope, int64) {
	if c == nil {
		return "", 0
	}
	c.mu.Lock()
	at := -1
	for i, n := range c.waiting {
		if n > 0 {
			at = i
		}
	}
	if at < 0 && !c.ended.IsZero() && now.Sub(c.ended) < lately {
		at = c.last
	}
	c.mu.Unlock()
	if at < 0 {
		return "", 0
	}
	rate := c.links[at].Bucket.Rate()
	if rate == 0 {
		return "", 0 // it was lifted
	}
	return c.links[at].Scope, rate
}

// Portion is how much to read at a time: all that is wanted, if there is no limit, else so
// little that the pace is a smooth one and others have their turns.
func (c *Chain) Portion(wanted int64) int64 {
	rate := c.Rate()
	if rate == 0 {
		return wanted
	}
	return min(wanted, max(rate/20, leastPortion))
}

// leastPortion is worth a turn, in bytes.
const leastPortion = 16 << 10
