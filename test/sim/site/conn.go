package site

import (
	"context"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/mem"
)

// conn is a worker's connection. What the cluster in memory does at once, a worker that is
// paused or cut off cannot do here.
type conn struct {
	*mem.Client
	w *worker
}

// Open implements rados.Cluster.
func (c *conn) Open(ctx context.Context, pool, namespace string) (rados.IOContext, error) {
	return c.opened(c.Client.Open(ctx, pool, namespace))
}

// OpenID implements rados.Cluster.
func (c *conn) OpenID(ctx context.Context, pool int64, namespace string) (rados.IOContext, error) {
	return c.opened(c.Client.OpenID(ctx, pool, namespace))
}

func (c *conn) opened(io rados.IOContext, err error) (rados.IOContext, error) {
	if err != nil {
		return nil, err
	}
	return &ioContext{io, c}, nil
}

// Blocklist implements rados.Cluster. The monitors' answer may take as long as an OSD's, or
// be lost.
func (c *conn) Blocklist(ctx context.Context, address string, expire time.Duration) error {
	s := c.w.site
	s.oracle.fences(c.w, address)
	dice := s.faults.dice(c.w.life, "blocklist "+address)
	v := s.faults.reach(c.w, monitors, dice)
	if err := ctx.Err(); err != nil {
		return err
	}
	time.Sleep(v.delay)
	if v.until != nil {
		select {
		case <-v.until:
		case <-ctx.Done():
			return ctx.Err() // it has not been sent
		}
	}
	if v.fail != nil {
		return v.fail
	}
	if err := c.Client.Blocklist(ctx, address, expire); err != nil {
		return err
	}
	s.trace.Add("%s blocklists %s", c.w, address)
	s.oracle.fenced(address)
	time.Sleep(v.late)
	return v.hide
}

// ioContext is a pool as a worker has it.
type ioContext struct {
	rados.IOContext
	c *conn
}

// Cluster implements rados.IOContext.
func (io *ioContext) Cluster() rados.Cluster { return io.c }

// Calls that are given up at the same moment return one after the other.

// Read implements rados.IOContext.
func (io *ioContext) Read(ctx context.Context, object string, op *rados.ReadOp) error {
	err := io.IOContext.Read(ctx, object, op)
	io.givenUp(ctx, "read "+object)
	return err
}

// Write implements rados.IOContext.
func (io *ioContext) Write(ctx context.Context, object string, op *rados.WriteOp) error {
	err := io.IOContext.Write(ctx, object, op)
	io.givenUp(ctx, "write "+object)
	return err
}

// Watch implements rados.IOContext.
func (io *ioContext) Watch(ctx context.Context, object string, timeout time.Duration, h rados.WatchHandler) (rados.Watch, error) {
	w, err := io.IOContext.Watch(ctx, object, timeout, h)
	io.givenUp(ctx, "watch "+object)
	return w, err
}

// Notify implements rados.IOContext.
func (io *ioContext) Notify(ctx context.Context, object string, payload []byte, timeout time.Duration) (rados.NotifyReply, error) {
	r, err := io.IOContext.Notify(ctx, object, payload, timeout)
	io.givenUp(ctx, "notify "+object)
	return r, err
}

func (io *ioContext) givenUp(ctx context.Context, what string) {
	if ctx.Err() != nil {
		time.Sleep(latency(io.c.w.site.faults.dice(io.c.w.life, what+io.Namespace())))
	}
}

// Parts of the cluster that a worker may be cut off from.
type part uint8

const (
	monitors part = 1 << iota
	members
	leaders // and the image map
	headers
	contents
	everything part = monitors | members | leaders | headers | contents
)

// fate is what becomes of an operation.
type fate struct {
	delay, late time.Duration
	until       <-chan struct{}
	fail, hide  error
}

// latency is that of an operation on a cluster that is well. The nanoseconds see to it
// that no two operations end at the same moment.
func latency(rng *rand.Rand) time.Duration {
	return 50*time.Microsecond + time.Duration(rng.ExpFloat64()*float64(300*time.Microsecond))
}

// errSilent is what an operation gets to which nobody answers.
var errSilent = syscall.ETIMEDOUT
