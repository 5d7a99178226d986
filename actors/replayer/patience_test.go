package replayer

import (
	"context"
	"testing"
	"time"
)

// takenCredit is a credit of which others hold all.
type takenCredit struct{}

func (takenCredit) TryTake(int64) bool { return false }
func (takenCredit) Give(int64)         {}
func (takenCredit) Held() int64        { return 0 }
func (takenCredit) Take(ctx context.Context, _ int64) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestWaitingForMemoryIsNoHang: an effect that waits for bytes which another image holds has
// a pulse, and the image's reads have an excuse, for as long as it waits and no longer.
func TestWaitingForMemoryIsNoHang(t *testing.T) {
	r := Resources{NewCredit: func() Credit { return takenCredit{} }, NewApplyCredit: func() Credit { return takenCredit{} }}
	p, ok := NewPerformer(r, nil).(*performer)
	if !ok {
		t.Fatal("not a performer")
	}
	for name, take := range map[string]func(context.Context, int64) error{"read": p.credit.Take, "apply": p.applyLimits().Credit.Take} {
		var effect pulse
		ctx, cancel := context.WithCancel(withPulse(t.Context(), &effect))
		over := make(chan error, 1)
		go func() { over <- take(ctx, 64<<10) }()
		for deadline := time.Now().Add(20 * time.Second); effect.beats.Load() < 3 || p.Excuse() == ""; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d beats, excuse %q", name, effect.beats.Load(), p.Excuse())
			}
		}
		cancel()
		if err := <-over; err == nil || p.Excuse() != "" {
			t.Errorf("%s: %v, excuse %q", name, err, p.Excuse())
		}
	}
}
