package replayer

import (
	"context"
	"time"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	"github.com/rbdwarden/rbdwarden/image"
)

// rbd_mirroring_replay_delay: an entry is applied when the primary wrote it that long
// ago, and not before, as in calculate_replay_delay of
// src/tools/rbd_mirror/image_replayer/journal/Replayer.cc. Entries wait here, between
// the reader and the machine, which needs no clock for it: one batch at most, and the
// reader's budget behind it, so memory stays bounded however long the delay is. The
// wait ends with the effect's context: no stop, and no promotion, waits for it.

// recheckDelay is how soon a new value of the option counts for entries that wait.
const recheckDelay = 10 * time.Second

// delayedBudget is the reader's budget while entries wait for their time, in bytes.
const delayedBudget = 1 << 20

// holdBack keeps entries back until they are old enough.
type holdBack struct {
	batch core.EntriesRead // read and not delivered; its tag's end comes with its last entry
	pool  image.MirroringOptions
	at    time.Time // when pool was read
}

// waits tells whether entries wait.
func (h *holdBack) waits() bool { return len(h.batch.Entries) > 0 }

// due delivers what is old enough of the batch, and waits until something is.
func (p *performer) due(ctx context.Context) (core.Msg, error) {
	h := &p.held
	for {
		delay, err := p.replayDelay(ctx)
		if err != nil {
			return nil, err
		}
		n := oldEnough(h.batch.Entries, delay, time.Now())
		if n == len(h.batch.Entries) {
			m := h.batch
			h.batch = core.EntriesRead{}
			if delay <= 0 {
				p.tailer.SetBudget(p.readAhead())
			}
			return m, nil
		}
		if n > 0 {
			m := core.EntriesRead{Entries: h.batch.Entries[:n:n], At: h.batch.At}
			h.batch.Entries = h.batch.Entries[n:]
			return m, nil
		}
		// Others can use the memory meanwhile.
		p.tailer.SetBudget(delayedBudget)
		if err := p.tailer.Shed(ctx); err != nil {
			return nil, err
		}
		first, last := h.batch.Entries[0], h.batch.Entries[len(h.batch.Entries)-1]
		p.notify(core.EntriesHeld{Oldest: first.Timestamp, Last: last.Position, Delay: delay})
		timer := time.NewTimer(min(time.Until(first.Timestamp.Add(delay)), recheckDelay))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
	}
}

// oldEnough counts the leading entries that are at least delay old.
func oldEnough(entries []core.Entry, delay time.Duration, now time.Time) int {
	if delay <= 0 {
		return len(entries)
	}
	for i, e := range entries {
		if e.Timestamp.Add(delay).After(now) {
			return i
		}
	}
	return len(entries)
}

// replayDelay is the option's value now: the image's metadata are those that replay has
// set, the pool's are read again every recheckDelay.
func (p *performer) replayDelay(ctx context.Context) (time.Duration, error) {
	if time.Since(p.held.at) > recheckDelay {
		o, err := p.options(ctx, "") // no image: the pool's
		switch {
		case err == nil:
			p.held.pool = o
		case p.held.at.IsZero():
			return 0, err // a delay that is set must not be passed over
		default:
			p.Log.Warn().Err(err).Msg("cannot read the pool's options; those of before count on")
		}
		p.held.at = time.Now()
	}
	return p.held.pool.ApplyMetadata(p.local.image.Header().Metadata).ReplayDelay, nil
}
