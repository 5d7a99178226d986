package process

import (
	"context"
	"fmt"
	"time"

	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
)

// maxAsks bounds what one worker can have asked for at a time, and askTimeout for how long.
const (
	maxAsks    = 16
	askTimeout = 2 * time.Minute
)

// asked answers what a worker asks for, beside everything else. What is too much is refused.
func (s *Supervisor) asked(c *child, ask *controlv1.Ask) {
	answer := func(t *controlv1.Told) {
		t.Id = ask.GetId()
		if err := c.link.Send(&controlv1.ToWorker{Message: &controlv1.ToWorker_Told{Told: t}}); err != nil {
			s.log.Warn().Err(err).Int("pid", c.pid).Msg("cannot answer the worker")
		}
	}
	select {
	case s.asks <- struct{}{}:
	default:
		go answer(&controlv1.Told{Error: "the daemon has too much to answer"})
		return
	}
	go func() {
		defer func() { <-s.asks }()
		answer(s.tellAsked(ask))
	}()
}

// tellAsked answers one Ask. A command that a person gave must not end the daemon.
func (s *Supervisor) tellAsked(ask *controlv1.Ask) (t *controlv1.Told) {
	defer func() {
		if p := recover(); p != nil {
			t = &controlv1.Told{Error: fmt.Sprint("panic: ", p)}
		}
	}()
	if s.spec.Asked == nil {
		return &controlv1.Told{Error: "the daemon answers nothing"}
	}
	ctx, cancel := context.WithTimeout(context.Background(), min(time.Duration(ask.GetTimeoutNanos()), askTimeout))
	defer cancel()
	return s.spec.Asked(ctx, ask)
}
