package pace

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// Whatever is taken, corrected and waited for: in no span of time more is granted than the
// rate and the burst allow, and one grant.
func TestNoMoreThanTheLimit(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		rate := rapid.Int64Range(1, 1<<30).Draw(r, "rate")
		takers := rapid.IntRange(1, 4).Draw(r, "takers")
		sizes := make([][]int64, takers)
		pauses := make([][]int64, takers)
		for i := range sizes {
			sizes[i] = rapid.SliceOfN(rapid.Int64Range(0, rate), 1, 8).Draw(r, "sizes")
			pauses[i] = rapid.SliceOfN(rapid.Int64Range(0, int64(time.Second)), len(sizes[i]), len(sizes[i])).Draw(r, "pauses")
		}
		type grant struct {
			at    time.Time
			bytes int64
		}
		var mu sync.Mutex
		var granted []grant
		synctest.Test(t, func(t *testing.T) {
			b := NewBucket(rate)
			var all sync.WaitGroup
			for i := range takers {
				all.Go(func() {
					for n, size := range sizes[i] {
						time.Sleep(time.Duration(pauses[i][n]))
						if err := b.Take(t.Context(), size); err != nil {
							t.Error(err)
						}
						mu.Lock()
						granted = append(granted, grant{time.Now(), size})
						mu.Unlock()
					}
				})
			}
			all.Wait()
		})
		for i := range granted {
			var sum int64
			for _, g := range granted[i:] {
				passed := g.at.Sub(granted[i].at) + Burst
				// What was taken before g; a rounding of a nanosecond at each end.
				if most := float64(rate)*(passed.Seconds()+2e-9) + 1; float64(sum) > most {
					r.Fatalf("%d bytes within %v of %d a second, %v is the most", sum, passed, rate, most)
				}
				sum += g.bytes
			}
		}
	})
}

// What is larger than all that a bucket can save passes at once, and is paid for by what
// comes next, to the nanosecond.
func TestDebt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBucket(1000)
		began := time.Now()
		for _, c := range []struct {
			bytes int64
			at    time.Duration // when it is granted
		}{{10_000, 0}, {500, 10 * time.Second}, {0, 10*time.Second + 500*time.Millisecond}} {
			if err := b.Take(t.Context(), c.bytes); err != nil {
				t.Fatal(err)
			}
			if at := time.Since(began); at < c.at || at > c.at+time.Microsecond {
				t.Errorf("%d bytes were granted after %v, want %v", c.bytes, at, c.at)
			}
		}
	})
}

// Who comes first is served first, and a try does not push in.
func TestFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBucket(1000)
		mustTake(t, b, 1000)
		var order []int
		for i := range 20 {
			go func() {
				mustTake(t, b, 100)
				order = append(order, i) // one at a time: their turns are apart
			}()
			synctest.Wait()
		}
		time.Sleep(time.Second) // all is paid, and the first of them is about to take it
		if b.TryTake(1) {
			t.Error("a try got what others wait for")
		}
		time.Sleep(time.Minute)
		for i, n := range order {
			if i != n {
				t.Fatalf("served in the order %v", order)
			}
		}
		if len(order) != 20 {
			t.Errorf("%d of 20 were served", len(order))
		}
	})
}

// A wait ends with its context, at once, and costs nothing; whoever is behind goes on.
func TestCancelledWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBucket(1000)
		mustTake(t, b, 100_000)
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		errs := make(chan error, 3)
		for range 3 {
			go func() { errs <- b.Take(ctx, 50) }()
		}
		synctest.Wait()
		if u := b.Use(); u.Waiting != 3 || u.Waited != 3 {
			t.Errorf("%+v", u)
		}
		cancel()
		for range 3 {
			if err := <-errs; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		if d := time.Since(began); d != 0 {
			t.Errorf("it took %v", d)
		}
		if u := b.Use(); u.Bytes != 100_000 || u.Waiting != 0 {
			t.Errorf("%+v", u)
		}
		mustTake(t, b, 1)
		if d := time.Since(began).Round(time.Millisecond); d != 100*time.Second {
			t.Errorf("the next was served after %v", d)
		}
	})
}

