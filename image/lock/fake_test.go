package lock

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	cls "github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/rados"
)

// world is a cluster in memory that knows locks, watches, notifications and the
// blocklist, and nothing else.
type world struct {
	mu        sync.Mutex
	objects   map[string]*object
	blocklist map[string]time.Duration // by address
	cookies   uint64
	clients   uint64
}

type object struct {
	locks   cls.Object
	watches []*fakeWatch
}

func newWorld(objects ...string) *world {
	w := &world{objects: map[string]*object{}, blocklist: map[string]time.Duration{}, cookies: 100}
	for _, o := range objects {
		w.objects[o] = &object{}
	}
	return w
}

// client is one connection and its pool.
type client struct {
	rados.IOContext // nil: what the package does not use panics
	w               *world
	id              uint64
	addr            cls.EntityAddr

	mu   sync.Mutex
	hook func(op string, do func() error) error // if set, is called instead of every operation
}

func (w *world) connect() *client {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clients++
	return &client{w: w, id: w.clients, addr: cls.EntityAddr{
		Type: cls.AddrMsgr2, Nonce: uint32(1000 + w.clients), Addr: netip.MustParseAddrPort("10.0.0.1:0"),
	}}
}

func (c *client) Cluster() rados.Cluster { return fakeCluster{c: c} }
func (c *client) Pool() rados.Pool       { return rados.Pool{ID: 1, Name: "pool"} }
func (c *client) Namespace() string      { return "" }

type fakeCluster struct {
	rados.Cluster // nil, as above
	c             *client
}

func (f fakeCluster) InstanceID() uint64 { return f.c.id }
func (f fakeCluster) Addresses() string  { return "[" + f.c.addr.String() + "]" }
func (f fakeCluster) Option(name string) (string, error) {
	if name == "rbd_blocklist_expire_seconds" {
		return "77", nil
	}
	return "", syscall.ENOENT
}

func (f fakeCluster) Blocklist(ctx context.Context, address string, expire time.Duration) error {
	return f.c.do(ctx, "blocklist", func() error {
		f.c.w.blocklist[address] = expire
		return nil
	})
}

// intercept sets the hook.
func (c *client) intercept(hook func(op string, do func() error) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hook = hook
}

// errHang, returned by a hook, makes the operation wait for the end of its context.
var errHang = errors.New("hang")

