package lock

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	cls "github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/ceph/notify"
	"github.com/rbdwarden/rbdwarden/rados"
)

// Acquire takes the exclusive lock of the image with that id. It waits for an
// owner that is about to release it and fences a dead one, until the context
// ends. Errors, besides those of RADOS: a *RefusedError if the owner will not
// release the lock, a *ForeignError if it is held in a way that we may not break,
// ENOENT if there is no such image.
func Acquire(ctx context.Context, io rados.IOContext, imageID string, opts Options) (*Lock, error) {
	return AcquireTarget(ctx, io, Header(imageID), opts)
}

// AcquireTarget is Acquire for any lock that is kept in librbd's way.
func AcquireTarget(ctx context.Context, io rados.IOContext, t Target, opts Options) (*Lock, error) {
	l := newLock(io, t, opts)
	if err := l.acquire(ctx); err != nil {
		l.undo()
		return nil, fmt.Errorf("acquire the lock on %s: %w", t.Object, err)
	}
	return l, nil
}

// undo removes what a failed acquire may have left behind, even if its last
// operation is still under way: the object's operations are applied in order.
func (l *Lock) undo() {
	ctx, cancel := context.WithTimeout(context.Background(), l.opts.CleanupTimeout)
	defer cancel()
	l.mu.Lock()
	l.state = ReleasingLock
	mayHold := l.cookie != "" || len(l.tried) > 0
	l.mu.Unlock()
	if mayHold {
		if err := l.unlock(ctx); err != nil {
			l.trouble(err)
		}
	}
	if err := l.finish(ctx); err != nil {
		l.trouble(err)
	}
}

// acquire runs until the lock is held, and starts what keeps it up.
func (l *Lock) acquire(ctx context.Context) error {
	var last error // what we were waiting for
	var death cls.DeathWatch
	for {
		held, err := l.attempt(ctx, &death, &last)
		switch {
		case held:
			return nil
		case err == nil:
		case ctx.Err() != nil && last != nil:
			return fmt.Errorf("%w, while %w", err, last)
		default:
			return err
		}
	}
}

// attempt looks at the lock once and does the next thing about it.
func (l *Lock) attempt(ctx context.Context, death *cls.DeathWatch, last *error) (held bool, err error) {
	if err := l.pauseAfterLoss(ctx); err != nil {
		return false, err
	}
	cookie, err := l.freshWatch(ctx)
	if err != nil {
		return false, err
	}
	s, err := l.look(ctx, cookie)
	if err != nil {
		return false, err
	}
	if len(s.Info.Lockers) > 0 {
		owner := s.Info.Lockers[0]
		handle, _ := cls.ParseRBDCookie(owner.Cookie)
		s.DeadFor = death.Seen(owner.LockerID, s.life(owner, handle) != alive, time.Now())
	}
	switch d := decide(s).(type) {
	case have:
		return l.becomeHeld(cookie), nil
	case take:
		return l.take(ctx, cookie)
	case adopt:
		return l.adopt(ctx, d.Owner, cookie)
	case ask:
		*last = fmt.Errorf("waiting for %s at %s to release the lock", d.Owner.Entity, d.Owner.Address.Blocklist())
		return false, l.ask(ctx, d.Owner)
	case wait:
		*last = fmt.Errorf("making sure that %s at %s is dead", d.Owner.Entity, d.Owner.Address.Blocklist())
		return false, l.sleep(ctx, d.For)
	case fence:
		*last = fmt.Errorf("fencing %s at %s", d.Owner.Entity, d.Owner.Address.Blocklist())
		if err := l.io.Cluster().Blocklist(ctx, d.Owner.Address.Blocklist(), l.opts.BlocklistExpire); err != nil {
			return false, fmt.Errorf("blocklist the dead owner %s at %s: %w", d.Owner.Entity, d.Owner.Address.Blocklist(), err)
		}
		return false, l.breakLock(ctx, d.Owner)
	case breakOnly:
		return false, l.breakLock(ctx, d.Owner)
	case giveUp:
		return false, d.err
	}
	panic("unreachable: unknown decision")
}

// pauseAfterLoss keeps an acquirer whose watches end at once from spinning.
func (l *Lock) pauseAfterLoss(ctx context.Context) error {
	l.mu.Lock()
	lost := l.watchErr != nil
	l.mu.Unlock()
	if !lost {
		return nil
	}
	return l.sleep(ctx, l.opts.RetryDelay)
}

// freshWatch makes sure that there is a living watch and gives the cookie that
// goes with it.
func (l *Lock) freshWatch(ctx context.Context) (cookie string, err error) {
	l.mu.Lock()
	w, ended := l.watch, l.watchErr
	l.mu.Unlock()
	if w != nil && ended == nil {
		return cls.RBDCookie(w.Cookie()), nil
	}
	if errors.Is(ended, rados.Blocklisted) {
		return "", ended
	}
	if err := l.closeWatch(ctx); err != nil {
		return "", err
	}
	return l.startWatch(ctx)
}

