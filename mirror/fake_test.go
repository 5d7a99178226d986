package mirror

import (
	"context"
	"encoding/json"
	"sync"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	"github.com/rbdwarden/rbdwarden/rados"
)

// fakeIO is a pool in which tests answer class calls by method name, and see all that
// was done. What a test does not answer gives ENOENT.
type fakeIO struct {
	rados.IOContext // panics on everything else
	pool            rados.Pool
	namespace       string

	mu      sync.Mutex
	answers map[string]func(in []byte) ([]byte, error) // by method
	writes  []*rados.WriteOp
	fail    func(op *rados.WriteOp) error // what a write does, if set
	block   bool                          // writes hang until their context ends
	notes   [][]byte
	watch   *fakeWatch
	watches int
}

func (f *fakeIO) Pool() rados.Pool  { return f.pool }
func (f *fakeIO) Namespace() string { return f.namespace }
func (f *fakeIO) Close()            {}

// answer sets what a method replies, as an encoder's bytes.
func (f *fakeIO) answer(method string, fill func(e *encoding.Encoder)) {
	f.answers[method] = func([]byte) ([]byte, error) {
		var e encoding.Encoder
		fill(&e)
		return e.Bytes(), nil
	}
}

func newFakeIO(pool string) *fakeIO {
	return &fakeIO{pool: rados.Pool{ID: 7, Name: pool}, answers: map[string]func([]byte) ([]byte, error){}}
}

func (f *fakeIO) call(c class.Call) ([]byte, error) {
	if answer := f.answers[c.Method]; answer != nil {
		return answer(c.In)
	}
	return nil, syscall.ENOENT
}

func (f *fakeIO) Read(_ context.Context, object string, op *rados.ReadOp) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range op.Steps {
		reply, err := f.call(s.Call)
		if err != nil {
			return &rados.Error{Op: s.Call.Method, Object: object, Err: err}
		}
		s.Data = reply
	}
	return nil
}

func (f *fakeIO) Write(ctx context.Context, object string, op *rados.WriteOp) error {
	f.mu.Lock()
	if f.block {
		f.mu.Unlock()
		<-ctx.Done()
		return ctx.Err()
	}
	defer f.mu.Unlock()
	if f.fail != nil {
		if err := f.fail(op); err != nil {
			return &rados.Error{Op: "write", Object: object, Err: err}
		}
	}
	for _, s := range op.Steps {
		if s.Kind != rados.WriteExec || f.answers[s.Call.Method] == nil {
			continue
		}
		if _, err := f.call(s.Call); err != nil {
			return &rados.Error{Op: s.Call.Method, Object: object, Err: err}
		}
	}
	f.writes = append(f.writes, op)
	return nil
}

func (f *fakeIO) Notify(_ context.Context, _ string, payload []byte, _ time.Duration) (rados.NotifyReply, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.notes = append(f.notes, payload)
	return rados.NotifyReply{}, nil
}

func (f *fakeIO) Watch(_ context.Context, _ string, _ time.Duration, h rados.WatchHandler) (rados.Watch, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watch = &fakeWatch{io: f, handler: h}
	f.watches++
	return f.watch, nil
}

// watching tells whether a watch is held.
func (f *fakeIO) watching() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.watch != nil
}

// taken gives the writes so far, and forgets them.
func (f *fakeIO) taken() []*rados.WriteOp {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.writes
	f.writes = nil
	return w
}

type fakeWatch struct {
	rados.Watch
	io      *fakeIO
	handler rados.WatchHandler
}

func (w *fakeWatch) Close(context.Context) error {
	w.io.mu.Lock()
	defer w.io.mu.Unlock()
	if w.io.watch == w {
		w.io.watch = nil
	}
	return nil
}

// fakeCluster has a config-key store and pools.
type fakeCluster struct {
	rados.Cluster
	keys   map[string]string
	err    error // of every monitor command
	pools  map[int64]map[string]*fakeIO
	newest bool // it has asked for the newest map
}

func (*fakeCluster) FSID() string { return "fsid" }

func (c *fakeCluster) MonCommand(_ context.Context, cmd map[string]any, _ []byte) ([]byte, string, error) {
	if c.err != nil {
		return nil, "", c.err
	}
	if _, err := json.Marshal(cmd); err != nil || cmd["prefix"] != "config-key get" {
		return nil, "unknown command", syscall.EINVAL
	}
	value, ok := c.keys[cmd["key"].(string)]
	if !ok {
		return nil, "", syscall.ENOENT
	}
	return []byte(value), "", nil
}

func (c *fakeCluster) WaitForLatestMap(context.Context) error {
	c.newest = true
	return nil
}

func (c *fakeCluster) Pools(context.Context) ([]rados.Pool, error) {
	if !c.newest {
		return nil, nil // as a client that has an old map
	}
	var list []rados.Pool
	for id := int64(0); id < 100; id++ {
		if p := c.pools[id]; p != nil {
			list = append(list, rados.Pool{ID: id, Name: p[""].pool.Name})
		}
	}
	return list, nil
}

func (c *fakeCluster) OpenID(_ context.Context, pool int64, namespace string) (rados.IOContext, error) {
	if io := c.pools[pool][namespace]; io != nil {
		return io, nil
	}
	return nil, syscall.ENOENT
}
