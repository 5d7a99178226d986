// Package leader takes and keeps the leadership of a pool, in the form in which
// rbd-mirror does: the lock "rbd_lock" on the object rbd_mirror_leader, with a watch
// there and heartbeats to it. Whoever leads, of the two kinds of daemons, keeps the
// other from leading.
//
//	following ──(lock free, or its owner dead and fenced)──▶ leading
//	    ▲                                                       │ lock gone, watch lost,
//	    └───────────────────────────────────────────────────────┘ or asked to stop
//
// What a leader decides it writes with its lock asserted in the same operation: see Term.
// So two leaders are never seen in what is written, however late one of them learns that
// it leads no longer.
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
	"github.com/rbdwarden/rbdwarden/rhythm"
)

// Object is where a pool's leader lock is.
const Object = "rbd_mirror_leader"

// Options are the settings of a candidate.
type Options struct {
	// Heartbeat is the time between heartbeats (rbd_mirror_leader_heartbeat_interval).
	Heartbeat time.Duration
	// Description goes into the lock; KnownDead judges that of another owner: from
	// the same host, as package identity does, or because it is a member that has fallen
	// silent (package membership). Such an owner is fenced at the next look.
	Description string
	KnownDead   func(description string) bool
	// Ours tells by its description whether an owner is of our kind, or an rbd-mirror. Nil: who
	// writes a description is, for rbd-mirror writes none.
	Ours func(description string) bool
	// Wake makes a follower look at once, because it may have become true that the
	// leader is known to be dead; may be nil.
	Wake <-chan struct{}
	// BlocklistExpire is how long a dead leader stays blocklisted (0: the
	// cluster's default).
	BlocklistExpire time.Duration
	// Look is the time between looks at a lock that somebody else holds, and between
	// checks that our own is there; 0: a second. What a member of ours does is known sooner:
	// its death by Wake, its leaving by a notification.
	Look time.Duration
	// DeadGrace is how long an owner must be seen without its watch before it is
	// fenced: one that renews its watch has a moment without. 0: two seconds.
	DeadGrace time.Duration
	// Leads is called when leadership is won, Lost when it has ended, in turns. Between
	// the two the Term is good for writing.
	Leads func(*Term)
	Lost  func(reason error)
	// Follows is called with the name of whoever leads instead, and whether that one is Ours, when
	// that changes.
	Follows func(leader string, ours bool)
	// Abstain tells a candidate that another one is to lead: it takes no lock that is free,
	// and gives its own up. Nil: it never does.
	Abstain func() bool
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

// errAbstains ends a reign for another one's.
var errAbstains = errors.New("another member is to lead")

const (
	defaultLook      = time.Second
	defaultDeadGrace = 2 * time.Second
)

// Run competes for the leadership of the pool until ctx ends; then it gives it back.
func Run(ctx context.Context, io rados.IOContext, opt Options) {
	if opt.Look == 0 {
		opt.Look = defaultLook
	}
	if opt.DeadGrace == 0 {
		opt.DeadGrace = defaultDeadGrace
	}
	if opt.Abstain == nil {
		opt.Abstain = func() bool { return false }
	}
	if opt.Ours == nil {
		opt.Ours = func(description string) bool { return description != "" }
	}
	c := &candidate{io: io, opt: opt, wake: make(chan struct{}, 1)}
	for ctx.Err() == nil {
		if err := c.term(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, errForeign) {
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
	tried    bool // the lock may have been taken in this term

	said sync.WaitGroup // notifications under way

	mu        sync.Mutex
	watchLost error
	answered  cls.EntityName // who is: one of ours, that led when we looked last
	leader    string         // whom we follow, as last told
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
	if err := c.standBy(ctx); err != nil {
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
	c.tried = false
	epoch, err := c.follow(ctx, cookie)
	if err != nil {
		if c.tried && rados.Classify(err) != rados.Fenced {
			// An attempt whose answer did not come may have succeeded, or may yet: operations of one client
			// on an object are done in order.
			err = errors.Join(err, c.release(ctx, cookie))
		}
		return err
	}
	t := newTerm(c.io, cookie, c.opt.Description, epoch)
	c.answers(cls.ClientName(c.io.Cluster().InstanceID()))
	c.say(ctx, notify.LeaderLockAcquired)
	c.opt.Log.Info().Uint64("epoch", epoch).Msg("leads the pool")
	c.released = false
	c.leader = "" // whoever leads after us is news, also if we followed it before
	c.opt.Leads(t)
	reason := c.lead(ctx, cookie)
	c.opt.Log.Info().AnErr("reason", reason).Msg("leads the pool no longer")
	t.close()
	c.opt.Lost(reason)
	fenced := reason != nil && rados.Classify(reason) == rados.Fenced
	t.release(ctx, fenced)
	if fenced {
		return reason
	}
	return c.release(ctx, cookie)
}

// errForeign ends a term's following: rbd-mirror leads.
var errForeign = errors.New("rbd-mirror leads the pool")

// foreign tells whether there is an owner, and it is not of our kind.
func (c *candidate) foreign(owner *cls.Locker) bool {
	return owner != nil && !c.opt.Ours(owner.Description)
}

// standBy waits, unseen, while a living rbd-mirror leads: its leader takes everybody who acknowledges a heartbeat for a daemon
// like itself, and gives images to it (src/tools/rbd_mirror/LeaderWatcher.cc, handle_notify_heartbeat). So whoever does not
// run what it is given there must have no watch that answers.
func (c *candidate) standBy(ctx context.Context) error {
	for {
		seen, err := c.look(ctx)
		if err != nil {
			return err
		}
		if !c.foreign(seen.owner) || !seen.alive {
			return nil
		}
		c.follows(seen.owner)
		if err := c.pause(ctx, c.opt.Look); err != nil {
			return err
		}
	}
}

// follow tries for the lock until it is ours, and tells the term's epoch. errForeign if that is for rbd-mirror to end.
func (c *candidate) follow(ctx context.Context, cookie string) (epoch uint64, err error) {
	var death cls.DeathWatch
	for {
		if err := c.lostWatch(); err != nil {
			return 0, err
		}
		seen, err := c.look(ctx)
		if err != nil {
			return 0, err
		}
		switch owner := seen.owner; {
		case owner == nil && c.opt.Abstain():
		case owner == nil:
			held, err := c.take(ctx, cookie, seen.epoch)
			if held {
				return seen.epoch + 1, nil
			}
			if err != nil {
				return 0, err
			}
			continue // somebody was faster
		case owner.Entity == cls.ClientName(c.io.Cluster().InstanceID()) && owner.Cookie == cookie:
			// Taken, but the answer was lost; the epoch went up with it.
			return seen.epoch, nil
		case owner.Entity == cls.ClientName(c.io.Cluster().InstanceID()):
			// Ours, from a term whose release failed.
			if err := breakLock(ctx, c.io, *owner); err != nil {
				return 0, err
			}
			continue
		case c.opt.KnownDead != nil && c.opt.KnownDead(owner.Description),
			death.Seen(owner.LockerID, !seen.alive, time.Now()) >= c.opt.DeadGrace:
			if err := c.fence(ctx, *owner); err != nil {
				return 0, err
			}
			continue
		case seen.alive && c.foreign(owner):
			return 0, errForeign
		case seen.alive:
			c.follows(owner)
		}
		if owner := seen.owner; owner != nil && !c.foreign(owner) {
			c.answers(owner.Entity)
		}
		if err := c.pause(ctx, c.opt.Look); err != nil {
			return 0, err
		}
	}
}

// take locks, and counts the epoch up, in one operation. It fails if the epoch is another
// than that which was seen with the lock free: then somebody led in between.
func (c *candidate) take(ctx context.Context, cookie string, epoch uint64) (held bool, err error) {
	c.tried = true
	var op rados.WriteOp
	op.CmpXattr(epochXattr, encodeEpoch(epoch))
	op.Exec(lockCall(cookie, c.opt.Description))
	op.SetXattr(epochXattr, encodeEpoch(epoch+1))
	switch err := c.io.Write(ctx, Object, &op); {
	case err == nil:
		return true, nil
	case errors.Is(err, syscall.EBUSY), errors.Is(err, syscall.EEXIST), errors.Is(err, syscall.ECANCELED):
		return false, nil
	default:
		return false, err
	}
}

// view is what one look at the lock has shown.
type view struct {
	owner *cls.Locker // nil: nobody
	alive bool        // the owner's watch is there
	epoch uint64      // of the newest term of ours
}

// look tells who holds the lock, at one moment.
func (c *candidate) look(ctx context.Context) (v view, err error) { return look(ctx, c.io) }

func look(ctx context.Context, io rados.IOContext) (v view, err error) {
	query := cls.GetInfo(cls.RBDName)
	var op rados.ReadOp
	reply, watchers, xattrs := op.Exec(query.Call), op.ListWatchers(), op.Xattrs()
	if err := io.Read(ctx, Object, &op); err != nil {
		return v, err
	}
	info, err := query.Decode(reply.Data)
	if err == nil {
		v.epoch, err = decodeEpoch(xattrs.Pairs[epochXattr])
	}
	if err != nil {
		return v, &rados.Error{Op: "look at the leader's lock", Pool: io.Pool().Name, Namespace: io.Namespace(), Object: Object, Err: err}
	}
	if len(info.Lockers) == 0 {
		return v, nil
	}
	v.owner = &info.Lockers[0]
	for _, w := range watchers.Watchers {
		v.alive = v.alive || cls.ClientName(w.ClientID) == v.owner.Entity
	}
	return v, nil
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
	return breakLock(ctx, c.io, owner)
}

func breakLock(ctx context.Context, io rados.IOContext, owner cls.Locker) error {
	err := rados.Tell(ctx, io, Object, cls.Break(cls.RBDName, owner.LockerID))
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	return err
}

// lead sends heartbeats and checks that the lock holds, until it does not.
func (c *candidate) lead(ctx context.Context, cookie string) error {
	said := time.Now()
	for {
		if err := c.pause(ctx, c.opt.Look); err != nil {
			return err
		}
		if err := c.lostWatch(); err != nil {
			return err
		}
		if c.released {
			return errReleased
		}
		if c.opt.Abstain() {
			return errAbstains
		}
		var op rados.ReadOp
		op.Exec(assertCall(cookie))
		if err := c.io.Read(ctx, Object, &op); err != nil && rados.Classify(err) != rados.Transient || errors.Is(err, syscall.EBUSY) {
			return err
		}
		if time.Since(said) >= c.opt.Heartbeat {
			said = time.Now()
			c.say(ctx, notify.LeaderHeartbeat)
		}
	}
}

// releaseTimeout bounds the release of locks at the end of a term.
const releaseTimeout = 5 * time.Second

func (c *candidate) release(ctx context.Context, cookie string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
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

// answers says whose notifications are acknowledged.
func (c *candidate) answers(leader cls.EntityName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answered = leader
}

// Notified answers the leader's notifications, if that is one of ours: see standBy.
func (c *candidate) Notified(n rados.Notification) {
	c.mu.Lock()
	answered := c.answered
	c.mu.Unlock()
	if cls.ClientName(n.NotifierID) == answered {
		n.Ack(nil)
	}
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

func (c *candidate) follows(owner *cls.Locker) {
	leader := owner.Entity.String()
	if leader != c.leader {
		c.leader = leader
		c.opt.Log.Info().Str("leader", leader).Msg("another one leads the pool")
		c.opt.Follows(leader, c.opt.Ours(owner.Description))
	}
}

// pause waits, unless something happens earlier; an error only if ctx ends.
func (c *candidate) pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(rhythm.Within(d))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-c.wake:
	case <-c.opt.Wake:
	case <-c.opt.Release:
		c.released = true
	case <-t.C:
	}
	return nil
}
