package librados

/*
#include "shim.h"
*/
import "C"

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/rbdwarden/rbdwarden/rados"
)

// watchQueue bounds the notifications that wait for a slow handler. One beyond it
// is dropped without an acknowledgement, so its sender sees the watcher as missed:
// the same as with a handler that answers too late.
const watchQueue = 1024

// watch implements rados.Watch. librados' threads put what happens into queue; a
// goroutine, which lives only as long as there is something, hands it to the handler.
type watch struct {
	io      *ioContext
	object  string
	handler rados.WatchHandler
	id      uint64 // its name in callbacks
	cookie  uint64

	// Keeps h alive in Check. Not mu: librados may hold locks of its own when it
	// calls back, and the callbacks take mu.
	life sync.RWMutex
	h    *C.warden_watch

	mu      sync.Mutex
	queue   []rados.Notification
	lost    error // librados gave the watch up
	told    bool  // the handler knows
	ready   bool  // whoever asked for the watch has it
	closed  bool
	running bool          // there is a goroutine
	stopped chan struct{} // closed when the watch is closed and no goroutine is left
	gone    chan struct{} // closed when librados has let go of the watch
	stopErr error         // set before gone is closed
}

// watches finds a watch by the id that its C++ side carries. A late callback of a
// watch that is gone finds nothing.
var watches sync.Map // uint64 → *watch

var watchIDs atomic.Uint64

func (io *ioContext) Watch(ctx context.Context, object string, timeout time.Duration, h rados.WatchHandler) (rados.Watch, error) {
	w, err := io.watch(ctx, object, timeout, h)
	if err != nil {
		return nil, io.fail("watch", object, err)
	}
	return w, nil
}

func (io *ioContext) watch(ctx context.Context, object string, timeout time.Duration, h rados.WatchHandler) (*watch, error) {
	if object == "" {
		return nil, syscall.EINVAL
	}
	p, err := io.begin(ctx)
	if err != nil {
		return nil, err
	}
	w := &watch{
		io: io, object: object, handler: h, id: watchIDs.Add(1),
		stopped: make(chan struct{}), gone: make(chan struct{}),
	}
	watches.Store(w.id, w)
	if !io.enter() { // the watch's own use of the handles, until it is gone
		watches.Delete(w.id)
		p.drop()
		return nil, errClosed
	}
	// Nobody will know the watch if the caller leaves before it is registered, so
	// then it is taken back. A callback must not block, hence the goroutine.
	p.onAbandoned = func(result int32) {
		if result < 0 {
			w.never()
			return
		}
		go w.stop()
	}
	// The registration is not cancelled in librados: cancelling would leave it open
	// whether the OSD has it.
	p.cancellable = false
	name, nameLen := oid(object)
	started := C.warden_watch_start(io.h, p.token(), name, nameLen, C.uint32_t(seconds(timeout)), C.uint64_t(w.id), &w.h, &p.op)
	result, err := p.wait(ctx, started)
	if err != nil {
		if started < 0 {
			w.never()
		}
		return nil, err
	}
	p.finish()
	if result < 0 {
		w.never()
		return nil, resultError(result)
	}
	w.cookie = uint64(C.warden_watch_cookie(w.h))
	io.mu.Lock()
	io.watches[w] = struct{}{}
	io.mu.Unlock()
	w.mu.Lock()
	w.ready = true
	if len(w.queue) > 0 || w.lost != nil {
		w.nudge()
	}
	w.mu.Unlock()
	return w, nil
}

// never forgets a watch that did not come to be.
func (w *watch) never() {
	watches.Delete(w.id)
	w.io.exit()
}

// seconds rounds up: 0 means the cluster's default and must not come from a
// timeout below one second.
func seconds(d time.Duration) uint32 {
	if d <= 0 {
		return 0
	}
	return uint32((d + time.Second - 1) / time.Second)
}

// run hands over what there is, until there is nothing.
func (w *watch) run() {
	for w.deliver() {
	}
}

// deliver gives one thing to the handler. With nothing to give it ends the goroutine's time, and answers false.
func (w *watch) deliver() bool {
	w.mu.Lock()
	if w.closed {
		w.running = false
		close(w.stopped)
		w.mu.Unlock()
		return false
	}
	if len(w.queue) > 0 {
		n := w.queue[0]
		w.queue[0] = rados.Notification{}
		w.queue = w.queue[1:]
		w.mu.Unlock()
		w.handler.Notified(n)
		return true
	}
	lost := w.lost
	if lost == nil || w.told {
		w.running = false
		w.mu.Unlock()
		return false
	}
	w.told = true
	w.mu.Unlock()
	w.handler.WatchLost(lost)
	return true
}

