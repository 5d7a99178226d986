package memory

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// small makes a budget with a small reserve.
func small(limit, reserve int64) *Budget {
	b := NewBudget(limit)
	b.reserve = reserve
	return b
}

// Whatever clients do, the bound holds and the books are right.
func TestBudgetIsNeverPassed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const reserve = 5
		limit := int64(100)
		b := small(limit, reserve)
		clients := []*Client{b.Client(), b.Client(), b.Client()}
		held := make([]int64, len(clients))
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			i := rapid.IntRange(0, len(clients)-1).Draw(t, "client")
			n := rapid.Int64Range(0, 150).Draw(t, "bytes")
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0:
				limit = n
				b.SetLimit(n)
			case 1, 2:
				n = min(n, held[i])
				clients[i].Give(n)
				held[i] -= n
			default:
				used := b.State().Used
				took := clients[i].TryTake(n)
				if took {
					held[i] += n
				}
				if must := held[i]+n <= reserve; must && !took {
					t.Fatalf("the reserve was refused: %d with %d held", n, held[i])
				}
				if took && used+n > limit && held[i] > reserve {
					t.Fatalf("%d taken with %d in use of %d", n, used, limit)
				}
			}
			var sum int64
			for i, c := range clients {
				if c.Held() != held[i] {
					t.Fatalf("client %d holds %d, want %d", i, c.Held(), held[i])
				}
				sum += held[i]
			}
			if s := b.State(); s.Used != sum {
				t.Fatalf("%+v, want %d used", s, sum)
			}
		}
	})
}

// However much the busy ones want, one that comes later finds as much as each of them has.
func TestBudgetLeavesRoomForWhoComesLater(t *testing.T) {
	for busy := 1; busy <= 20; busy++ {
		b := small(1<<20, 0)
		clients := make([]*Client, busy)
		for i := range clients {
			clients[i] = b.Client()
		}
		for again := true; again; {
			again = false
			for _, c := range clients {
				again = c.TryTake(64) || again
			}
		}
		share := int64(1<<20) / int64(busy+1)
		for i, c := range clients {
			if c.Held() < share-128 || c.Held() > share+128 {
				t.Errorf("%d busy: client %d holds %d, want about %d", busy, i, c.Held(), share)
			}
		}
		if !b.Client().TryTake(share/2 - 128) {
			t.Errorf("%d busy: nothing is left", busy)
		}
	}
}

// One that has filled its share long ago does not starve others that are busy, too.
func TestBudgetIsShared(t *testing.T) {
	b := small(1000, 0)
	greedy, modest := b.Client(), b.Client()
	for greedy.TryTake(10) {
	}
	var got int64
	for range 1000 { // both as fast as they can
		if modest.TryTake(10) {
			got += 10
		}
		greedy.Give(10)
		greedy.TryTake(10)
	}
	if g, m := greedy.Held(), modest.Held(); g > m+20 {
		t.Errorf("the one that came first holds %d, the other %d", g, m)
	}
}

// One enormous event at a time, of a client that holds nothing else.
func TestBudgetOfEnormousEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := small(10, 1)
		first, second, little := b.Client(), b.Client(), b.Client()
		if first.TryTake(1000) {
			t.Fatal("overdrawn without asking")
		}
		if err := first.Take(t.Context(), 1000); err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- second.Take(t.Context(), 500) }()
		synctest.Wait()
		if s := b.State(); s.Used != 1000 || s.Waiting != 1 {
			t.Errorf("%+v while one has overdrawn", s)
		}
		if !little.TryTake(1) || little.TryTake(1) {
			t.Error("beside an overdraft others have their reserve, and no more")
		}
		first.Give(1000)
		if err := <-done; err != nil || b.State().Used != 501 {
			t.Errorf("%+v, %v after the first", b.State(), err)
		}
		second.Give(500)
		if b.overdrawn != nil {
			t.Error("still overdrawn")
		}
	})
}

func TestBudgetWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := small(10, 0)
		full, waits := b.Client(), b.Client()
		if err := full.Take(t.Context(), 20); err != nil { // overdrawn: nobody else may
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := waits.Take(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if s := b.State(); s.Waiting != 0 || s.Used != 20 {
			t.Errorf("%+v", s)
		}
		got := make(chan error)
		go func() { got <- waits.Take(t.Context(), 1) }()
		synctest.Wait()
		b.SetLimit(100)
		if err := <-got; err != nil {
			t.Error(err)
		}
		b.SetLimit(5)
		full.Give(14)
		if full.TryTake(1) {
			t.Error("given above a limit that has shrunk")
		}
	})
}

// Many at once that hold something while they wait for more, and some that never give
// back: all others get through.
func TestBudgetUnderLoad(t *testing.T) {
	const limit = 1000
	b := small(limit, 10)
	for range 5 {
		for c := b.Client(); c.TryTake(100); {
		}
	}
	kept := b.State().Used
	var wait sync.WaitGroup
	for seed := range uint64(20) {
		wait.Go(func() {
			random := rand.New(rand.NewPCG(seed, 0))
			c := b.Client()
			for range 200 {
				n := random.Int64N(limit / 3)
				if !c.TryTake(n) {
					c.Give(c.Held()) // as the tailer does before it waits
					if err := c.Take(t.Context(), n); err != nil {
						t.Error(err)
						return
					}
				}
				if random.IntN(3) > 0 {
					c.Give(n)
				}
			}
			c.Give(c.Held())
		})
	}
	wait.Wait()
	if s := b.State(); s.Used != kept || s.Peak > limit+limit/3+20*10 {
		t.Errorf("%+v, %d kept", s, kept)
	}
}
