package replayer

import (
	"context"
	"errors"
	"sync/atomic"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/rados"
)

// A pulse counts what an effect gets done: the operations on either cluster that were
// answered for it. An effect that takes hours (a sync, a flatten, a shrink of a huge image)
// has one all the time; an effect that hangs has none. The count travels in the effect's
// context, so that what others do on the same connection, a lock's keeper for one, is no
// pulse of it.
type pulse struct{ beats atomic.Uint64 }

type pulseKey struct{}

// withPulse makes a context for an effect with that pulse.
func withPulse(ctx context.Context, p *pulse) context.Context {
	return context.WithValue(ctx, pulseKey{}, p)
}

// beat notes that an operation was answered. An error is no progress, but for an object
// that is not there: removing what has gone already gets on, too.
func beat(ctx context.Context, err error) {
	if err == nil || errors.Is(err, syscall.ENOENT) {
		if p, ok := ctx.Value(pulseKey{}).(*pulse); ok {
			p.beats.Add(1)
		}
	}
}

// pulsing is an I/O context whose answers are beats.
type pulsing struct{ rados.IOContext }

// Read implements rados.IOContext.
func (p pulsing) Read(ctx context.Context, object string, op *rados.ReadOp) error {
	err := p.IOContext.Read(ctx, object, op)
	beat(ctx, err)
	return err
}

// Write implements rados.IOContext.
func (p pulsing) Write(ctx context.Context, object string, op *rados.WriteOp) error {
	err := p.IOContext.Write(ctx, object, op)
	beat(ctx, err)
	return err
}

// CreateSnapID implements rados.IOContext.
func (p pulsing) CreateSnapID(ctx context.Context) (ceph.SnapID, error) {
	id, err := p.IOContext.CreateSnapID(ctx)
	beat(ctx, err)
	return id, err
}

// Cluster implements rados.IOContext: contexts that are opened from it, for an image's data
// pool or a parent's, have a pulse, too.
func (p pulsing) Cluster() rados.Cluster { return pulsingCluster{p.IOContext.Cluster()} }

type pulsingCluster struct{ rados.Cluster }

// Open implements rados.Cluster.
func (c pulsingCluster) Open(ctx context.Context, pool, namespace string) (rados.IOContext, error) {
	io, err := c.Cluster.Open(ctx, pool, namespace)
	if err != nil {
		return nil, err
	}
	return pulsing{io}, nil
}

// OpenID implements rados.Cluster.
func (c pulsingCluster) OpenID(ctx context.Context, pool int64, namespace string) (rados.IOContext, error) {
	io, err := c.Cluster.OpenID(ctx, pool, namespace)
	if err != nil {
		return nil, err
	}
	return pulsing{io}, nil
}
