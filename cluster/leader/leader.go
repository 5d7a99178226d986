// Package leader takes and keeps the leadership of a pool, in the form in which
// rbd-mirror does: the lock "rbd_lock" on the object rbd_mirror_leader, with a watch
// there and heartbeats to it. Whoever leads, of the two kinds of daemons, keeps the
// other from leading.
//
//	following ──(lock free, or its owner dead and fenced)──▶ leading
//	    ▲                                                       │ lock gone, watch lost,
//	    └───────────────────────────────────────────────────────┘ or asked to stop
//
// Until several daemons share a pool's images (the cluster issue), only the leader
// replicates; the others stand by.
//
// Source of the facts: ceph/ceph src/tools/rbd_mirror/LeaderWatcher.cc.
package leader

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	cls "github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/ceph/notify"
	"github.com/rbdwarden/rbdwarden/rados"
)

// Object is where a pool's leader lock is.
const Object = "rbd_mirror_leader"

// Options are the settings of a candidate.
type Options struct {
	// Heartbeat is the time between heartbeats, and between looks at a lock that
	// somebody else holds (rbd_mirror_leader_heartbeat_interval).
	Heartbeat time.Duration
	// Description goes into the lock; KnownDead judges that of another owner. See
	// package identity.
	Description string
	KnownDead   func(description string) bool
	// BlocklistExpire is how long a dead leader stays blocklisted (0: the
	// cluster's default).
	BlocklistExpire time.Duration
	// Leads is called when leadership is won, Lost when it has ended, in turns.
	Leads func()
	Lost  func(reason error)
	// Follows is called with the name of whoever leads instead, when that changes.
	Follows func(leader string)
	// Fenced is called when the cluster refuses this client for good, after Lost if it
	// led; Run returns then. The process has to end (invariant 3): it would stand by
	// for ever, and lead never.
	Fenced func(err error)
	// Release asks a leader to give up, and to let the others go first; may be nil.
	Release <-chan struct{}
	Log     zerolog.Logger
}

// errReleased ends a reign that was asked to end.
var errReleased = errors.New("asked to release the leadership")

// deadLooks is how often in a row the owner must be seen without its watch before it
// is fenced: one that renews its watch has a moment without.
const deadLooks = 2

// Run competes for the leadership of the pool until ctx ends; then it gives it back.
func Run(ctx context.Context, io rados.IOContext, opt Options) {
	c := &candidate{io: io, opt: opt, wake: make(chan struct{}, 1)}
	for ctx.Err() == nil {
		if err := c.term(ctx); err != nil && ctx.Err() == nil {
			opt.Log.Warn().Err(err).Msg("leader election")
			if rados.Classify(err) == rados.Fenced {
				opt.Fenced(err)
				return
			}
		}
		wait := time.Second
		if c.released {
			// rbd-mirror's other daemons try a heartbeat's interval after they hear of it.
			c.released, wait = false, opt.Heartbeat*3/2
		}
		_ = c.pause(ctx, wait) // the loop looks at ctx itself
	}
}

type candidate struct {
	io   rados.IOContext
	opt  Options
	wake chan struct{} // the leader said that it releases, or our watch has ended

	released bool // the last reign ended because it was asked to

	said sync.WaitGroup // notifications under way

	mu        sync.Mutex
	watchLost error
	leader    string // whom we follow, as last told
}

// sayTimeout is how long a notification waits for candidates that do not answer.
const sayTimeout = time.Second

// term is the life of one watch: following, then perhaps leading.
func (c *candidate) term(ctx context.Context) (err error) {
	var create rados.WriteOp
	create.Create(false)
	if err := c.io.Write(ctx, Object, &create); err != nil {
		return err
	}
	c.setWatchLost(nil)
	watch, err := c.io.Watch(ctx, Object, 0, c)
	if err != nil {
		return err
	}
	cookie := cls.RBDCookie(watch.Cookie())
	defer func() {
		// Also when ctx has ended: a clean end leaves no lock and no watch.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		c.said.Wait()
		err = errors.Join(err, watch.Close(ctx))
	}()
	if err := c.follow(ctx, cookie); err != nil {
		return err
	}
	c.say(ctx, notify.LeaderLockAcquired)
	c.opt.Log.Info().Msg("leads the pool")
	c.released = false
	c.leader = "" // whoever leads after us is news, also if we followed it before
	c.opt.Leads()
	reason := c.lead(ctx, cookie)
	c.opt.Log.Info().AnErr("reason", reason).Msg("leads the pool no longer")
	c.opt.Lost(reason)
	if reason != nil && rados.Classify(reason) == rados.Fenced {
		return reason
	}
	return c.release(ctx, cookie)
}

// follow tries for the lock until it is ours.
func (c *candidate) follow(ctx context.Context, cookie string) error {
	dead := 0
	var suspect cls.LockerID // whom dead is about
	for {
		if err := c.lostWatch(); err != nil {
			return err
		}
		held, err := c.take(ctx, cookie)
		if held || err != nil {
			return err
		}
		owner, alive, err := c.look(ctx)
		switch {
		case err != nil:
			return err
		case owner == nil:
			continue // it was released meanwhile
		case owner.Entity == cls.ClientName(c.io.Cluster().InstanceID()):
			// Ours, from a term whose release failed.
			if err := c.breakLock(ctx, *owner); err != nil {
				return err
			}
			continue
		case c.opt.KnownDead != nil && c.opt.KnownDead(owner.Description):
			dead = deadLooks
		case alive:
			dead = 0
			c.follows(owner.Entity.String())
		case owner.LockerID != suspect:
			dead, suspect = 1, owner.LockerID
		default:
			dead++
		}
		if dead >= deadLooks {
			if err := c.fence(ctx, *owner); err != nil {
				return err
			}
			dead = 0
			continue
		}
		if err := c.pause(ctx, c.opt.Heartbeat/2); err != nil {
			return err
		}
	}
}