// nudge has what is new handed over; mu is held.
func (w *watch) nudge() {
	if w.ready && !w.running && !w.closed {
		w.running = true
		go w.run()
	}
}

//export wardenNotified
func wardenNotified(id, notifyID, cookie, notifier C.uint64_t, data *C.uint8_t, n C.uint64_t) {
	v, ok := watches.Load(uint64(id))
	if !ok {
		return
	}
	w := v.(*watch)
	payload := append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(data)), int(n))...)
	var once sync.Once
	note := rados.Notification{
		NotifierID: uint64(notifier),
		Payload:    payload,
		Ack:        func(reply []byte) { once.Do(func() { w.ack(notifyID, cookie, reply) }) },
	}
	w.mu.Lock()
	if !w.closed && len(w.queue) < watchQueue {
		w.queue = append(w.queue, note)
		w.nudge()
	}
	w.mu.Unlock()
}

//export wardenWatchLost
func wardenWatchLost(id C.uint64_t, result C.int32_t) {
	v, ok := watches.Load(uint64(id))
	if !ok {
		return
	}
	w := v.(*watch)
	w.mu.Lock()
	if w.lost == nil {
		w.lost = w.io.fail("watch", w.object, syscall.Errno(-result))
		w.nudge()
	}
	w.mu.Unlock()
}

func (w *watch) ack(notifyID, cookie C.uint64_t, reply []byte) {
	if !w.io.enter() {
		return // closed: the notifier waits for its timeout
	}
	defer w.io.exit()
	name, nameLen := oid(w.object)
	data, n := flatBytes(reply)
	C.warden_notify_ack(w.io.h, name, nameLen, notifyID, cookie, data, n)
}

func (w *watch) Cookie() uint64 { return w.cookie }

func (w *watch) Check() (time.Duration, error) {
	w.life.RLock()
	defer w.life.RUnlock()
	w.mu.Lock()
	closed, lost := w.closed, w.lost
	w.mu.Unlock()
	if closed {
		return 0, w.io.fail("watch", w.object, errClosed)
	}
	if lost != nil {
		return 0, lost
	}
	r := C.warden_watch_check(w.h)
	if r < 0 {
		return 0, w.io.fail("watch", w.object, syscall.Errno(-r))
	}
	return time.Duration(r) * time.Millisecond, nil
}

// Close unregisters the watch. The handler is not called for what comes after. If
// ctx ends first, librados unregisters it in the background.
func (w *watch) Close(ctx context.Context) error {
	w.life.Lock()
	w.mu.Lock()
	first := !w.closed
	w.closed = true
	w.queue = nil
	if first && !w.running {
		close(w.stopped)
	}
	w.mu.Unlock()
	w.life.Unlock()
	if first {
		// Whatever becomes of ctx: a watch that is left half unregistered would still
		// answer for this client.
		go w.stop()
	}
	for _, ch := range [...]chan struct{}{w.stopped, w.gone} {
		select {
		case <-ch:
		case <-ctx.Done():
			return w.io.fail("unwatch", w.object, ctx.Err())
		}
	}
	if err := w.stopErr; err != nil {
		return w.io.fail("unwatch", w.object, err)
	}
	return nil
}

// stop unregisters the watch at the OSD and frees its C++ side.
func (w *watch) stop() {
	err := w.unregister()
	// A watch that the OSD has forgotten already is as good as unregistered.
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTCONN) {
		err = nil
	}
	watches.Delete(w.id)
	w.stopErr = err
	close(w.gone)
	w.io.mu.Lock()
	delete(w.io.watches, w)
	w.io.mu.Unlock()
	w.io.exit()
}

func (w *watch) unregister() error {
	p := w.io.reserve()
	p.cancellable = false
	p.bare = true
	return p.do(context.Background(), C.warden_watch_stop(w.h, p.token(), &p.op))
}

// closeWatches starts to close the watches that are left open when the connection
// is closed. Their handlers hear nothing more.
func (io *ioContext) closeWatches() {
	io.mu.Lock()
	left := make([]*watch, 0, len(io.watches))
	for w := range io.watches {
		left = append(left, w)
	}
	io.mu.Unlock()
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for _, w := range left {
		_ = w.Close(ended)
	}
}
