package lock

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	cls "github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/ceph/notify"
	"github.com/rbdwarden/rbdwarden/rados"
)

// startWatch registers a watch and gives the cookie that goes with it. The watch
// before must be closed.
func (l *Lock) startWatch(ctx context.Context) (cookie string, err error) {
	l.mu.Lock()
	l.serial++
	h := &handler{l: l, serial: l.serial}
	l.watchErr = nil
	l.mu.Unlock()
	w, err := l.io.Watch(ctx, l.target.Object, l.opts.WatchTimeout, h)
	if err != nil {
		return "", fmt.Errorf("watch: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watch = w
	return cls.RBDCookie(w.Cookie()), nil
}

// closeWatch ends the watch, if there is one.
func (l *Lock) closeWatch(ctx context.Context) error {
	l.mu.Lock()
	w := l.watch
	l.watch = nil
	l.mu.Unlock()
	if w == nil {
		return nil
	}
	if err := w.Close(ctx); err != nil && !watchGone(err) {
		return fmt.Errorf("end of the watch on %s: %w", l.target.Object, err)
	}
	return nil
}

// watchGone tells whether an error of closing a watch says that it is gone anyway.
func watchGone(err error) bool {
	return errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.ENOENT) || errors.Is(err, rados.Blocklisted)
}

// handler gets the news of one watch.
type handler struct {
	l      *Lock
	serial int
}

// WatchLost implements rados.WatchHandler.
func (h *handler) WatchLost(err error) { h.l.watchFailed(h.serial, err) }

// watchFailed ends the validity of the lock, before anything else is done about
// it.
func (l *Lock) watchFailed(serial int, err error) {
	l.mu.Lock()
	if serial != l.serial || l.watchErr != nil {
		l.mu.Unlock()
		return
	}
	l.watchErr = err
	held := l.state == Held
	if held {
		l.state, l.cause = Suspended, err
		l.valid.Store(false)
	}
	l.mu.Unlock()
	if held {
		l.opts.Policy.Suspended(err)
		l.suspend <- err // there is room: the keeper takes it before the lock is held again
	}
	l.poke()
}

// Notified implements rados.WatchHandler.
func (h *handler) Notified(n rados.Notification) {
	// Whatever happens, the notifier must not be kept waiting. Only the first
	// acknowledgement counts.
	deferred := false
	defer func() {
		if !deferred {
			n.Ack(nil)
		}
	}()
	l := h.l
	m, err := notify.Decode(n.Payload)
	if err != nil {
		l.trouble(fmt.Errorf("notification of client.%d: %w", n.NotifierID, err))
		if l.Valid() {
			// It may be a request: without an answer, its sender would look for the
			// owner, and send it again, for ever.
			n.Ack(notify.Response{Result: -int32(syscall.EINVAL)}.Encode())
		}
		return
	}
	l.mu.Lock()
	r := react(l.state, l.clientIDLocked(), m.Payload)
	l.mu.Unlock()

	switch {
	case r.answer != nil:
		n.Ack(r.answer.Encode())
	case r.askPolicy:
		n.Ack(l.lockRequested(m.Payload.(notify.RequestLock).Force).Encode())
	case r.offer:
		deferred = l.offered(m.Payload, n.Ack)
	}
	if r.refresh {
		l.opts.Policy.HeaderUpdated()
	}
	if r.wake {
		l.poke()
	}
}

// lockRequested asks the policy and makes its answer known.
func (l *Lock) lockRequested(force bool) notify.Response {
	release, err := l.opts.Policy.LockRequested(force)
	if !release {
		return notify.Response{Result: -int32(errnoOr(err, syscall.EROFS))}
	}
	l.mu.Lock()
	if !l.asked {
		l.asked = true
		close(l.wanted)
	}
	l.mu.Unlock()
	return notify.Response{}
}

// errnoOr is the errno that err wraps, or else the given one.
func errnoOr(err error, otherwise syscall.Errno) syscall.Errno {
	var errno syscall.Errno
	if errors.As(err, &errno) && errno != 0 {
		return errno
	}
	return otherwise
}