// look reads the lock and the watchers at one moment.
func (l *Lock) look(ctx context.Context, cookie string) (sight, error) {
	c := l.io.Cluster()
	s := sight{
		Self: c.InstanceID(), Addresses: c.Addresses(), Cookie: cookie, Tag: l.target.Tag,
		DeadGrace: l.opts.DeadGrace, RewatchGrace: l.opts.RewatchGrace,
	}
	query := cls.GetInfo(l.target.Name)
	var op rados.ReadOp
	info, watchers := op.Exec(query.Call), op.ListWatchers()
	err := l.io.Read(ctx, l.target.Object, &op)
	if err != nil {
		return s, err
	}
	s.Watchers = watchers.Watchers
	if s.Info, err = query.Decode(info.Data); err != nil {
		return s, &rados.Error{Op: "lock.get_info", Pool: l.io.Pool().Name, Namespace: l.io.Namespace(), Object: l.target.Object, Err: err}
	}
	if f := l.opts.KnownDead; f != nil && len(s.Info.Lockers) > 0 {
		s.KnownDead = f(s.Info.Lockers[0].Description)
	}
	return s, nil
}

// take locks. Somebody may have been faster.
func (l *Lock) take(ctx context.Context, cookie string) (held bool, err error) {
	l.mayHold(cookie)
	var op rados.WriteOp
	op.AssertExists() // or a lock would create the header of an image that was just removed
	op.Exec(cls.Lock(cls.Request{Name: l.target.Name, Type: cls.Exclusive, Cookie: cookie, Tag: l.target.Tag, Description: l.opts.Description}))
	switch err := l.io.Write(ctx, l.target.Object, &op); {
	case err == nil, errors.Is(err, syscall.EEXIST):
		return l.becomeHeld(cookie), nil
	case errors.Is(err, syscall.EBUSY):
		return false, nil
	default:
		return false, fmt.Errorf("lock: %w", err)
	}
}

// adopt makes our own stale lock this one.
func (l *Lock) adopt(ctx context.Context, owner cls.Locker, cookie string) (held bool, err error) {
	l.mayHold(cookie)
	err = rados.Tell(ctx, l.io, l.target.Object,
		cls.SetCookie(l.target.Name, cls.Exclusive, owner.Cookie, l.target.Tag, cookie))
	switch {
	case err == nil:
		return l.becomeHeld(cookie), nil
	case errors.Is(err, syscall.EBUSY): // it has changed meanwhile
		return false, nil
	}
	return false, fmt.Errorf("adopt our stale lock: %w", err)
}

// breakLock removes the owner's lock, if it still is the owner's.
func (l *Lock) breakLock(ctx context.Context, owner cls.Locker) error {
	err := rados.Tell(ctx, l.io, l.target.Object, cls.Break(l.target.Name, owner.LockerID))
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("break the lock of %s: %w", owner.Entity, err)
	}
	return nil
}

// ask asks the owner to release the lock and waits until it is worth looking
// again.
func (l *Lock) ask(ctx context.Context, owner cls.Locker) error {
	drain(l.wake)
	msg := notify.Encode(notify.RequestLock{Client: l.clientID()})
	r, err := l.io.Notify(ctx, l.target.Object, msg, l.opts.NotifyTimeout)
	if err != nil && !errors.Is(err, syscall.ETIMEDOUT) {
		return fmt.Errorf("request the lock: %w", err)
	}
	switch heed(r) {
	case refused:
		return &RefusedError{Owner: owner}
	case releasing:
		return l.sleep(ctx, l.opts.ReleaseWait)
	}
	return l.sleep(ctx, l.opts.RetryDelay)
}

func drain(c chan struct{}) {
	select {
	case <-c:
	default:
	}
}

// mayHold notes a cookie before it is asked for: if the answer never comes, the
// lock may have it all the same.
func (l *Lock) mayHold(cookie string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if cookie != l.cookie {
		l.tried = append(l.tried, cookie)
	}
}

// becomeHeld enters the state held, unless the watch whose handle is the cookie
// has ended meanwhile.
func (l *Lock) becomeHeld(cookie string) bool {
	l.mu.Lock()
	if l.watch == nil || l.watchErr != nil || cls.RBDCookie(l.watch.Cookie()) != cookie {
		l.mu.Unlock()
		return false
	}
	if l.state != Acquiring && l.state != Suspended {
		l.mu.Unlock()
		return false
	}
	first := l.state == Acquiring
	l.state, l.cause = Held, nil
	l.cookie, l.tried = cookie, nil
	id := l.clientIDLocked()
	l.valid.Store(true)
	l.mu.Unlock()

	l.goErrand(func() { l.announce(l.run, notify.AcquiredLock{Client: id}) })
	if first {
		l.keeper.Go(l.keep)
	} else {
		l.opts.Policy.Resumed()
	}
	return true
}
