package site

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/rbdwarden/rbdwarden/image/lock"
	"github.com/rbdwarden/rbdwarden/rados"
)

const (
	headerPrefix = "rbd_header."
	dataPrefix   = "rbd_data."
	writtenXattr = "written" // on the header, what dataPrefix has as its bytes
)

// owner stands for the replay of an image: it takes the image's lock, and writes who it is for
// as long as it has it. Its writes to the data object are guarded by fencing alone, as those
// of a replayer are; those to the header assert the lock.
type owner struct {
	w    *worker
	key  key
	rng  *rand.Rand
	ctx  context.Context // ends when the image is let go
	stop context.CancelFunc

	mu   sync.Mutex
	lock *lock.Lock
}

func newOwner(w *worker, k key) *owner {
	o := &owner{w: w, key: k, rng: w.site.faults.dice(w.life, "owner of "+k.String())}
	o.ctx, o.stop = context.WithCancel(context.Background())
	return o
}

// valid tells whether the owner may write by what it knows.
func (o *owner) valid() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.lock != nil && o.lock.Valid()
}

func (o *owner) run() {
	for o.ctx.Err() == nil && o.w.runs(o.rng) {
		ctx, cancel := context.WithTimeout(o.ctx, time.Minute)
		l, err := lock.Acquire(ctx, o.w.io[o.key.namespace], o.key.id, lock.Options{
			Description: o.w.identity, WatchTimeout: 15 * time.Second,
			KnownDead: func(description string) bool { return o.w.knownDead(description) || o.w.Fenced(description) },
		})
		cancel()
		if err != nil {
			o.w.site.trace.Add("%s does not get %s: %v", o.w, o.key, err)
			o.refused(err)
			o.pause(time.Second)
			continue
		}
		o.mu.Lock()
		o.lock = l
		o.mu.Unlock()
		o.own(l)
		o.release(l)
		o.pause(200 * time.Millisecond)
	}
}

// own writes while the lock is held, and the image was not let go.
func (o *owner) own(l *lock.Lock) {
	s := o.w.site
	session := s.oracle.acquired(o)
	for serial := uint64(1); ; serial++ {
		wait := time.NewTimer(time.Duration(float64(s.set.hop) * (0.5 + o.rng.Float64())))
		select {
		case <-wait.C:
		case <-l.Lost():
		case <-o.ctx.Done():
		case <-o.w.gone:
		}
		wait.Stop()
		switch { // in this order, if several are so
		case o.w.isDead(), o.ctx.Err() != nil:
			return
		case isClosed(l.Lost()):
			o.refused(l.Cause())
			return
		}
		if !l.Valid() {
			continue
		}
		// Between the look and the write anything may happen.
		if err := o.write(l, session, serial); err != nil {
			o.refused(err)
		}
	}
}

func (o *owner) write(l *lock.Lock, session, serial uint64) error {
	value := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, session), serial)
	io := o.w.io[o.key.namespace]
	var op rados.WriteOp
	if o.rng.IntN(3) == 0 {
		op.Exec(l.AssertLocked())
		op.SetXattr(writtenXattr, value)
		return io.Write(context.Background(), headerPrefix+o.key.id, &op)
	}
	op.Write(0, value)
	return io.Write(context.Background(), dataPrefix+o.key.id, &op)
}

// release gives the lock up. None of the writes is under way.
func (o *owner) release(l *lock.Lock) {
	for !o.w.isDead() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		err := l.Release(ctx, nil)
		cancel()
		o.refused(err)
		if err == nil || o.w.isDead() {
			return
		}
		o.w.site.trace.Add("%s cannot let go of %s: %v", o.w, o.key, err)
		if !o.w.pause(time.Duration(float64(time.Second) * (0.5 + o.rng.Float64()))) {
			break
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = l.Abandon(ctx) // the process is dead; only this goroutine has to end
}

func (o *owner) pause(d time.Duration) {
	t := time.NewTimer(time.Duration(float64(d) * (0.5 + o.rng.Float64())))
	defer t.Stop()
	select {
	case <-o.ctx.Done():
	case <-o.w.gone:
	case <-t.C:
	}
}

// refused ends the worker if the cluster refuses its client.
func (o *owner) refused(err error) {
	if errors.Is(err, rados.Blocklisted) && !o.w.isDead() {
		o.w.fenced()
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
