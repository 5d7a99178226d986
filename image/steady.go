package image

import (
	"context"
	"errors"
	"sync/atomic"
	"syscall"

	"github.com/rbdwarden/rbdwarden/rados"
)

// steady lets a write that was started come to its end.
//
// A cancelled call of the port returns at once, while its operation may still land.
// An owner that gave up its lock then would write after the next owner has come. So a
// write is either not started, because its context has ended, or it is waited for; the
// connection's operation timeout bounds that. Where it ends with that timeout nobody
// knows whether the write will land, and the lock must not be released: see Image.Close.
type steady struct {
	rados.IOContext
	unsure *atomic.Bool // a write's outcome is unknown
}

// Write performs op unless ctx has ended.
func (s steady) Write(ctx context.Context, object string, op *rados.WriteOp) error {
	if err := ctx.Err(); err != nil {
		return &rados.Error{Op: "write", Pool: s.Pool().Name, Namespace: s.Namespace(), Object: object, Err: err}
	}
	err := s.IOContext.Write(context.WithoutCancel(ctx), object, op)
	if errors.Is(err, syscall.ETIMEDOUT) {
		s.unsure.Store(true)
	}
	return err
}
