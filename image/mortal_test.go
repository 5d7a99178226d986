package image

import (
	"context"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/rados"
)

// errKilled is what a mortal IOContext answers after its end.
var errKilled = fmt.Errorf("killed by the test: %w", syscall.ETIMEDOUT)

// mortal is an IOContext that dies after some writes: what comes later has no
// effect, as if the process had been killed.
type mortal struct {
	rados.IOContext
	left *atomic.Int64 // writes until the end
}

func newMortal(io rados.IOContext, writes int64) mortal {
	m := mortal{IOContext: io, left: new(atomic.Int64)}
	m.left.Store(writes)
	return m
}

// spend is an error if the end has come.
func (m mortal) spend() error {
	if m.left.Add(-1) < 0 {
		return errKilled
	}
	return nil
}

func (m mortal) Read(ctx context.Context, object string, op *rados.ReadOp) error {
	if m.left.Load() < 0 {
		return errKilled
	}
	return m.IOContext.Read(ctx, object, op)
}

func (m mortal) Write(ctx context.Context, object string, op *rados.WriteOp) error {
	if err := m.spend(); err != nil {
		return err
	}
	return m.IOContext.Write(ctx, object, op)
}

func (m mortal) CreateSnapID(ctx context.Context) (ceph.SnapID, error) {
	if err := m.spend(); err != nil {
		return 0, err
	}
	return m.IOContext.CreateSnapID(ctx)
}

func (m mortal) RemoveSnapID(ctx context.Context, id ceph.SnapID) error {
	if err := m.spend(); err != nil {
		return err
	}
	return m.IOContext.RemoveSnapID(ctx, id)
}

func (m mortal) Notify(ctx context.Context, object string, payload []byte, timeout time.Duration) (rados.NotifyReply, error) {
	if m.left.Load() < 0 {
		return rados.NotifyReply{}, errKilled
	}
	return m.IOContext.Notify(ctx, object, payload, timeout)
}
