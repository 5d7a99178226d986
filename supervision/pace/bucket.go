package pace

import (
	"context"
	"sync"
	"time"
)

// Burst is for how long a bucket saves what nobody takes: short, so that a limit is a
// smooth one.
const Burst = 100 * time.Millisecond

// Bucket is a limit in bytes a second. Its methods may be called by any goroutine.
type Bucket struct {
	turn chan struct{} // held by whoever is next; those behind wait for it in the order of their arrival

	mu      sync.Mutex
	rate    float64 // bytes a second; 0: no limit
	debt    float64 // bytes that were taken and are not paid for; negative: saved
	at      time.Time
	changed chan struct{} // closed when a wait may be shorter than it was
	waiting int
	taken   uint64
	waited  uint64
}

// NewBucket makes a bucket of so many bytes a second; 0: no limit.
func NewBucket(rate int64) *Bucket {
	b := &Bucket{turn: make(chan struct{}, 1), changed: make(chan struct{}), at: time.Now()}
	b.SetRate(rate)
	return b
}

// SetRate changes the limit, for those that wait, too. Without one nothing is owed.
func (b *Bucket) SetRate(rate int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pay(time.Now())
	b.rate = float64(max(rate, 0))
	if b.rate == 0 {
		b.debt = 0
	}
	b.wake()
}

// Rate is the limit; 0: none.
func (b *Bucket) Rate() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return int64(b.rate)
}

// Use is what was made of a bucket since it is there.
type Use struct {
	Bytes   uint64 `json:"bytes"`   // that were taken
	Waited  uint64 `json:"waited"`  // how often somebody had to wait
	Waiting int    `json:"waiting"` // how many do now
}

// Use tells how the bucket is used.
func (b *Bucket) Use() Use {
	b.mu.Lock()
	defer b.mu.Unlock()
	return Use{Bytes: b.taken, Waited: b.waited, Waiting: b.waiting}
}

// TryTake takes bytes if nothing is owed and nobody waits.
func (b *Bucket) TryTake(bytes int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.waiting == 0 && b.take(bytes) == 0
}

// Take waits until nothing is owed, and takes bytes then. The error is the context's, and
// then nothing was taken.
func (b *Bucket) Take(ctx context.Context, bytes int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if b.TryTake(bytes) {
		return nil
	}
	b.mu.Lock()
	b.waiting++
	b.waited++
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		b.waiting--
		b.mu.Unlock()
	}()
	select {
	case b.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-b.turn }()
	for {
		b.mu.Lock()
		due, changed := b.take(bytes), b.changed
		b.mu.Unlock()
		if due == 0 {
			return nil
		}
		timer := time.NewTimer(due)
		select {
		case <-timer.C:
		case <-changed:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// Correct adds to what was taken, or with less than 0 gives back: what was taken was a guess.
func (b *Bucket) Correct(by int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.taken += uint64(by) // two's complement: it subtracts as well
	if b.rate == 0 {
		return
	}
	b.pay(time.Now())
	b.debt += float64(by)
	b.bound()
	if by < 0 {
		b.wake()
	}
}

// take takes bytes, or tells how long nothing can be had.
func (b *Bucket) take(bytes int64) (due time.Duration) {
	if b.rate > 0 {
		b.pay(time.Now())
		if b.debt > 0 {
			// Rounded up: a wait that is too short by a little is a wait again.
			return min(time.Duration(b.debt/b.rate*float64(time.Second))+1, time.Hour)
		}
		b.debt += float64(bytes)
	}
	b.taken += uint64(bytes)
	return 0
}

// pay takes off what the time since has paid.
func (b *Bucket) pay(now time.Time) {
	b.debt -= b.rate * now.Sub(b.at).Seconds()
	b.at = now
	b.bound()
}

func (b *Bucket) bound() { b.debt = max(b.debt, -b.rate*Burst.Seconds()) }

func (b *Bucket) wake() {
	close(b.changed)
	b.changed = make(chan struct{})
}
