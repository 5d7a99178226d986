package librados

/*
#include "shim.h"
*/
import "C"

import (
	"context"
	"runtime/cgo"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// pending is one operation that librados has under way.
//
//	waiting ──callback──▶ done                       the caller takes the results
//	   │
//	   └─ctx ends─▶ cancelling ──callback──▶ done    the canceller frees the operation
//	                    │
//	                    └─cancel sent─▶ abandoned ──callback──▶ done   the callback frees it
//
// Only one side wins each arrow, so the C++ operation is freed exactly once, and
// nobody waits for a cluster that does not answer.
//
// A pending and its cgo handle are reused, so a running operation allocates
// neither; their number is the peak of concurrent operations.
type pending struct {
	handle cgo.Handle
	state  atomic.Uint32
	done   chan int32 // buffered
	io     *ioContext
	op     *C.warden_op
	flat   flatten

	// The operation has no results to take: its callback frees it.
	bare bool
	// Asking librados to cancel it is allowed.
	cancellable bool
	// Runs in the callback of an operation that nobody waits for any more. It must
	// not block.
	onAbandoned func(result int32)
	closing     <-chan struct{} // the connection's end, if that ends the wait
	counted     bool            // has a place in cluster.slots
	overdue     uint64          // its number among the abandoned, 0 if it is not one of them
}

const (
	stateWaiting uint32 = iota
	stateCancelling
	stateAbandoned
	stateDone
)

var idle struct {
	sync.Mutex
	list []*pending
}

// Underway counts operations whose callback has not come yet, over all
// connections of the process. For tests of leaks and for metrics.
func Underway() int64 { return underway.Load() }

var underway atomic.Int64

// begin takes a place among the operations under way. The caller starts the
// operation and calls wait, or drop if it could not be started.
func (io *ioContext) begin(ctx context.Context) (*pending, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case io.cluster.slots <- struct{}{}:
	default:
		select {
		case io.cluster.slots <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-io.cluster.closing:
			return nil, errClosed
		}
	}
	if !io.enter() {
		<-io.cluster.slots
		return nil, errClosed
	}
	p := take(io)
	p.counted = true
	p.closing = io.cluster.closing
	return p, nil
}

// reserve is begin for ending what is there already: it needs no place and goes on
// while the connection is being closed. The caller has entered io.
func (io *ioContext) reserve() *pending {
	io.mu.Lock()
	io.uses++
	io.mu.Unlock()
	return take(io)
}

func take(io *ioContext) *pending {
	underway.Add(1)
	idle.Lock()
	var p *pending
	if n := len(idle.list); n > 0 {
		p = idle.list[n-1]
		idle.list = idle.list[:n-1]
	}
	idle.Unlock()
	if p == nil {
		p = &pending{done: make(chan int32, 1)}
		p.handle = cgo.NewHandle(p)
	}
	p.state.Store(stateWaiting)
	p.io = io
	p.cancellable = true
	return p
}

func (p *pending) token() C.uint64_t { return C.uint64_t(p.handle) }

// drop gives the place back; librados has nothing to do with p any more.
func (p *pending) drop() {
	io, counted := p.io, p.counted
	abandoned.remove(p.overdue)
	p.overdue = 0
	p.io, p.op, p.onAbandoned, p.closing, p.bare, p.counted = nil, nil, nil, nil, false, false
	p.flat.reset()
	idle.Lock()
	idle.list = append(idle.list, p)
	idle.Unlock()
	underway.Add(-1)
	if counted {
		<-io.cluster.slots
	}
	io.exit()
}

// wait waits for the started operation (started is what starting it returned). If
// it has completed, err is nil and result is librados': the caller takes what it
// wants of the operation and calls finish. Otherwise p is no longer the caller's.
func (p *pending) wait(ctx context.Context, started C.int32_t) (result int32, err error) {
	p.flat.unpin()
	if started < 0 {
		p.drop()
		return 0, resultError(int32(started))
	}
	select {
	case r := <-p.done:
		return r, nil
	case <-ctx.Done():
		return p.abandon(ctx.Err())
	case <-p.closing:
		return p.abandon(errClosed)
	}
}

// finish frees an operation that has completed.
func (p *pending) finish() {
	if !p.bare {
		C.warden_op_free(p.op)
	}
	p.drop()
}

// do is wait and finish, for an operation without results to take.
func (p *pending) do(ctx context.Context, started C.int32_t) error {
	r, err := p.wait(ctx, started)
	if err != nil {
		return err
	}
	p.finish()
	if r < 0 {
		return resultError(r)
	}
	return nil
}

// abandon stops waiting. An operation that completes just now is freed here;
// otherwise its callback does it later.
func (p *pending) abandon(cause error) (int32, error) {
	if !p.state.CompareAndSwap(stateWaiting, stateCancelling) {
		// The result is there, and it is the truth: better than the cause.
		return <-p.done, nil
	}
	p.overdue = abandoned.add() // before the callback may own p
	if p.cancellable {
		C.warden_op_cancel(p.op)
	}
	if !p.state.CompareAndSwap(stateCancelling, stateAbandoned) {
		r := <-p.done
		C.warden_op_free(p.op)
		p.settle(r)
	}
	return 0, cause
}

// settle ends an operation that nobody waits for.
func (p *pending) settle(r int32) {
	if p.onAbandoned != nil {
		p.onAbandoned(r)
	}
	p.drop()
}

//export wardenComplete
func wardenComplete(token C.uint64_t, result C.int32_t, _ unsafe.Pointer) C.int32_t {
	p := cgo.Handle(token).Value().(*pending)
	for {
		switch s := p.state.Load(); s {
		case stateWaiting:
			free := p.bare
			if p.state.CompareAndSwap(s, stateDone) {
				p.done <- int32(result)
				if free {
					return 1
				}
				return 0
			}
		case stateCancelling:
			if p.state.CompareAndSwap(s, stateDone) {
				p.done <- int32(result)
				return 0
			}
		case stateAbandoned:
			p.state.Store(stateDone)
			p.settle(int32(result))
			return 1
		default:
			panic("librados completed an operation twice")
		}
	}
}

var errClosed = error(closedError{})

// closedError says that the connection or I/O context was closed by this side.
// It counts as ENOTCONN.
type closedError struct{}

func (closedError) Error() string { return "connection closed" }
func (closedError) Unwrap() error { return syscall.ENOTCONN }
