package lock

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/class"
	cls "github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/ceph/notify"
	"github.com/rbdwarden/rbdwarden/rados"
)

// Lock is a lock that this process has taken. It is safe for use by many
// goroutines. It must be ended by Release or Abandon, also when it is lost.
type Lock struct {
	io     rados.IOContext
	target Target
	opts   Options

	valid   atomic.Bool   // state == Held, for readers in a hurry
	lost    chan struct{} // closed when the lock is lost
	wanted  chan struct{} // closed when the policy has agreed to release
	wake    chan struct{} // cap 1: the lock may have become free, or the watch has failed
	suspend chan error    // cap 1: the watch has failed while the lock was held

	run    context.Context // ends when the lock is no longer kept up
	stop   context.CancelFunc
	keeper sync.WaitGroup // what keeps the lock up
	errand sync.WaitGroup // announcements and operations under way

	ending chan struct{} // cap 1: full while Release or Abandon is at work

	mu       sync.Mutex
	state    State
	cause    error // why it is suspended or lost
	watch    rados.Watch
	watchErr error    // why that watch has ended
	serial   int      // of the watch, to tell late news of an older one
	cookie   string   // what the lock is held with
	tried    []string // cookies that a change of unknown outcome may have set
	asked    bool     // wanted is closed
	closing  bool     // no more errands
	requests requests
}

func newLock(io rados.IOContext, t Target, opts Options) *Lock {
	l := &Lock{
		io: io, target: t, opts: opts.withDefaults(io.Cluster()),
		lost:    make(chan struct{}),
		wanted:  make(chan struct{}),
		wake:    make(chan struct{}, 1),
		suspend: make(chan error, 1),
		ending:  make(chan struct{}, 1),
		state:   Acquiring,
	}
	l.run, l.stop = context.WithCancel(context.Background())
	return l
}

// Valid tells whether the owner may start a write: the lock is held and the watch
// that proves it is alive. See the package on what that is worth.
func (l *Lock) Valid() bool { return l.valid.Load() }

// State is where in its life the lock is.
func (l *Lock) State() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// Lost is closed when the lock is gone for good without Release. Cause tells why.
func (l *Lock) Lost() <-chan struct{} { return l.lost }

// Cause is why the lock is lost, or suspended at the moment; nil otherwise. It
// wraps ErrTaken when another client has the lock, rados.Blocklisted when this
// client is fenced (it must end and start again with a new connection), ENOENT
// when the image is gone.
func (l *Lock) Cause() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cause
}

// ReleaseRequested is closed when another client has been promised the lock. The
// owner must call Release soon.
func (l *Lock) ReleaseRequested() <-chan struct{} { return l.wanted }

// Cookie is what the lock is held with, "auto <watch handle>". It changes when the
// lock is suspended and resumed.
func (l *Lock) Cookie() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cookie
}

// AssertLocked is a step that fails with EBUSY unless this lock is held by us. As
// the first step of a write to the locked object it makes the write impossible for
// an owner that has lost the lock. Ask for it anew for every operation.
func (l *Lock) AssertLocked() class.Call {
	return cls.Assert(l.target.Name, cls.Exclusive, l.Cookie(), l.target.Tag)
}

// Verify asks the object whether the lock is ours: nil, or an error that wraps
// ErrTaken if it is not.
func (l *Lock) Verify(ctx context.Context) error {
	var op rados.ReadOp
	op.Exec(l.AssertLocked())
	err := l.io.Read(ctx, l.target.Object, &op)
	if errors.Is(err, syscall.EBUSY) {
		return fmt.Errorf("%w: %w", ErrTaken, err)
	}
	return err
}

