package replayer

import (
	"context"
	"sync/atomic"
	"time"
)

// patientCredit is a Credit whose waits show: who waits for bytes that other images hold makes
// no progress, but does not hang. The effect that waits has a pulse meanwhile, and reads that
// run beside the effects have an excuse.
//
// It hides no hang: an effect that holds what others wait for has no pulse of theirs.
type patientCredit struct {
	Credit
	waiting *atomic.Int32 // of all of the image
}

// patiently makes waits for a credit show; nil stays nil.
func (p *performer) patiently(c Credit) Credit {
	if c == nil {
		return nil
	}
	return patientCredit{c, &p.waiting}
}

// waitBeat is how often a wait counts as a beat. A watchdog's patience is longer.
const waitBeat = 20 * time.Millisecond

// Take waits for bytes.
func (c patientCredit) Take(ctx context.Context, bytes int64) error {
	if c.TryTake(bytes) {
		return nil
	}
	c.waiting.Add(1)
	defer c.waiting.Add(-1)
	return beating(ctx, nil, func() error { return c.Credit.Take(ctx, bytes) })
}

// beating waits for something here, and gives the effect that waits a pulse meanwhile. It calls beside now and then, not any
// more when it returns; beside may be nil.
func beating(ctx context.Context, beside func(context.Context), wait func() error) error {
	given, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		tick := time.NewTicker(waitBeat)
		defer tick.Stop()
		for {
			select {
			case <-given:
				return
			case <-tick.C:
				beat(ctx, nil)
				if beside != nil {
					beside(ctx)
				}
			}
		}
	}()
	defer func() {
		close(given)
		<-over
	}()
	return wait()
}

// Excuse says what the image's reads wait for here; "" if they do not wait.
func (p *performer) Excuse() string {
	if p.waiting.Load() > 0 {
		return "for memory that other images hold"
	}
	if p.waitsItsTurn() {
		return "for its limit"
	}
	return ""
}
