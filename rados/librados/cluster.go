package librados

/*
#include <stdlib.h>
#include <rados/librados.h>
#include "shim.h"
*/
import "C"

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"

	goceph "github.com/ceph/go-ceph/rados"

	"github.com/rbdwarden/rbdwarden/rados"
)

// blockingCalls bounds the OS threads that one connection's calls without an
// asynchronous form may hold.
const blockingCalls = 8

// closeGrace is how long Close waits for operations under way to come back. What is
// left then is waited for in the background.
const closeGrace = 5 * time.Second

// Cluster is a connection to a Ceph cluster. It implements rados.Cluster.
type Cluster struct {
	fences fences

	conn      *goceph.Conn
	name      string
	fsid      string
	instance  uint64
	addresses string

	slots    chan struct{} // operations under way
	blocking chan struct{} // calls that hold a thread

	closing chan struct{}
	drained chan struct{} // closed when nothing uses conn any more
	mu      sync.Mutex
	closed  bool
	uses    int // calls under way and I/O contexts with their handles
	ios     map[*ioContext]struct{}
}

var _ rados.Cluster = (*Cluster)(nil)

// Native is go-ceph's connection. It is c's: do not shut it down.
func (c *Cluster) Native() *goceph.Conn { return c.conn }

// FSID is the cluster's unique id.
func (c *Cluster) FSID() string { return c.fsid }

// InstanceID is the connection's global id.
func (c *Cluster) InstanceID() uint64 { return c.instance }

// Addresses is the connection's own address vector.
func (c *Cluster) Addresses() string { return c.addresses }

func (c *Cluster) fail(op string, err error) error {
	return &rados.Error{Op: op, Pool: "cluster " + c.name, Err: err}
}

// enter keeps conn alive until exit; false after Close.
func (c *Cluster) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.uses++
	return true
}

func (c *Cluster) exit() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.uses--
	if c.closed && c.uses == 0 {
		close(c.drained)
	}
}

func (c *Cluster) forget(io *ioContext) {
	c.mu.Lock()
	delete(c.ios, io)
	c.mu.Unlock()
	c.exit()
}

// call runs f, which may block in librados, and returns when it has or when ctx or
// the connection ends.
func call[T any](ctx context.Context, c *Cluster, f func() (T, error)) (T, error) {
	return callDiscard(ctx, c, f, func(T) {})
}

// callDiscard is call for a result that has to be got rid of if the caller has left.
func callDiscard[T any](ctx context.Context, c *Cluster, f func() (T, error), discard func(T)) (T, error) {
	var none T
	if err := ctx.Err(); err != nil {
		return none, err
	}
	select {
	case c.blocking <- struct{}{}:
	case <-ctx.Done():
		return none, ctx.Err()
	case <-c.closing:
		return none, errClosed
	}
	if !c.enter() {
		<-c.blocking
		return none, errClosed
	}
	type answer struct {
		value T
		err   error
	}
	ch := make(chan answer)      // not buffered: either the caller takes the answer, or it has left
	left := make(chan uint64, 1) // the call's number among the abandoned
	go func() {
		v, err := f()
		select {
		case ch <- answer{v, fromGoCeph(err)}:
		case id := <-left:
			abandoned.remove(id)
			if err == nil {
				discard(v)
			}
		}
		<-c.blocking
		c.exit()
	}()
	select {
	case a := <-ch:
		return a.value, a.err
	case <-ctx.Done():
		left <- abandoned.add()
		return none, ctx.Err()
	case <-c.closing:
		left <- abandoned.add()
		return none, errClosed
	}
}

// Pools lists the pools.
func (c *Cluster) Pools(ctx context.Context) ([]rados.Pool, error) {
	pools, err := call(ctx, c, func() ([]rados.Pool, error) {
		names, err := c.conn.ListPools()
		if err != nil {
			return nil, err
		}
		out := make([]rados.Pool, 0, len(names))
		for _, name := range names {
			id, err := c.conn.GetPoolByName(name)
			if errors.Is(fromGoCeph(err), syscall.ENOENT) {
				continue // removed meanwhile
			}
			if err != nil {
				return nil, err
			}
			out = append(out, rados.Pool{ID: id, Name: name})
		}
		return out, nil
	})
	if err != nil {
		return nil, c.fail("list pools", err)
	}
	return pools, nil
}

