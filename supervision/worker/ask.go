package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
)

// asks are what the daemon was asked for and has not answered yet.
type asks struct {
	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan *controlv1.Told
}

// Ask asks the daemon for something that only it can tell or do, for at most as long as ctx
// lasts. The id of what is asked is set here.
func (w *Worker) Ask(ctx context.Context, ask *controlv1.Ask) (*controlv1.Told, error) {
	if d, ok := ctx.Deadline(); ok {
		ask.TimeoutNanos = max(0, time.Until(d)).Nanoseconds()
	}
	ch := make(chan *controlv1.Told, 1)
	w.asks.mu.Lock()
	w.asks.last++
	ask.Id = w.asks.last
	if w.asks.waiting == nil {
		w.asks.waiting = map[uint64]chan *controlv1.Told{}
	}
	w.asks.waiting[ask.Id] = ch
	w.asks.mu.Unlock()
	defer func() {
		w.asks.mu.Lock()
		delete(w.asks.waiting, ask.Id)
		w.asks.mu.Unlock()
	}()
	w.send(&controlv1.FromWorker{Message: &controlv1.FromWorker_Ask{Ask: ask}})
	select {
	case told := <-ch:
		if told.GetError() != "" {
			return nil, errors.New(told.GetError())
		}
		return told, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("the daemon did not answer: %w", ctx.Err())
	case <-w.stopping:
		return nil, fmt.Errorf("the worker stops: %w", syscall.ESHUTDOWN)
	}
}

// told hands on an answer of the daemon.
func (a *asks) told(t *controlv1.Told) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if ch, ok := a.waiting[t.GetId()]; ok {
		ch <- t
		delete(a.waiting, t.GetId())
	}
}