func (c *candidate) take(ctx context.Context, cookie string) (held bool, err error) {
	err = rados.Tell(ctx, c.io, Object, cls.Lock(cls.Request{
		Name: cls.RBDName, Type: cls.Exclusive, Cookie: cookie, Tag: cls.RBDTag, Description: c.opt.Description,
	}))
	switch {
	case err == nil, errors.Is(err, syscall.EEXIST):
		return true, nil
	case errors.Is(err, syscall.EBUSY):
		return false, nil
	}
	return false, err
}

// look tells who holds the lock, and whether its watch is there.
func (c *candidate) look(ctx context.Context) (owner *cls.Locker, alive bool, err error) {
	query := cls.GetInfo(cls.RBDName)
	var op rados.ReadOp
	reply, watchers := op.Exec(query.Call), op.ListWatchers()
	if err := c.io.Read(ctx, Object, &op); err != nil {
		return nil, false, err
	}
	info, err := query.Decode(reply.Data)
	if err != nil {
		return nil, false, &rados.Error{Op: "lock.get_info", Pool: c.io.Pool().Name, Object: Object, Err: err}
	}
	if len(info.Lockers) == 0 {
		return nil, false, nil
	}
	owner = &info.Lockers[0]
	for _, w := range watchers.Watchers {
		alive = alive || cls.ClientName(w.ClientID) == owner.Entity
	}
	return owner, alive, nil
}

// fence makes sure that a dead leader can write no more, then breaks its lock
// (invariant 2 and 7).
func (c *candidate) fence(ctx context.Context, owner cls.Locker) error {
	if owner.Address.IsBlank() {
		return fmt.Errorf("the dead leader %s left no address to blocklist", owner.Entity)
	}
	c.opt.Log.Warn().Stringer("leader", owner.Entity).Msg("the leader is dead: blocklisting it and breaking its lock")
	if err := c.io.Cluster().Blocklist(ctx, owner.Address.Blocklist(), c.opt.BlocklistExpire); err != nil {
		return fmt.Errorf("blocklist the dead leader %s: %w", owner.Entity, err)
	}
	return c.breakLock(ctx, owner)
}

func (c *candidate) breakLock(ctx context.Context, owner cls.Locker) error {
	err := rados.Tell(ctx, c.io, Object, cls.Break(cls.RBDName, owner.LockerID))
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	return err
}

// lead sends heartbeats and checks that the lock holds, until it does not.
func (c *candidate) lead(ctx context.Context, cookie string) error {
	for {
		if err := c.pause(ctx, c.opt.Heartbeat); err != nil {
			return err
		}
		if err := c.lostWatch(); err != nil {
			return err
		}
		if c.released {
			return errReleased
		}
		var op rados.ReadOp
		op.Exec(cls.Assert(cls.RBDName, cls.Exclusive, cookie, cls.RBDTag))
		if err := c.io.Read(ctx, Object, &op); err != nil && rados.Classify(err) != rados.Transient || errors.Is(err, syscall.EBUSY) {
			return err
		}
		c.say(ctx, notify.LeaderHeartbeat)
	}
}

func (c *candidate) release(ctx context.Context, cookie string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err := rados.Tell(ctx, c.io, Object, cls.Unlock(cls.RBDName, cookie))
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	if err == nil {
		c.say(ctx, notify.LeaderLockReleased)
	}
	return err
}

// say notifies the other candidates, in the background: one that does not answer must
// not hold the heartbeat up.
func (c *candidate) say(ctx context.Context, op notify.LeaderOp) {
	c.said.Go(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*sayTimeout)
		defer cancel()
		// Who misses it looks at the lock itself, later.
		_, _ = c.io.Notify(ctx, Object, notify.LeaderMessage{Op: op}.Encode(), sayTimeout)
	})
}

// Notified answers the leader's notifications.
func (c *candidate) Notified(n rados.Notification) {
	n.Ack(nil)
	if m, err := notify.DecodeLeader(n.Payload); err == nil && m.Op == notify.LeaderLockReleased &&
		n.NotifierID != c.io.Cluster().InstanceID() {
		c.poke()
	}
}

// WatchLost ends the term.
func (c *candidate) WatchLost(err error) {
	c.setWatchLost(fmt.Errorf("watch on %s: %w", Object, err))
	c.poke()
}

func (c *candidate) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *candidate) setWatchLost(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watchLost = err
}

func (c *candidate) lostWatch() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.watchLost
}

func (c *candidate) follows(leader string) {
	if leader != c.leader {
		c.leader = leader
		c.opt.Log.Info().Str("leader", leader).Msg("another daemon leads the pool: standing by")
		c.opt.Follows(leader)
	}
}

// pause waits, unless something happens earlier; an error only if ctx ends.
func (c *candidate) pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-c.wake:
	case <-c.opt.Release:
		c.released = true
	case <-t.C:
	}
	return nil
}
