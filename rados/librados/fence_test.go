package librados

import (
	"errors"
	"testing"
	"time"
)

func TestFenceIsMadeOnceForAMoment(t *testing.T) {
	now := time.Unix(1000, 0)
	clock := func() time.Time { return now }
	var f fences
	made := 0
	add := func() error { made++; return nil }
	step := func(address string, want int) {
		t.Helper()
		if err := f.of(address).once(clock, 0, add); err != nil || made != want {
			t.Fatalf("err %v, made %d entries, want %d", err, made, want)
		}
	}
	step("a", 1)
	step("a", 1)
	step("b", 2)
	now = now.Add(fenceMemory)
	step("a", 3)

	failed := errors.New("no answer")
	if err := f.of("c").once(clock, 0, func() error { return failed }); !errors.Is(err, failed) {
		t.Fatalf("err %v", err)
	}
	step("c", 4) // what failed is tried again

	if err := f.of("d").once(clock, 2*time.Second, add); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Second)
	step("d", 6) // an entry that expires soon is not relied on
}
