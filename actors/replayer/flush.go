package replayer

import (
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	"github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/messages"
)

// flusher waits until everything up to a position is committed.
type flusher struct {
	pid  *actor.PID
	upTo journal.ObjectPosition
}

// flush commits what has been read so far, and answers when that is done.
func (a *Actor) flush(c actor.Context) {
	if upTo, any := a.core.Read(); any && c.Sender() != nil && a.core.State() != core.Paused {
		a.flushers = append(a.flushers, flusher{c.Sender(), upTo})
	} else if c.Sender() != nil {
		c.Respond(messages.ImageFlushed{Key: a.opt.Key})
	}
	a.step(c, core.Flush{}, 0)
}

// flushed answers those whose entries are committed, or will not be, because the image
// has stopped; and goes on committing for the others.
func (a *Actor) flushed(c actor.Context, m core.Msg) {
	if len(a.flushers) == 0 {
		return
	}
	waiting := a.flushers[:0]
	for _, f := range a.flushers {
		if a.core.Progressing() && a.core.State() != core.Paused && !a.core.CommittedUpTo(f.upTo) {
			waiting = append(waiting, f)
			continue
		}
		c.Send(f.pid, messages.ImageFlushed{Key: a.opt.Key})
	}
	a.flushers = waiting
	switch m.(type) {
	case core.Applied, core.Committed:
		if len(waiting) > 0 && a.core.Progressing() {
			a.step(c, core.Flush{}, 0)
		}
	}
}

// halt is a stop by command of an image that does nothing at the moment: it does not try
// again by itself, and its status says who wanted that.
func (a *Actor) halt(c actor.Context) {
	a.nextAt = time.Time{}
	if a.timer != nil {
		a.timer.Stop()
	}
	a.settle(c)
}
