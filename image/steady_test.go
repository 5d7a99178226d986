package image

import (
	"context"
	"errors"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/rados"
)

// slowPool is a pool whose writes take until they are let go; as librados, it returns
// early if the context ends, with the operation still under way.
type slowPool struct {
	rados.IOContext
	started chan struct{}
	letGo   chan error
	landed  atomic.Bool
}

func (p *slowPool) Pool() rados.Pool  { return rados.Pool{Name: "slow"} }
func (p *slowPool) Namespace() string { return "" }

func (p *slowPool) Write(ctx context.Context, _ string, _ *rados.WriteOp) error {
	p.started <- struct{}{}
	select {
	case err := <-p.letGo:
		p.landed.Store(err == nil)
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A write that was started is waited for, so that nothing lands after its owner has
// gone on to give up the lock.
func TestStartedWritesAreWaitedFor(t *testing.T) {
	pool := &slowPool{started: make(chan struct{}), letGo: make(chan error)}
	var unsure atomic.Bool
	io := steady{pool, &unsure}
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- io.Write(ctx, "o", new(rados.WriteOp)) }()
	<-pool.started
	cancel()
	select {
	case err := <-result:
		t.Fatalf("returned %v with the write under way", err)
	case <-time.After(50 * time.Millisecond):
	}
	pool.letGo <- nil
	if err := <-result; err != nil || !pool.landed.Load() || unsure.Load() {
		t.Errorf("err %v, landed %v, unsure %v", err, pool.landed.Load(), unsure.Load())
	}
	if err := io.Write(ctx, "o", new(rados.WriteOp)); !errors.Is(err, context.Canceled) {
		t.Errorf("a write was started after the end: %v", err)
	}
}

// A timed out write may still land: the lock must not be released.
func TestTimedOutWriteForbidsClose(t *testing.T) {
	pool := &slowPool{started: make(chan struct{}, 1), letGo: make(chan error, 1)}
	im := &Image{object: &objectMap{id: "i"}}
	pool.letGo <- syscall.ETIMEDOUT
	if err := (steady{pool, &im.unsure}).Write(context.Background(), "o", new(rados.WriteOp)); !errors.Is(err, syscall.ETIMEDOUT) {
		t.Fatal(err)
	}
	if err := im.Close(context.Background()); !errors.Is(err, ErrUnsure) {
		t.Errorf("Close: %v", err)
	}
}
