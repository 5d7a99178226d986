package lock

import (
	"testing"
	"time"
)

func TestDeathWatch(t *testing.T) {
	var d DeathWatch
	a, b := LockerID{Cookie: "auto 1"}, LockerID{Cookie: "auto 2"}
	at := func(s int) time.Time { return time.Unix(1000+int64(s), 0) }
	for i, step := range []struct {
		owner LockerID
		dead  bool
		at    int
		want  time.Duration
	}{
		{a, true, 0, 0}, {a, true, 3, 3 * time.Second}, {a, false, 4, 0}, {a, true, 5, 0},
		{a, true, 6, time.Second}, {b, true, 7, 0}, {b, true, 9, 2 * time.Second}, {a, true, 10, 0},
	} {
		if got := d.Seen(step.owner, step.dead, at(step.at)); got != step.want {
			t.Errorf("step %d: dead for %v, want %v", i, got, step.want)
		}
	}
}
