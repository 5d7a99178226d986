package mem

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/rados"
)

// watch implements rados.Watch.
type watch struct {
	client  *Client
	key     objectKey
	cookie  uint64
	timeout time.Duration
	handler rados.WatchHandler
	end     chan struct{} // closed when its goroutine has ended

	mu      sync.Mutex
	wake    *sync.Cond
	queue   []rados.Notification
	lost    error
	closing bool
	silent  bool // its client has crashed, or does not know of it

	orphan bool // not to be made any more; under the store's lock
}

func (o *object) watchers() []rados.Watcher {
	var out []rados.Watcher
	for _, w := range o.watches {
		out = append(out, w.watcher())
	}
	return out
}

func (w *watch) watcher() rados.Watcher {
	return rados.Watcher{ClientID: w.client.id, Cookie: w.cookie, Address: w.client.Addresses()}
}

func (io *ioContext) Watch(ctx context.Context, object string, timeout time.Duration, h rados.WatchHandler) (rados.Watch, error) {
	c := io.client
	if timeout <= 0 {
		timeout = c.store.opt.WatchTimeout
	}
	w := &watch{client: c, key: io.key(object), timeout: timeout, handler: h, end: make(chan struct{})}
	w.wake = sync.NewCond(&w.mu)
	err := io.do(ctx, Op{Object: object, Kind: Watch}, func() error {
		o := c.store.objects[w.key]
		if o == nil || !o.exists {
			return syscall.ENOENT
		}
		if w.orphan {
			return context.Canceled
		}
		c.store.nextNotify++
		w.cookie = 1<<32 + c.store.nextNotify
		o.watches = append(o.watches, w)
		go w.serve()
		return nil
	})
	if err != nil {
		c.store.disown(w)
		return nil, io.fail("watch", object, err)
	}
	return w, nil
}

// disown ends a watch of which nobody knows, for the answer was lost or came too late. As
// nobody keeps it alive, the cluster forgets it after a while.
func (s *Store) disown(w *watch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.orphan = true
	s.mute(w)
}

// serve calls the handler, one notification after the other.
func (w *watch) serve() {
	defer close(w.end)
	for {
		w.mu.Lock()
		for len(w.queue) == 0 && w.lost == nil && !w.closing && !w.silent {
			w.wake.Wait()
		}
		if w.closing || w.silent {
			w.mu.Unlock()
			return
		}
		if len(w.queue) > 0 {
			n := w.queue[0]
			w.queue = w.queue[1:]
			w.mu.Unlock()
			w.deliver(n)
			continue
		}
		lost := w.lost
		w.mu.Unlock()
		w.handler.WatchLost(lost)
		return
	}
}

// deliver gives the handler a notification as the faults will have it.
func (w *watch) deliver(n rados.Notification) {
	s := w.client.store
	v := Verdict{}
	if s.opt.Faults != nil {
		v = s.opt.Faults.Judge(Op{Client: w.client, Namespace: w.key.namespace, Object: w.key.name, Kind: Deliver, Payload: n.Payload, Cookie: w.cookie})
	}
	time.Sleep(v.Delay)
	if v.Fail != nil || w.client.Crashed() {
		return
	}
	w.handler.Notified(n)
	if v.Twice {
		w.handler.Notified(n)
	}
}

func (w *watch) set(fn func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fn()
	w.wake.Broadcast()
}

// Cookie implements rados.Watch.
func (w *watch) Cookie() uint64 { return w.cookie }

// Check implements rados.Watch.
func (w *watch) Check() (time.Duration, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closing {
		return 0, syscall.ENOTCONN
	}
	return 0, w.lost
}

