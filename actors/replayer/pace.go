package replayer

import (
	"context"
	"fmt"
	"time"

	"github.com/rbdwarden/rbdwarden/config"
	"github.com/rbdwarden/rbdwarden/image"
	imagesync "github.com/rbdwarden/rbdwarden/image/sync"
	"github.com/rbdwarden/rbdwarden/journal"
	"github.com/rbdwarden/rbdwarden/supervision/pace"
)

// Limits on bytes a second hold an image back before it reads, never between reading and
// commit: what was read is applied and committed as ever, so nobody who wants the image (a
// stop, a request for its lock, a promotion) finds it in the middle of a wait.
//
//	ReadEntries:  wait for a turn ─▶ Tailer.Next ─▶ core ─▶ apply ─▶ commit
//	Sync:         wait for a turn ─▶ credit ─▶ read an object ─▶ write it
//
// An image that waits holds what its reader has read ahead: little, and it gives that back
// when others wait for memory (invariant 9).

// Paced are the limits of an image that is read.
type Paced struct {
	Replay, Sync *pace.Chain
	// Own hears what the image's metadata say of limits; it may be called again and again.
	Own func(config.ImageLimits)
	// Leave says that the image is not read any more.
	Leave func()
}

// paced are the image's limits, from the first time on that it is read until Close.
func (p *performer) paced() *Paced {
	if now := p.pacing.Load(); now != nil || p.Pace == nil {
		return now
	}
	now := p.Pace()
	p.pacing.Store(&now)
	return &now
}

// unpaced gives the limits up.
func (p *performer) unpaced() {
	if was := p.pacing.Swap(nil); was != nil {
		was.Leave()
	}
}

// heed takes the image's own limits from its metadata.
func (l *Paced) heed(h *image.Header) {
	if h != nil {
		l.Own(config.LimitsOf(h.Metadata))
	}
}

// next is Tailer.Next in its turn, for as much as the limits let pass at a time.
func (p *performer) next(ctx context.Context, maxBytes int64) (journal.Batch, error) {
	l := p.paced()
	if l == nil {
		return p.tailer.Next(ctx, maxBytes)
	}
	l.heed(p.local.image.Header())
	portion := l.Replay.Portion(maxBytes)
	expected := min(p.expected, portion)
	if !p.held.waits() {
		p.tailer.SetBudget(p.readAhead())
	}
	if err := p.turn(ctx, l.Replay, expected, p.shedIfWanted); err != nil {
		return journal.Batch{}, err
	}
	b, err := p.tailer.Next(ctx, portion)
	p.expected = 0
	for _, e := range b.Entries {
		p.expected += int64(len(e.Payload))
	}
	l.Replay.Correct(p.expected - expected)
	return b, err
}

// readAhead is the reader's budget: with a limit as much as that lets pass in half a second.
// Zero is the reader's default.
func (p *performer) readAhead() int64 {
	l := p.pacing.Load()
	if l == nil {
		return p.Tail.Budget
	}
	ahead := l.Replay.Rate() / 2
	if ahead == 0 || p.Tail.Budget > 0 && p.Tail.Budget < ahead {
		return p.Tail.Budget
	}
	return ahead
}

// shedIfWanted drops what was read ahead if others wait for its memory.
func (p *performer) shedIfWanted(ctx context.Context) {
	if p.credit != nil && p.credit.Wanted() {
		_ = p.tailer.Shed(ctx) // its only error is the context's, which ends the wait, too
	}
}

// turn waits for so many bytes of a limit. Meanwhile the effect has a pulse, for it does not
// hang; beside is as in beating.
func (p *performer) turn(ctx context.Context, c *pace.Chain, bytes int64, beside func(context.Context)) error {
	if c.Rate() == 0 {
		return c.Take(ctx, bytes)
	}
	return beating(ctx, beside, func() error { return c.Take(ctx, bytes) })
}

// syncPace is the limits of first copies as package imagesync sees them.
type syncPace struct {
	p *performer
	c *pace.Chain
}

// Take waits for bytes.
func (s syncPace) Take(ctx context.Context, bytes int64) error { return s.p.turn(ctx, s.c, bytes, nil) }

// Correct adds to what was taken.
func (s syncPace) Correct(by int64) { s.c.Correct(by) }

// pacedSync are a sync's bounds with the image's limits. The image's own come from the
// primary: the copy has no metadata yet.
func (p *performer) pacedSync() imagesync.Limits {
	limits := p.syncLimits()
	if l := p.paced(); l != nil {
		l.heed(p.remoteHeader)
		limits.Pace = syncPace{p, l.Sync}
	}
	return limits
}

// HeldBack says which limit slows the image down, "" if none does. It may be called at any
// time.
func (p *performer) HeldBack(now time.Time) string {
	l := p.pacing.Load()
	if l == nil {
		return ""
	}
	scope, rate := l.Replay.HeldBack(now)
	what := "replay"
	if scope == "" {
		scope, rate = l.Sync.HeldBack(now)
		what = "sync"
	}
	switch scope {
	case "":
		return ""
	case pace.Image:
		return fmt.Sprintf("the image's %s limit of %d bytes a second", what, rate)
	}
	return fmt.Sprintf("the %s's %s limit, of which this worker has %d bytes a second", scope, what, rate)
}

// waitsItsTurn tells whether the image's reads wait for a limit now.
func (p *performer) waitsItsTurn() bool {
	l := p.pacing.Load()
	return l != nil && l.Replay.Waits()
}
