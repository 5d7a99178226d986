package memory

import (
	"context"
	"slices"
	"sync"
)

// Budget shares a bound on bytes among clients: a worker's images. A client takes
// credit before it reads, and gives it back when what it read is held no more, so
// pressure slows reading instead of growing memory.
//
// A client may hold as much as is free at that moment (Choudhury and Hahne, "Dynamic
// queue length thresholds", 1998). One alone gets half of the bound, n busy ones get
// 1/(n+1) each, and as much is always left for one that comes later: nobody has to be
// asked to give up what it has.
//
// Besides, each client has a Reserve that it gets in any case. It is what keeps an image
// going, however full the budget is and however long others keep what they have. One
// client at a time, which must hold nothing else, may overdraw for something that is
// larger: one enormous event, alone.
//
// Invariants: all clients together hold no more than the limit, and their reserves, and
// what one client has overdrawn, and what urgent ones hold. And whoever gives back what it holds without waiting
// for the budget gets what it takes in the end, whatever others do.
type Budget struct {
	mu        sync.Mutex
	limit     int64
	reserve   int64 // of each client
	used      int64
	peak      int64
	overdrawn *Client
	waiting   []*waiter // in the order of their arrival
}

// Reserve is what each client gets in any case, in bytes: a read of the smallest size at
// each splay offset of a journal of the usual width.
const Reserve = 256 << 10

type waiter struct {
	client *Client
	bytes  int64
	given  chan struct{}
}

// Client is one user of a Budget. It needs no closing: it is nothing but what it holds.
type Client struct {
	budget *Budget
	used   int64
	urgent bool
}

// NewBudget makes a budget of so many bytes.
func NewBudget(limit int64) *Budget { return &Budget{limit: max(limit, 0), reserve: Reserve} }

// SetReserve changes what each client gets in any case, in bytes; before any is used.
func (b *Budget) SetReserve(bytes int64) { b.reserve = bytes }

// Client adds a client.
func (b *Budget) Client() *Client { return &Client{budget: b} }

// UrgentClient adds one that never waits. It is for what lets another client of the same
// image give back what it holds: were it to wait for that one's overdraft, both would wait
// for ever. What it takes counts; it must keep nothing.
func (b *Budget) UrgentClient() *Client { return &Client{budget: b, urgent: true} }

// SetLimit changes the bound. What is held above a smaller one stays until it is given
// back; nothing but reserves is given meanwhile.
func (b *Budget) SetLimit(limit int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.limit = max(limit, 0)
	b.serve()
}

// State is a budget's use, in bytes, and how many wait for it.
type State struct {
	Used, Peak, Limit int64
	Waiting           int
}

// State tells how the budget is used.
func (b *Budget) State() State {
	b.mu.Lock()
	defer b.mu.Unlock()
	return State{Used: b.used, Peak: b.peak, Limit: b.limit, Waiting: len(b.waiting)}
}

// TryTake takes credit if it can be had at once.
func (c *Client) TryTake(bytes int64) bool {
	c.budget.mu.Lock()
	defer c.budget.mu.Unlock()
	return c.budget.take(c, bytes)
}

// Take waits for credit. The error is the context's.
func (c *Client) Take(ctx context.Context, bytes int64) error {
	b := c.budget
	b.mu.Lock()
	if b.take(c, bytes) || b.overdraw(c, bytes) {
		b.mu.Unlock()
		return nil
	}
	w := &waiter{client: c, bytes: bytes, given: make(chan struct{})}
	b.waiting = append(b.waiting, w)
	b.mu.Unlock()
	select {
	case <-w.given:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.Index(b.waiting, w); i >= 0 {
		b.waiting = slices.Delete(b.waiting, i, i+1)
	} else {
		b.give(c, bytes) // it was given at the last moment
	}
	return ctx.Err()
}

// Give gives credit back. It panics if the client does not hold so much.
func (c *Client) Give(bytes int64) {
	c.budget.mu.Lock()
	defer c.budget.mu.Unlock()
	c.budget.give(c, bytes)
}

// Held is what the client holds.
func (c *Client) Held() int64 {
	c.budget.mu.Lock()
	defer c.budget.mu.Unlock()
	return c.used
}

// Wanted tells whether somebody waits for credit that others hold.
func (c *Client) Wanted() bool {
	c.budget.mu.Lock()
	defer c.budget.mu.Unlock()
	return len(c.budget.waiting) > 0
}

// take gives a client credit from its reserve, or from what is free.
func (b *Budget) take(c *Client, bytes int64) bool {
	if c.used+bytes > b.reserve && c.used+bytes > b.limit-b.used {
		return false
	}
	b.book(c, bytes)
	return true
}

// overdraw lets one client that holds nothing have what can be had in no other way.
func (b *Budget) overdraw(c *Client, bytes int64) bool {
	if c.urgent {
		b.book(c, bytes)
		return true
	}
	if c.used > 0 || b.overdrawn != nil {
		return false
	}
	b.overdrawn = c
	b.book(c, bytes)
	return true
}

func (b *Budget) book(c *Client, bytes int64) {
	c.used += bytes
	b.used += bytes
	b.peak = max(b.peak, b.used)
}

func (b *Budget) give(c *Client, bytes int64) {
	if bytes > c.used {
		panic("memory: a client gives back more than it holds")
	}
	c.used -= bytes
	b.used -= bytes
	if o := b.overdrawn; o != nil && (o.used <= b.reserve || b.used <= b.limit) {
		b.overdrawn = nil
	}
	b.serve()
}

// serve gives those who wait what they can have now, in the order of their arrival. One
// that cannot have it does not hold up those behind it: it gets it when it holds nothing
// itself and its turn to overdraw has come.
func (b *Budget) serve() {
	b.waiting = slices.DeleteFunc(b.waiting, func(w *waiter) bool {
		if !b.take(w.client, w.bytes) && !b.overdraw(w.client, w.bytes) {
			return false
		}
		close(w.given)
		return true
	})
}