// do performs one operation as the OSD would.
func (c *client) do(ctx context.Context, op string, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	apply := func() error {
		c.w.mu.Lock()
		defer c.w.mu.Unlock()
		if _, blocked := c.w.blocklist[c.addr.Blocklist()]; blocked {
			return rados.Blocklisted
		}
		return f()
	}
	c.mu.Lock()
	hook := c.hook
	c.mu.Unlock()
	err := error(nil)
	if hook == nil {
		err = apply()
	} else {
		err = hook(op, apply)
	}
	if errors.Is(err, errHang) {
		<-ctx.Done()
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return nil
}

func (c *client) caller() cls.Caller {
	return cls.Caller{Entity: cls.ClientName(c.id), Address: c.addr}
}

func (c *client) Read(ctx context.Context, name string, op *rados.ReadOp) error {
	return c.do(ctx, "read", func() error {
		o := c.w.objects[name]
		if o == nil {
			return syscall.ENOENT
		}
		for _, s := range op.Steps {
			switch s.Kind {
			case rados.ReadListWatchers:
				for _, w := range o.watches {
					s.Watchers = append(s.Watchers, w.who())
				}
			case rados.ReadExec:
				out, _, err := o.locks.Call(s.Call.Method, s.Call.In, c.caller(), time.Now())
				if err != nil {
					return err
				}
				s.Data = out
			default:
				panic("unexpected read")
			}
		}
		return nil
	})
}

func (c *client) Write(ctx context.Context, name string, op *rados.WriteOp) error {
	what := "write"
	for _, s := range op.Steps {
		if s.Kind == rados.WriteExec {
			what = s.Call.Method
		}
	}
	return c.do(ctx, what, func() error {
		o := c.w.objects[name]
		for _, s := range op.Steps {
			switch s.Kind {
			case rados.WriteAssertExists:
				if o == nil {
					return syscall.ENOENT
				}
			case rados.WriteExec:
				if o == nil {
					return syscall.ENOENT
				}
				if _, _, err := o.locks.Call(s.Call.Method, s.Call.In, c.caller(), time.Now()); err != nil {
					return err
				}
			default:
				panic("unexpected write")
			}
		}
		return nil
	})
}

// fakeWatch is a watch; events come to its handler one after the other.
type fakeWatch struct {
	c      *client
	object string
	cookie uint64
	events chan func(rados.WatchHandler)
	quit   chan struct{}
	done   chan struct{}
	once   sync.Once

	mu  sync.Mutex
	age time.Duration
}

func (w *fakeWatch) who() rados.Watcher {
	return rados.Watcher{ClientID: w.c.id, Cookie: w.cookie, Address: w.c.addr.Blocklist()}
}

func (c *client) Watch(ctx context.Context, name string, _ time.Duration, h rados.WatchHandler) (rados.Watch, error) {
	w := &fakeWatch{c: c, object: name, events: make(chan func(rados.WatchHandler), 100), quit: make(chan struct{}), done: make(chan struct{})}
	err := c.do(ctx, "watch", func() error {
		o := c.w.objects[name]
		if o == nil {
			return syscall.ENOENT
		}
		c.w.cookies++
		w.cookie = c.w.cookies
		o.watches = append(o.watches, w)
		return nil
	})
	if err != nil {
		return nil, err
	}
	go func() {
		defer close(w.done)
		for {
			select {
			case e := <-w.events:
				e(h)
			case <-w.quit:
				return
			}
		}
	}()
	return w, nil
}

func (w *fakeWatch) Cookie() uint64 { return w.cookie }

func (w *fakeWatch) Check() (time.Duration, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.age, nil
}

// grow makes the watch look as if nobody had confirmed it for that long.
func (w *fakeWatch) grow(age time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.age = age
}

// vanish removes the watch from the object, and tells its owner if err is set.
func (w *fakeWatch) vanish(err error) {
	w.c.w.mu.Lock()
	o := w.c.w.objects[w.object]
	if o != nil {
		o.watches = slices.DeleteFunc(o.watches, func(x *fakeWatch) bool { return x == w })
	}
	w.c.w.mu.Unlock()
	if err != nil {
		w.events <- func(h rados.WatchHandler) { h.WatchLost(err) }
	}
}

func (w *fakeWatch) Close(ctx context.Context) error {
	w.vanish(nil)
	w.once.Do(func() { close(w.quit) })
	<-w.done
	return w.c.do(ctx, "unwatch", func() error { return nil })
}

// watchesOf lists the watches on an object.
func (w *world) watchesOf(name string) []*fakeWatch {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.objects[name].watches)
}

func (c *client) Notify(ctx context.Context, name string, payload []byte, timeout time.Duration) (rados.NotifyReply, error) {
	var watches []*fakeWatch
	err := c.do(ctx, "notify", func() error {
		o := c.w.objects[name]
		if o == nil {
			return syscall.ENOENT
		}
		watches = slices.Clone(o.watches)
		return nil
	})
	if err != nil {
		return rados.NotifyReply{}, err
	}
	acks := make([]chan []byte, len(watches))
	for i, w := range watches {
		acks[i] = make(chan []byte, 10)
		n := rados.Notification{NotifierID: c.id, Payload: payload, Ack: func(b []byte) { acks[i] <- b }}
		w.events <- func(h rados.WatchHandler) { h.Notified(n) }
	}
	var r rados.NotifyReply
	late := time.After(timeout)
	for i, w := range watches {
		select {
		case b := <-acks[i]:
			r.Acks = append(r.Acks, rados.NotifyAck{Watcher: w.who(), Reply: b})
		case <-w.quit: // a watch that ends is not waited for
		case <-late:
			r.Missed = append(r.Missed, w.who())
		case <-ctx.Done():
			return r, ctx.Err()
		}
	}
	return r, nil
}

// info is the state of the object's rbd_lock.
func (w *world) info(name string) cls.Info {
	w.mu.Lock()
	defer w.mu.Unlock()
	q := cls.GetInfo(cls.RBDName)
	out, _, err := w.objects[name].locks.Call(q.Method, q.In, cls.Caller{}, time.Now())
	if err != nil {
		panic(err)
	}
	i, err := q.Decode(out)
	if err != nil {
		panic(err)
	}
	return i
}

// blocklisted lists the addresses that are blocklisted.
func (w *world) blocklisted() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for a := range w.blocklist {
		all = append(all, a)
	}
	slices.Sort(all)
	return all
}

var _ rados.IOContext = (*client)(nil)