// Open opens a pool by name.
func (c *Cluster) Open(ctx context.Context, pool, namespace string) (rados.IOContext, error) {
	io, err := c.open(ctx, namespace, func() (string, error) { return pool, nil })
	if err != nil {
		return nil, &rados.Error{Op: "open pool", Cluster: c.name, Pool: pool, Namespace: namespace, Err: err}
	}
	return io, nil
}

// OpenID opens a pool by id.
func (c *Cluster) OpenID(ctx context.Context, pool int64, namespace string) (rados.IOContext, error) {
	io, err := c.open(ctx, namespace, func() (string, error) { return c.conn.GetPoolByID(pool) })
	if err == nil && io.Pool().ID != pool {
		io.Close() // renamed and its name taken by another pool, in this moment
		err = syscall.ENOENT
	}
	if err != nil {
		return nil, c.fail("open pool by id", err)
	}
	return io, nil
}

func (c *Cluster) open(ctx context.Context, namespace string, name func() (string, error)) (*ioContext, error) {
	return callDiscard(ctx, c, func() (*ioContext, error) {
		pool, err := name()
		if err != nil {
			return nil, err
		}
		return c.openNow(pool, namespace)
	}, (*ioContext).Close)
}

func (c *Cluster) openNow(pool, namespace string) (*ioContext, error) {
	native, err := c.conn.OpenIOContext(pool)
	if err != nil {
		return nil, err
	}
	native.SetNamespace(namespace)
	h := C.warden_io_open(native.Pointer(), unsafe.Pointer(c.conn.Cluster()))
	if h == nil {
		native.Destroy()
		return nil, syscall.ENOMEM
	}
	io := &ioContext{
		cluster: c, native: native, h: h, namespace: namespace,
		pool:    rados.Pool{ID: native.GetPoolID(), Name: pool},
		watches: make(map[*watch]struct{}),
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		C.warden_io_close(h)
		native.Destroy()
		return nil, errClosed
	}
	c.uses++
	c.ios[io] = struct{}{}
	return io, nil
}

// MonCommand sends a command to the monitors.
func (c *Cluster) MonCommand(ctx context.Context, cmd map[string]any, input []byte) ([]byte, string, error) {
	out, status, err := c.monCommand(ctx, cmd, input)
	if err != nil {
		prefix, _ := cmd["prefix"].(string)
		return out, status, c.fail("mon command "+prefix, err)
	}
	return out, status, nil
}

func (c *Cluster) monCommand(ctx context.Context, cmd map[string]any, input []byte) ([]byte, string, error) {
	b, err := json.Marshal(cmd)
	if err != nil {
		return nil, "", err
	}
	input = append([]byte(nil), input...) // the call may outlive the caller's interest
	type reply struct {
		out    []byte
		status string
	}
	r, err := call(ctx, c, func() (reply, error) {
		out, status, err := c.conn.MonCommandWithInputBuffer(b, input)
		return reply{out, status}, err
	})
	return r.out, r.status, err
}

// Option reads a configuration option.
func (c *Cluster) Option(name string) (string, error) {
	if !c.enter() {
		return "", c.fail("read option "+name, errClosed)
	}
	defer c.exit()
	v, err := c.conn.GetConfigOption(name)
	if err != nil {
		return "", c.fail("read option "+name, fromGoCeph(err))
	}
	return v, nil
}

// Blocklist makes the OSDs refuse a client. An entry that this connection made a moment
// ago is not made again.
func (c *Cluster) Blocklist(ctx context.Context, address string, expire time.Duration) error {
	return c.fences.of(address).once(time.Now, expire, func() error { return c.blocklist(ctx, address, expire) })
}