// Close implements rados.Watch.
func (w *watch) Close(ctx context.Context) error {
	s := w.client.store
	if !w.client.Crashed() {
		s.mu.Lock()
		if o := s.objects[w.key]; o != nil {
			o.watches = slices.DeleteFunc(o.watches, func(x *watch) bool { return x == w })
			if o.gone() {
				delete(s.objects, w.key)
			}
		}
		s.mu.Unlock()
	}
	w.set(func() { w.closing = true })
	select {
	case <-w.end:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// LoseWatches drops the client's watches, as an OSD does that has not heard of it for
// too long.
func (c *Client) LoseWatches() {
	s := c.store
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.inOrder() {
		for _, w := range slices.Clone(o.watches) {
			if w.client == c {
				s.dropWatch(o, w, syscall.ENOTCONN)
			}
		}
	}
}

// ForgetWatches drops the client's watches, as LoseWatches does, but the client hears of it
// only when tell is called: a process that does not run hears nothing.
func (c *Client) ForgetWatches() (tell func()) {
	s := c.store
	s.mu.Lock()
	defer s.mu.Unlock()
	var lost []*watch
	for _, o := range s.inOrder() {
		o.watches = slices.DeleteFunc(o.watches, func(w *watch) bool {
			if w.client == c {
				lost = append(lost, w)
			}
			return w.client == c
		})
	}
	return func() {
		slices.SortFunc(lost, func(a, b *watch) int { return cmp.Compare(a.cookie, b.cookie) })
		for _, w := range lost {
			w.set(func() { w.lost = syscall.ENOTCONN })
		}
	}
}

// dropWatch is called with the store's lock held.
func (s *Store) dropWatch(o *object, w *watch, err error) {
	o.watches = slices.DeleteFunc(o.watches, func(x *watch) bool { return x == w })
	w.set(func() { w.lost = err })
	if o.gone() {
		delete(s.objects, w.key)
	}
}

func (s *Store) dropWatches(o *object, err error) {
	for _, w := range o.watches {
		w.set(func() { w.lost = err })
	}
	o.watches = nil
}

// silence ends the handlers of a crashed client. The OSDs keep its watches until they
// time out.
func (s *Store) silence(c *Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.inOrder() {
		for _, w := range o.watches {
			if w.client == c {
				s.mute(w)
			}
		}
	}
}

// mute ends a watch for its client at once, and for the cluster in time. The caller has the
// store's lock.
func (s *Store) mute(w *watch) {
	w.set(func() { w.silent = true })
	time.AfterFunc(w.timeout, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if o := s.objects[w.key]; o != nil && slices.Contains(o.watches, w) {
			s.dropWatch(o, w, syscall.ENOTCONN)
		}
	})
}

// notice is a notification on its way.
type notice struct {
	mu      sync.Mutex
	waiting map[*watch]bool
	reply   rados.NotifyReply
	done    chan struct{} // closed when all have answered
}

func (n *notice) ack(w *watch, reply []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.waiting[w] {
		return
	}
	delete(n.waiting, w)
	n.reply.Acks = append(n.reply.Acks, rados.NotifyAck{Watcher: w.watcher(), Reply: slices.Clone(reply)})
	if len(n.waiting) == 0 {
		close(n.done)
	}
}

// Notify implements rados.IOContext.
func (io *ioContext) Notify(ctx context.Context, object string, payload []byte, timeout time.Duration) (rados.NotifyReply, error) {
	if timeout <= 0 {
		timeout = 10 * time.Second
	}
	n := &notice{waiting: map[*watch]bool{}, done: make(chan struct{})}
	var targets []*watch
	err := io.do(ctx, Op{Object: object, Kind: Notify, Payload: payload}, func() error {
		o := io.client.store.objects[io.key(object)]
		if o == nil || !o.exists {
			return syscall.ENOENT
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		targets = slices.Clone(o.watches)
		for _, w := range targets {
			n.waiting[w] = true
		}
		if len(targets) == 0 {
			close(n.done)
		}
		for _, w := range targets {
			w.set(func() {
				w.queue = append(w.queue, rados.Notification{NotifierID: io.client.id,
					Payload: slices.Clone(payload), Ack: func(reply []byte) {
						if !w.client.Crashed() {
							n.ack(w, reply)
						}
					}})
			})
		}
		return nil
	})
	if err != nil {
		return rados.NotifyReply{}, io.fail("notify", object, err)
	}
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case <-n.done:
	case <-t.C:
	case <-ctx.Done():
		return rados.NotifyReply{}, io.fail("notify", object, ctx.Err())
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, w := range targets {
		if n.waiting[w] {
			n.reply.Missed = append(n.reply.Missed, w.watcher())
		}
	}
	n.waiting = nil
	return n.reply, nil
}
