package replayer

import (
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
)

func TestOldEnough(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	at := func(seconds ...int) (entries []core.Entry) {
		for _, s := range seconds {
			entries = append(entries, core.Entry{Timestamp: now.Add(time.Duration(s) * time.Second)})
		}
		return entries
	}
	for _, c := range []struct {
		name    string
		entries []core.Entry
		delay   time.Duration
		want    int
	}{
		{"no delay", at(-1, 0, 5), 0, 3},
		{"nothing", nil, time.Minute, 0},
		{"as old as it must be", at(-60), time.Minute, 1},
		{"some", at(-61, -60, -59, -70), time.Minute, 2}, // order counts, not age alone
		{"none", at(-59), time.Minute, 0},
		{"the primary's clock is ahead", at(5), time.Second, 0},
	} {
		if got := oldEnough(c.entries, c.delay, now); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}
