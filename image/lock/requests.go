package lock

import (
	"context"
	"errors"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph/notify"
)

// rememberedRequests is how many finished requests are kept, so that one that is
// sent again (its requester missed the answer) is not performed again.
const rememberedRequests = 64

// requests is what is known of operations that others have asked for.
type requests struct {
	running  map[notify.AsyncRequestID]bool
	finished []finished // oldest first
}

type finished struct {
	id     notify.AsyncRequestID
	result int32
}

// known tells whether a request is not new, and what to answer then.
func (r *requests) known(id notify.AsyncRequestID) (result int32, known bool) {
	if r.running[id] {
		return 0, true
	}
	for _, f := range r.finished {
		if f.id == id {
			return f.result, true
		}
	}
	return 0, false
}

func (r *requests) start(id notify.AsyncRequestID) {
	if r.running == nil {
		r.running = make(map[notify.AsyncRequestID]bool)
	}
	r.running[id] = true
}

func (r *requests) finish(id notify.AsyncRequestID, result int32) {
	delete(r.running, id)
	if len(r.finished) == rememberedRequests {
		r.finished = append(r.finished[:0], r.finished[1:]...)
	}
	r.finished = append(r.finished, finished{id, result})
}

// offered lets Perform decide about an operation. A request that bears an id is
// answered at once, and its outcome is announced when it is known; another waits
// for its answer (deferred is true).
func (l *Lock) offered(p notify.Payload, ack func([]byte)) (deferred bool) {
	answer := func(result int32) { ack(notify.Response{Result: result}.Encode()) }
	id, async := notify.RequestID(p)
	if async {
		l.mu.Lock()
		result, known := l.requests.known(id)
		l.mu.Unlock()
		if known {
			answer(result)
			return false
		}
	}
	var perform func(context.Context) error
	if l.opts.Perform != nil {
		perform = l.opts.Perform(p)
	}
	if perform == nil {
		answer(-int32(syscall.EROFS))
		return false
	}
	if !async {
		return l.goErrand(func() { answer(resultOf(perform(l.run))) })
	}
	l.mu.Lock()
	l.requests.start(id)
	l.mu.Unlock()
	answered := make(chan struct{})
	started := l.goErrand(func() {
		<-answered // or its outcome might overtake the answer
		result := resultOf(perform(l.run))
		l.mu.Lock()
		l.requests.finish(id, result)
		l.mu.Unlock()
		l.announce(l.run, notify.AsyncComplete{Request: id, Result: result})
	})
	if started {
		answer(0)
	}
	close(answered)
	return false
}

// resultOf is an error as librbd's messages tell it.
func resultOf(err error) int32 {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled):
		// The lock is being released: the requester looks for the next owner.
		return -int32(syscall.ERESTART)
	}
	return -int32(errnoOr(err, syscall.EIO))
}
