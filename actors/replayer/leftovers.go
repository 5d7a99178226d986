package replayer

import (
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/rbdwarden/rbdwarden/messages"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/supervision"
)

// Leftovers are effects of ended actors that may still write: those that did not end
// although they were cancelled. There is one of a worker, for all its images. The zero
// value is ready; nil has none.
//
// Invariant: no actor of this process starts an image that has one. Another process may:
// it fences this one before it takes the image's lock.
type Leftovers struct {
	mu sync.Mutex
	of map[messages.ImageKey]int
}

func (l *Leftovers) add(key messages.ImageKey) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == nil {
		l.of = map[messages.ImageKey]int{}
	}
	l.of[key]++
}

func (l *Leftovers) remove(key messages.ImageKey) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of[key]--; l.of[key] <= 0 {
		delete(l.of, key)
	}
}

// Of counts the leftovers of an image.
func (l *Leftovers) Of(key messages.ImageKey) int {
	if l == nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.of[key]
}

// recheckLeft is how soon an image looks again whether what is left of it has ended.
const recheckLeft = time.Second

// mustNotStart keeps the image stopped while something of an earlier life may write to it.
func (a *Actor) mustNotStart(c actor.Context) bool {
	was := a.blocked
	a.blocked = a.opt.Left.Of(a.opt.Key) > 0
	if a.blocked {
		a.startLater(c, recheckLeft)
	}
	if a.blocked != was {
		a.report(c)
	}
	return a.blocked
}

func (a *Actor) blockedDescription() string {
	return "an operation of the image's earlier life does not end and may still write: it starts again when that has ended, or in a new worker process"
}

// leaveClose gives up waiting for the image to be closed.
func (a *Actor) leaveClose(c actor.Context, closed <-chan error) {
	const what = "Close"
	a.opt.Log.Error().Msg("closing the image does not end")
	a.abandoned(what, true)
	a.opt.Left.add(a.opt.Key)
	who := a.opt.Key.String()
	go func() {
		err := <-closed
		a.opt.Log.Info().AnErr("error", err).Msg("closing the image has ended after all")
		a.opt.Left.remove(a.opt.Key)
		a.tell(supervision.CameBack{When: time.Now(), Who: who, Writes: true})
	}()
	a.tell(supervision.LeftBehind{
		When: time.Now(), Who: who, What: what, Writes: true, Before: int(a.opt.Past.Reasons[string(report.WhyAbandoned)]),
	})
	if c.Parent() != nil {
		c.Send(c.Parent(), messages.ImageStuck{Key: a.opt.Key, What: what, Writes: true})
	}
}