// A new limit counts for those who wait already; without one nobody waits.
func TestChangedLimit(t *testing.T) {
	for _, c := range []struct {
		rate int64
		want time.Duration
	}{{10_000, time.Second + 9*time.Second/10}, {0, time.Second}, {500, time.Second + 18*time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			b := NewBucket(1000)
			mustTake(t, b, 10_000)
			began := time.Now()
			go func() {
				time.Sleep(time.Second)
				b.SetRate(c.rate)
			}()
			mustTake(t, b, 1)
			if d := time.Since(began).Round(time.Millisecond); d != c.want {
				t.Errorf("changed to %d: served after %v, want %v", c.rate, d, c.want)
			}
		})
	}
}

// What was taken for nothing is given back, also to one that waits for it.
func TestCorrect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBucket(1000)
		mustTake(t, b, 10_000)
		began := time.Now()
		go b.Correct(-9000)
		mustTake(t, b, 0)
		if d := time.Since(began).Round(time.Millisecond); d != time.Second {
			t.Errorf("served after %v", d)
		}
		b.Correct(-1 << 40) // saves no more than the burst
		mustTake(t, b, 200)
		mustTake(t, b, 0)
		if d := time.Since(began).Round(time.Millisecond); d != time.Second+100*time.Millisecond {
			t.Errorf("served after %v", d)
		}
	})
}

// The smallest limit wins, and it is the one that is named.
func TestChain(t *testing.T) {
	for _, c := range []struct {
		image, pool, daemon int64
		rate                int64
		scope               Scope
	}{
		{0, 0, 0, 0, ""},
		{1000, 0, 0, 1000, Image},
		{1000, 500, 2000, 500, Pool},
		{0, 500, 100, 100, Daemon},
	} {
		synctest.Test(t, func(t *testing.T) {
			chain := NewChain(Link{Image, NewBucket(c.image)}, Link{Pool, NewBucket(c.pool)}, Link{Daemon, NewBucket(c.daemon)})
			began := time.Now()
			for range 100 {
				if err := chain.Take(t.Context(), 10); err != nil {
					t.Fatal(err)
				}
			}
			want := time.Duration(0)
			if c.rate > 0 {
				want = time.Duration(990*int64(time.Second)/c.rate) - Burst
			}
			if d := time.Since(began); d < want-2*Burst || d > want+2*Burst {
				t.Errorf("%+v: 1000 bytes took %v, want about %v", c, d, want)
			}
			if scope, rate := chain.HeldBack(time.Now()); chain.Rate() != c.rate || scope != c.scope || rate != c.rate {
				t.Errorf("%+v: rate %d, held back by %q, %d", c, chain.Rate(), scope, rate)
			}
			time.Sleep(time.Minute)
			if scope, _ := chain.HeldBack(time.Now()); scope != "" {
				t.Errorf("%+v: still held back by %q", c, scope)
			}
		})
	}
}

// A chain whose wait was given up has taken nothing of the buckets before.
func TestCancelledChain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		image, daemon := NewBucket(1000), NewBucket(1)
		mustTake(t, daemon, 100)
		chain := NewChain(Link{Image, image}, Link{Daemon, daemon})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := chain.Take(ctx, 1<<30); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if image.Use().Bytes != 0 || daemon.Use().Bytes != 100 || chain.Waits() || !image.TryTake(1) {
			t.Errorf("%+v, %+v, waits %v", image.Use(), daemon.Use(), chain.Waits())
		}
	})
}

// mustTake takes what a test takes for granted.
func mustTake(t *testing.T, b *Bucket, bytes int64) {
	if err := b.Take(t.Context(), bytes); err != nil {
		t.Error(err)
	}
}