func (c *Cluster) blocklist(ctx context.Context, address string, expire time.Duration) error {
	// "blacklist" until Nautilus, "blocklist" from Octopus' last releases on
	// (src/mon/MonCommands.h).
	var err error
	for _, word := range [...]string{"blocklist", "blacklist"} {
		cmd := map[string]any{"prefix": "osd " + word, word + "op": "add", "addr": address}
		if expire > 0 {
			// The monitors take a float, and nothing that looks like an integer.
			cmd["expire"] = json.Number(strconv.FormatFloat(math.Ceil(expire.Seconds()), 'f', 1, 64))
		}
		_, status, e := c.monCommand(ctx, cmd, nil)
		if e == nil || err == nil {
			err = e
			if status != "" && e != nil {
				err = fmt.Errorf("%w: %s", e, status)
			}
		}
		if !errors.Is(e, syscall.EINVAL) {
			break
		}
	}
	if err == nil {
		err = c.waitForLatestMap(ctx)
	}
	if err != nil {
		return c.fail("blocklist "+address, err)
	}
	return nil
}

// WaitForLatestMap waits until this client has the newest OSD map.
func (c *Cluster) WaitForLatestMap(ctx context.Context) error {
	if err := c.waitForLatestMap(ctx); err != nil {
		return c.fail("wait for the OSD map", err)
	}
	return nil
}

func (c *Cluster) waitForLatestMap(ctx context.Context) error {
	// librados' own wait has no timeout, so first make sure, with one, that a
	// monitor answers.
	// Whatever it answers, EACCES included, will do.
	_, _, err := c.monCommand(ctx, map[string]any{"prefix": "osd stat"}, nil)
	if errors.Is(err, syscall.ETIMEDOUT) || ctx.Err() != nil {
		return err
	}
	_, err = call(ctx, c, func() (struct{}, error) { return struct{}{}, c.conn.WaitForLatestOSDMap() })
	return err
}

// RegisterService shows this client in the service map.
func (c *Cluster) RegisterService(ctx context.Context, service, id string, metadata map[string]string) error {
	dict, err := dictionary(metadata)
	if err == nil {
		_, err = call(ctx, c, func() (struct{}, error) {
			s, i := C.CString(service), C.CString(id)
			defer C.free(unsafe.Pointer(s))
			defer C.free(unsafe.Pointer(i))
			return struct{}{}, errnoOf(C.rados_service_register(c.handle(), s, i, chars(dict)))
		})
	}
	if err != nil {
		return c.fail("register service "+service+" "+id, err)
	}
	return nil
}

// UpdateService replaces the service's status.
func (c *Cluster) UpdateService(ctx context.Context, status map[string]string) error {
	dict, err := dictionary(status)
	if err == nil {
		_, err = call(ctx, c, func() (struct{}, error) {
			return struct{}{}, errnoOf(C.rados_service_update_status(c.handle(), chars(dict)))
		})
	}
	if err != nil {
		return c.fail("update service status", err)
	}
	return nil
}

func (c *Cluster) handle() C.rados_t { return C.rados_t(unsafe.Pointer(c.conn.Cluster())) }

func chars(b []byte) *C.char { return (*C.char)(unsafe.Pointer(unsafe.SliceData(b))) }

func errnoOf(r C.int) error {
	if r < 0 {
		return syscall.Errno(-r)
	}
	return nil
}

// Close ends the connection. Calls under way fail with ENOTCONN at once. Close
// waits a few seconds until librados has let go of them; a cluster that does not
// answer delays the clean-up (in the background), not the caller.
func (c *Cluster) Close() {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.closed = true
	if c.uses == 0 {
		close(c.drained)
	}
	ios := make([]*ioContext, 0, len(c.ios))
	for io := range c.ios {
		ios = append(ios, io)
	}
	c.mu.Unlock()
	close(c.closing)
	for _, io := range ios {
		io.closeWatches()
		io.Close()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-c.drained
		shutdown(c.conn)
	}()
	select {
	case <-done:
	case <-time.After(closeGrace):
	}
}

// shutdown frees a connection, connected or not. go-ceph does not free one that
// never connected before the garbage collector finds it.
func shutdown(conn *goceph.Conn) {
	runtime.SetFinalizer(conn, nil)
	C.rados_shutdown(C.rados_t(unsafe.Pointer(conn.Cluster())))
}
