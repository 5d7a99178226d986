package librados

/*
#include <stdlib.h>
#include "shim.h"
*/
import "C"

import (
	"context"
	"sync"
	"syscall"
	"unsafe"

	goceph "github.com/ceph/go-ceph/rados"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/rados"
)

// ioContext implements rados.IOContext.
type ioContext struct {
	cluster   *Cluster
	pool      rados.Pool
	namespace string
	native    *goceph.IOContext
	h         *C.warden_io

	mu      sync.Mutex
	uses    int // operations under way and watches
	closed  bool
	watches map[*watch]struct{}
}

var _ rados.IOContext = (*ioContext)(nil)

// Native gives go-ceph's I/O context of io, for go-ceph/rbd. It is io's: do not
// destroy it, and do not use it after io.Close unless it is held (see Hold). ok is
// false if io is not of this package.
func Native(io rados.IOContext) (native *goceph.IOContext, ok bool) {
	c, ok := io.(*ioContext)
	if !ok {
		return nil, false
	}
	return c.native, true
}

// Hold keeps io's handles, and the connection under them, alive until release is
// called, even if they are closed meanwhile: for calls into librbd that cannot be
// taken back. ok is false if io is closed or not of this package.
func Hold(io rados.IOContext) (release func(), ok bool) {
	c, ok := io.(*ioContext)
	if !ok || !c.enter() {
		return nil, false
	}
	return c.exit, true
}

func (io *ioContext) Pool() rados.Pool       { return io.pool }
func (io *ioContext) Namespace() string      { return io.namespace }
func (io *ioContext) Cluster() rados.Cluster { return io.cluster }

// enter keeps the handles alive until exit; false after Close.
func (io *ioContext) enter() bool {
	io.mu.Lock()
	defer io.mu.Unlock()
	if io.closed {
		return false
	}
	io.uses++
	return true
}

func (io *ioContext) exit() {
	io.mu.Lock()
	io.uses--
	last := io.closed && io.uses == 0
	io.mu.Unlock()
	if last {
		// Perhaps in a callback of librados, which still uses the handle.
		go io.release()
	}
}

// Close lets operations under way end by themselves; the handles go with the
// last of them.
func (io *ioContext) Close() {
	io.mu.Lock()
	already := io.closed
	io.closed = true
	last := !already && io.uses == 0
	io.mu.Unlock()
	if last {
		io.release()
	}
}

func (io *ioContext) release() {
	C.warden_io_close(io.h)
	io.native.Destroy()
	io.cluster.forget(io)
}

func oid(object string) (*C.char, C.uint64_t) {
	return (*C.char)(unsafe.Pointer(unsafe.StringData(object))), C.uint64_t(len(object))
}

func flatBytes(b []byte) (*C.uint8_t, C.uint64_t) {
	return (*C.uint8_t)(unsafe.Pointer(unsafe.SliceData(b))), C.uint64_t(len(b))
}

func (io *ioContext) Write(ctx context.Context, object string, op *rados.WriteOp) error {
	if err := io.write(ctx, object, op); err != nil {
		return io.fail(writeLabel(op), object, err)
	}
	return nil
}

func (io *ioContext) write(ctx context.Context, object string, op *rados.WriteOp) error {
	if object == "" {
		return syscall.EINVAL
	}
	p, err := io.begin(ctx)
	if err != nil {
		return err
	}
	if err := p.flat.write(op); err != nil {
		p.drop()
		return err
	}
	p.bare = true
	name, nameLen := oid(object)
	flat, flatLen := flatBytes(p.flat.buf)
	return p.do(ctx, C.warden_write(io.h, p.token(), name, nameLen, flat, flatLen, &p.op))
}

func (io *ioContext) Read(ctx context.Context, object string, op *rados.ReadOp) error {
	if err := io.read(ctx, object, op); err != nil {
		return io.fail(readLabel(op), object, err)
	}
	return nil
}

func (io *ioContext) read(ctx context.Context, object string, op *rados.ReadOp) error {
	if object == "" {
		return syscall.EINVAL
	}
	p, err := io.begin(ctx)
	if err != nil {
		return err
	}
	if err := p.flat.read(op); err != nil {
		p.drop()
		return err
	}
	name, nameLen := oid(object)
	flat, flatLen := flatBytes(p.flat.buf)
	r, err := p.wait(ctx, C.warden_read(io.h, p.token(), name, nameLen, flat, flatLen, &p.op))
	if err != nil {
		return err
	}
	defer p.finish()
	if r < 0 {
		return resultError(r)
	}
	res := openResults(p.op)
	for _, s := range op.Steps {
		if err := res.step(s); err != nil {
			return err
		}
	}
	return nil
}

func (io *ioContext) CreateSnapID(ctx context.Context) (ceph.SnapID, error) {
	id, err := io.createSnapID(ctx)
	if err != nil {
		return 0, io.fail("create snapshot id", "", err)
	}
	return id, nil
}

func (io *ioContext) createSnapID(ctx context.Context) (ceph.SnapID, error) {
	p, err := io.begin(ctx)
	if err != nil {
		return 0, err
	}
	p.cancellable = false // the monitors are asked, not an OSD
	r, err := p.wait(ctx, C.warden_snap_create(io.h, p.token(), &p.op))
	if err != nil {
		return 0, err
	}
	defer p.finish()
	if r < 0 {
		return 0, resultError(r)
	}
	return ceph.SnapID(C.warden_op_snap(p.op)), nil
}

func (io *ioContext) RemoveSnapID(ctx context.Context, id ceph.SnapID) error {
	if err := io.removeSnapID(ctx, id); err != nil {
		return io.fail("remove snapshot id", "", err)
	}
	return nil
}

func (io *ioContext) removeSnapID(ctx context.Context, id ceph.SnapID) error {
	p, err := io.begin(ctx)
	if err != nil {
		return err
	}
	p.cancellable = false
	p.bare = true
	return p.do(ctx, C.warden_snap_remove(io.h, p.token(), C.uint64_t(id), &p.op))
}

// List holds an OS thread while it waits for the cluster, as librados has no
// asynchronous form; each step of it is bounded by the operation timeout.
func (io *ioContext) List(ctx context.Context, fn func(object string) error) error {
	err := io.list(ctx, fn)
	if err != nil {
		return io.fail("list", "", err)
	}
	return nil
}

func (io *ioContext) list(ctx context.Context, fn func(object string) error) error {
	if !io.enter() {
		return errClosed
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	names := make(chan string, 256)
	end := make(chan error, 1)
	go func() {
		defer io.exit()
		defer close(names)
		it, err := io.native.Iter()
		if err != nil {
			end <- fromGoCeph(err)
			return
		}
		defer it.Close()
		for it.Next() {
			select {
			case names <- it.Value():
			case <-ctx.Done():
				end <- ctx.Err()
				return
			case <-io.cluster.closing:
				end <- errClosed
				return
			}
		}
		end <- fromGoCeph(it.Err())
	}()
	for {
		select {
		case name, ok := <-names:
			if !ok {
				return <-end
			}
			if err := fn(name); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		case <-io.cluster.closing:
			return errClosed
		}
	}
}
