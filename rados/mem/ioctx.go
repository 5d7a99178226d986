package mem

import (
	"context"
	"maps"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/rados"
)

// ioContext implements rados.IOContext.
type ioContext struct {
	client    *Client
	pool      rados.Pool
	namespace string

	mu     sync.Mutex
	closed bool
}

var _ rados.IOContext = (*ioContext)(nil)

// chainKey orders operations: those of one I/O context on one object.
type chainKey struct {
	io     *ioContext
	object string
}

func (io *ioContext) Pool() rados.Pool       { return io.pool }
func (io *ioContext) Namespace() string      { return io.namespace }
func (io *ioContext) Cluster() rados.Cluster { return io.client }

func (io *ioContext) Close() {
	io.mu.Lock()
	defer io.mu.Unlock()
	io.closed = true
}

func (io *ioContext) key(object string) objectKey {
	return objectKey{io.pool.ID, io.namespace, object}
}

func (io *ioContext) fail(op, object string, err error) error {
	if err == nil {
		return nil
	}
	return &rados.Error{Op: op, Pool: io.pool.Name, Namespace: io.namespace, Object: object, Err: err}
}

// do performs an operation under its verdict. perform is called with the store's
// lock held, and never after do has said that the client may not.
func (io *ioContext) do(ctx context.Context, op Op, perform func() error) error {
	io.mu.Lock()
	closed := io.closed
	io.mu.Unlock()
	if closed {
		return syscall.ESHUTDOWN
	}
	if err := io.client.usable(ctx); err != nil {
		return err
	}
	v := io.judge(&op)
	if err := ctx.Err(); err != nil { // the judge took its time
		return err
	}
	if v.CrashBefore {
		io.client.Crash()
		return ErrCrashed
	}
	before, mine := io.enqueue(op.Object)
	end := make(chan error, 1)
	run := func() {
		time.Sleep(v.Delay)
		if v.Until != nil {
			<-v.Until
		}
		<-before
		err := v.Fail
		if err == nil {
			err = io.perform(op, perform)
		}
		io.leave(op.Object, mine)
		switch {
		case v.CrashAfter:
			io.client.Crash()
			err = ErrCrashed
		case v.Lose:
			return
		case err == nil:
			err = v.Hide
		}
		time.Sleep(v.Late)
		end <- err
	}
	if v == (Verdict{}) && isClosed(before) {
		run()
	} else {
		go run()
	}
	select {
	case err := <-end:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (io *ioContext) judge(op *Op) Verdict {
	s := io.client.store
	s.mu.Lock()
	s.seq++
	op.Seq = s.seq
	s.mu.Unlock()
	if s.opt.Faults == nil {
		return Verdict{}
	}
	op.Client, op.Pool, op.Namespace = io.client, io.pool, io.namespace
	return s.opt.Faults.Judge(*op)
}

// perform does the work if the client still may when its turn has come.
func (io *ioContext) perform(op Op, fn func() error) error {
	c := io.client
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.crashed {
		return ErrCrashed
	}
	s := c.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isBlocklisted(c) {
		return rados.Blocklisted
	}
	if !slices.ContainsFunc(s.pools, func(p rados.Pool) bool { return p.ID == io.pool.ID }) {
		return syscall.ENOENT
	}
	op.Client, op.Pool, op.Namespace = c, io.pool, io.namespace
	err := fn()
	s.observe(op, err)
	return err
}

// enqueue takes a place behind the operations on the object that are under way.
func (io *ioContext) enqueue(object string) (before, mine chan struct{}) {
	c := io.client
	c.mu.Lock()
	defer c.mu.Unlock()
	key := chainKey{io, object}
	before, ok := c.chains[key]
	if !ok {
		before = closedChan
	}
	mine = make(chan struct{})
	c.chains[key] = mine
	return before, mine
}

func (io *ioContext) leave(object string, mine chan struct{}) {
	c := io.client
	c.mu.Lock()
	defer c.mu.Unlock()
	close(mine)
	if key := (chainKey{io, object}); c.chains[key] == mine {
		delete(c.chains, key)
	}
}

var closedChan = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (io *ioContext) Write(ctx context.Context, object string, op *rados.WriteOp) error {
	return io.fail(writeLabel(op), object, io.write(ctx, object, op))
}

func (io *ioContext) write(ctx context.Context, object string, op *rados.WriteOp) error {
	if object == "" || !validSnapContext(op.SnapContext) {
		return syscall.EINVAL
	}
	c := io.client
	return io.do(ctx, Op{Object: object, Kind: Write, Write: op}, func() error {
		return c.store.write(c, io.key(object), op)
	})
}

// validSnapContext is SnapContext::is_valid of src/common/snap_types.cc.
func validSnapContext(c ceph.SnapContext) bool {
	for i, id := range c.Snaps {
		if id == 0 || id > c.Seq || (i > 0 && id >= c.Snaps[i-1]) {
			return false
		}
	}
	return true
}

func (io *ioContext) Read(ctx context.Context, object string, op *rados.ReadOp) error {
	return io.fail(readLabel(op), object, io.read(ctx, object, op))
}

func (io *ioContext) read(ctx context.Context, object string, op *rados.ReadOp) error {
	if object == "" {
		return syscall.EINVAL
	}
	c := io.client
	answer := make(chan []*rados.ReadStep, 1)
	err := io.do(ctx, Op{Object: object, Kind: Read, Read: op}, func() error {
		steps, err := c.store.read(c, io.key(object), op)
		answer <- steps
		return err
	})
	if err != nil {
		return err
	}
	deliver(op, <-answer)
	return nil
}

func (io *ioContext) CreateSnapID(ctx context.Context) (id ceph.SnapID, err error) {
	s := io.client.store
	answer := make(chan ceph.SnapID, 1)
	err = io.do(ctx, Op{Kind: SnapID}, func() error {
		s.nextSnap[io.pool.ID]++
		answer <- s.nextSnap[io.pool.ID]
		return nil
	})
	if err != nil {
		return 0, io.fail("create snapshot id", "", err)
	}
	return <-answer, nil
}

func (io *ioContext) RemoveSnapID(ctx context.Context, id ceph.SnapID) error {
	s := io.client.store
	return io.fail("remove snapshot id", "", io.do(ctx, Op{Kind: SnapID}, func() error {
		for key, o := range s.objects {
			if key.pool != io.pool.ID {
				continue
			}
			if o.trim(id); o.gone() {
				delete(s.objects, key)
			}
		}
		return nil
	}))
}

func (io *ioContext) List(ctx context.Context, fn func(object string) error) error {
	if err := io.client.usable(ctx); err != nil {
		return io.fail("list", "", err)
	}
	s := io.client.store
	s.mu.Lock()
	var names []string
	for key, o := range s.objects {
		if key.pool == io.pool.ID && key.namespace == io.namespace && o.exists {
			names = append(names, key.name)
		}
	}
	s.mu.Unlock()
	slices.Sort(names)
	for _, n := range names {
		if err := fn(n); err != nil {
			return err
		}
	}
	return nil
}

func writeLabel(op *rados.WriteOp) string {
	for i := range op.Steps {
		if s := &op.Steps[i]; s.Kind == rados.WriteExec {
			return s.Call.Class + "." + s.Call.Method
		}
	}
	return "write"
}

func readLabel(op *rados.ReadOp) string {
	for _, s := range op.Steps {
		if s.Kind == rados.ReadExec {
			return s.Call.Class + "." + s.Call.Method
		}
	}
	return "read"
}

// sortedKeys is for maps whose order must not depend on chance.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