// Release gives the lock up. First writes become invalid, then quiesce (may be
// nil) is called: it must return when none of the owner's writes is under way any
// more. Only then the lock is unlocked, so that nothing lands after the next
// owner has come.
//
// If quiesce or the unlocking fails, the lock stays in the state releasing and
// Release may be called again. Of a lock that is lost, it just ends the watch.
func (l *Lock) Release(ctx context.Context, quiesce func(context.Context) error) error {
	l.ending <- struct{}{}
	defer func() { <-l.ending }()
	switch was := l.becomeReleasing(); was {
	case Released:
		return nil
	case Lost:
		return l.finish(ctx)
	}
	l.stop()
	l.keeper.Wait()
	// Operations for others are the owner's writes, too; they have been told to stop.
	if err := l.endErrands(ctx); err != nil {
		return fmt.Errorf("release of the lock on %s: operations are still under way: %w", l.target.Object, err)
	}
	if quiesce != nil {
		if err := quiesce(ctx); err != nil {
			return fmt.Errorf("release of the lock on %s: writes are still under way: %w", l.target.Object, err)
		}
	}
	if err := l.unlock(ctx); err != nil {
		return err
	}
	l.announce(ctx, notify.ReleasedLock{Client: l.clientID()})
	return l.finish(ctx)
}

// Abandon ends the watch and leaves the lock where it is, for an owner that cannot
// say which of its writes are under way. A later Acquire over the same connection
// adopts the lock; anybody else's blocklists this whole connection.
func (l *Lock) Abandon(ctx context.Context) error {
	l.ending <- struct{}{}
	defer func() { <-l.ending }()
	if l.becomeReleasing() == Released {
		return nil
	}
	l.stop()
	l.keeper.Wait()
	return l.finish(ctx)
}

// becomeReleasing ends the state in which writes are valid and tells the state
// before. Lost and Released stay as they are.
func (l *Lock) becomeReleasing() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.state
	l.valid.Store(false)
	if was != Lost && was != Released {
		l.state = ReleasingLock
	}
	return was
}

// unlock gives up the lock under every cookie that it may have.
func (l *Lock) unlock(ctx context.Context) error {
	l.mu.Lock()
	cookies := append([]string{l.cookie}, l.tried...)
	l.mu.Unlock()
	for _, c := range cookies {
		if c == "" {
			continue // never held
		}
		err := rados.Tell(ctx, l.io, l.target.Object, cls.Unlock(l.target.Name, c))
		// ENOENT: that is not, or no longer, the lock's cookie, or the image is
		// gone. Blocklisted: somebody has taken the lock from us.
		if err != nil && !errors.Is(err, syscall.ENOENT) && !errors.Is(err, rados.Blocklisted) {
			return fmt.Errorf("unlock: %w", err)
		}
	}
	return nil
}

// finish ends the watch and everything that runs. The lock is released even if
// the watch cannot be ended in time; then the OSD drops it when this process ends.
func (l *Lock) finish(ctx context.Context) error {
	l.stop()
	err := errors.Join(l.closeWatch(ctx), l.endErrands(ctx))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.valid.Store(false)
	l.state = Released
	return err
}

// clientID is how our messages name us.
func (l *Lock) clientID() notify.ClientID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.clientIDLocked()
}

func (l *Lock) clientIDLocked() notify.ClientID {
	id := notify.ClientID{GlobalID: l.io.Cluster().InstanceID()}
	if l.watch != nil {
		id.Handle = l.watch.Cookie()
	}
	return id
}

// announce sends a notification that needs no answer. That some watcher does not
// acknowledge it in time is that watcher's trouble.
func (l *Lock) announce(ctx context.Context, p notify.Payload) {
	ctx, cancel := context.WithTimeout(ctx, l.opts.NotifyTimeout+time.Second)
	defer cancel()
	if _, err := l.io.Notify(ctx, l.target.Object, notify.Encode(p), l.opts.NotifyTimeout); err != nil {
		l.trouble(fmt.Errorf("announce %v: %w", p.Op(), err))
	}
}

// goErrand runs f in the background, unless the lock is ending.
func (l *Lock) goErrand(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closing {
		l.errand.Go(f)
	}
	return !l.closing
}

// endErrands starts no more of them and waits for those under way.
func (l *Lock) endErrands(ctx context.Context) error {
	l.mu.Lock()
	l.closing = true
	l.mu.Unlock()
	done := make(chan struct{})
	go func() {
		l.errand.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *Lock) trouble(err error) {
	l.opts.Trouble(fmt.Errorf("lock on %s: %w", l.target.Object, err))
}

// poke makes whoever waits look again.
func (l *Lock) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// sleep waits for a time, for a poke or for the context, whose error it returns.
func (l *Lock) sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.wake:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}
