package lock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	cls "github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rhythm"
)

// keep keeps the lock up: it looks after the watch, and wins it back. It ends with
// the lock.
func (l *Lock) keep() {
	tick := rhythm.NewTicker(l.opts.CheckInterval)
	defer tick.Stop()
	for {
		select {
		case <-l.run.Done():
			return
		case <-tick.C:
			l.checkWatch()
			tick.Next()
		case cause := <-l.suspend:
			if !l.winBack(cause) {
				return
			}
		}
	}
}

// checkWatch notices a watch that nobody confirms any more. A client that is cut
// off from the OSD hears of no error, while others see it vanish.
func (l *Lock) checkWatch() {
	l.mu.Lock()
	w, serial := l.watch, l.serial
	l.mu.Unlock()
	if w == nil {
		return
	}
	age, err := w.Check()
	if err == nil && age > l.opts.staleAfter() {
		err = fmt.Errorf("the watch was not confirmed for %v: %w", age.Round(time.Millisecond), syscall.ENOTCONN)
	}
	if err != nil {
		l.watchFailed(serial, err)
	}
}

// winBack renews the watch and puts its handle into the lock's cookie
// (src/librbd/watcher/RewatchRequest.cc, managed_lock/ReacquireRequest.cc). False
// if the lock is lost or given up.
func (l *Lock) winBack(cause error) bool {
	ctx, cancel := context.WithTimeout(l.run, l.opts.ReacquireTimeout)
	defer cancel()
	err := cause
	for !hopeless(err) {
		if err = l.renew(ctx); err == nil {
			l.opts.Policy.HeaderUpdated() // we may have missed news
			return true
		}
		if hopeless(err) {
			break
		}
		if l.sleep(ctx, l.opts.RetryDelay) != nil {
			if l.run.Err() != nil {
				return false // Release or Abandon
			}
			err = fmt.Errorf("not won back within %v: %w", l.opts.ReacquireTimeout, err)
			break
		}
	}
	l.becomeLost(err)
	return false
}

// hopeless tells whether trying again cannot help.
func hopeless(err error) bool {
	return errors.Is(err, rados.Blocklisted) || errors.Is(err, syscall.ENOENT) || errors.Is(err, ErrTaken)
}

// renew is one attempt to get back from suspended to held.
func (l *Lock) renew(ctx context.Context) error {
	cookie, err := l.freshWatch(ctx)
	if err != nil {
		return err
	}
	l.mu.Lock()
	old := l.cookie
	tried := slices.Clone(l.tried)
	l.mu.Unlock()

	s, err := l.look(ctx, cookie)
	if err != nil {
		return err
	}
	// An earlier attempt may have changed the cookie without our hearing of it.
	ours := slices.IndexFunc(s.Info.Lockers, func(o cls.Locker) bool {
		return o.Entity == cls.ClientName(s.Self) && s.Info.Tag == s.Tag &&
			(o.Cookie == old || o.Cookie == cookie || slices.Contains(tried, o.Cookie))
	})
	if ours < 0 {
		return fmt.Errorf("%w: %s", ErrTaken, describe(s.Info))
	}
	if current := s.Info.Lockers[ours].Cookie; current != cookie {
		l.mayHold(cookie)
		err = rados.Tell(ctx, l.io, l.target.Object,
			cls.SetCookie(l.target.Name, cls.Exclusive, current, l.target.Tag, cookie))
		if errors.Is(err, syscall.EBUSY) {
			return fmt.Errorf("%w: %w", ErrTaken, err)
		}
		if err != nil {
			return err
		}
	}
	if !l.becomeHeld(cookie) {
		return fmt.Errorf("the new watch has ended: %w", syscall.ENOTCONN)
	}
	return nil
}

// describe tells who holds the lock.
func describe(i cls.Info) string {
	if len(i.Lockers) == 0 {
		return "nobody holds it now"
	}
	o := i.Lockers[0]
	return fmt.Sprintf("%s at %s holds it now", o.Entity, o.Address.Blocklist())
}

// becomeLost ends the lock for good.
func (l *Lock) becomeLost(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state != Suspended {
		return // Release has come first
	}
	l.state = Lost
	l.cause = fmt.Errorf("the lock on %s is lost: %w", l.target.Object, cause)
	close(l.lost)
}
