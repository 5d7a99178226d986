package replayer

import (
	"context"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/supervision/pace"
)

// takenCredit is a credit of which others hold all.
type takenCredit struct{}

func (takenCredit) TryTake(int64) bool { return false }
func (takenCredit) Give(int64)         {}
func (takenCredit) Held() int64        { return 0 }
func (takenCredit) Wanted() bool       { return false }
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

// TestWaitingForALimitIsNoHang: an effect that waits for its turn has a pulse for as long as it
// waits, and reads have an excuse.
func TestWaitingForALimitIsNoHang(t *testing.T) {
	b := pace.NewBucket(1)
	if !b.TryTake(1 << 30) {
		t.Fatal("refused")
	}
	chain := pace.NewChain(pace.Link{Scope: pace.Image, Bucket: b})
	left := 0
	p, ok := NewPerformer(Resources{Pace: func() Paced { return Paced{Replay: chain, Sync: chain, Leave: func() { left++ }} }}, nil).(*performer)
	if !ok {
		t.Fatal("not a performer")
	}
	limits := p.pacedSync()
	var effect pulse
	ctx, cancel := context.WithCancel(withPulse(t.Context(), &effect))
	over := make(chan error, 1)
	go func() { over <- limits.Pace.Take(ctx, 1) }()
	for deadline := time.Now().Add(20 * time.Second); effect.beats.Load() < 3 || p.Excuse() == ""; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d beats, excuse %q", effect.beats.Load(), p.Excuse())
		}
	}
	if held := p.HeldBack(time.Now()); held != "the image's replay limit of 1 bytes a second" {
		t.Errorf("held back by %q", held)
	}
	cancel()
	if err := <-over; err == nil || p.Excuse() != "" {
		t.Errorf("%v, excuse %q", err, p.Excuse())
	}
	if err := p.Close(t.Context()); err != nil || left != 1 {
		t.Errorf("%v, left %d times", err, left)
	}
}
