package rhythm

import (
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func TestWithin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Duration(rapid.Int64Range(0, 1e18).Draw(t, "now"))
		d := time.Duration(rapid.Int64Range(0, 1e11).Draw(t, "d"))
		w := within(now, d)
		if w > d || w < d/2 {
			t.Fatalf("waits %v within %v", w, d)
		}
		grid := fine
		if d >= coarseFrom {
			grid = coarse
		}
		if d >= fineFrom && (now+w)%grid != 0 {
			t.Fatalf("%v after %v is not on the grid of %v", w, now, grid)
		}
		if d < fineFrom && w != d {
			t.Fatalf("a short wait of %v takes %v", d, w)
		}
	})
}

func TestBeat(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Duration(rapid.Int64Range(0, 1e18).Draw(t, "now"))
		d := time.Duration(rapid.Int64Range(2, 1e11).Draw(t, "d"))
		w := beat(now, d)
		if w < d/2 || w > d+d/2 || (now+w)%d != 0 {
			t.Fatalf("waits %v for a beat every %v", w, d)
		}
		if late := time.Duration(rapid.Int64Range(0, int64(d/2)).Draw(t, "late")); beat(now+w+late, d) != d-late {
			t.Fatalf("the beat after one that was taken %v late comes after %v", late, beat(now+w+late, d))
		}
	})
}

// TestTickersTickTogether: begun at any time, they wake the process at the same moments, and keep their
// own pace.
func TestTickersTickTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const period, count = 5 * time.Second, 20
		Begin()
		defer begun.Store(nil)
		time.Sleep(123456789 * time.Nanosecond)
		moments := make(chan time.Time, 1000)
		for n := range count {
			go func() {
				time.Sleep(time.Duration(n) * 37 * time.Millisecond)
				ticker := NewTicker(period)
				defer ticker.Stop()
				for range 10 {
					moments <- <-ticker.C
					ticker.Next()
				}
			}()
		}
		time.Sleep(time.Minute)
		different := map[time.Time]int{}
		for len(moments) > 0 {
			different[<-moments]++
		}
		if n := len(different); n > 30 {
			t.Errorf("%d tickers wake the process %d times in all for ten ticks each", count, n)
		}
		begun.Store(nil)
		if Within(period) != period || Beat(period) != period {
			t.Error("waits are changed where nobody asked for it")
		}
	})
}
