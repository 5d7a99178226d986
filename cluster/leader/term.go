package leader

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	cls "github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/rados"
)

// epochXattr counts the terms of this kind of daemon, on Object of each namespace:
//
//	u64 epoch
//
// rbd-mirror neither reads nor writes it.
const epochXattr = "rbd_warden_epoch"

func encodeEpoch(epoch uint64) []byte {
	if epoch == 0 {
		return nil // as an attribute that is not there compares
	}
	var e encoding.Encoder
	e.U64(epoch)
	return e.Bytes()
}

func decodeEpoch(b []byte) (uint64, error) {
	if len(b) == 0 {
		return 0, nil
	}
	return class.Decode("attribute "+epochXattr, b, func(d *encoding.Decoder) uint64 { return d.U64() })
}

func lockCall(cookie, description string) class.Call {
	return cls.Lock(cls.Request{
		Name: cls.RBDName, Type: cls.Exclusive, Cookie: cookie, Tag: cls.RBDTag, Description: description,
	})
}

func assertCall(cookie string) class.Call {
	return cls.Assert(cls.RBDName, cls.Exclusive, cookie, cls.RBDTag)
}

// ErrOver says that the term has ended: nothing may be written in its name any more.
var ErrOver = errors.New("the term of this leader is over")

// Term is one reign: from the taking of the pool's lock to its loss or release.
//
// # Writing as the leader
//
// Upstream keeps the image map of a namespace in that namespace's own Object, while the
// lock is on the default namespace's. An operation of RADOS is about one object, so the
// lock there cannot guard the writes here. Therefore a leader also holds a lock of the
// same name and cookie on Object of every namespace that it writes:
//
//	Object in the default namespace     Object in a namespace
//	───────────────────────────────     ─────────────────────────────────────────────
//	take the lock, epoch n → n+1
//	                                    refuse unless the epoch there is ≤ n+1
//	                                    break what an earlier term has left
//	                                    epoch := n+1, take the lock
//	write, lock asserted                write, lock asserted
//	                                    release
//	release
//
// Every step there is conditional on the epoch that was read, so a leader of an earlier
// term, paused and woken, cannot break the lock of a later one; and by breaking a lock, all
// writes that its owner still has under way are refused by the OSD, for they assert it.
//
// The lock is taken when Assert is first asked for a namespace. So ask before reading what
// is to be changed: what is read then is final, as far as earlier leaders go.
//
// rbd-mirror does not look at the lock in a namespace; the two exclude each other by the
// one in the default namespace.
type Term struct {
	io          rados.IOContext // the default namespace
	cookie      string
	description string
	run         context.Context // ends with the term
	stop        context.CancelFunc
	busy        sync.WaitGroup // calls of Assert

	mu    sync.Mutex
	over  bool
	epoch uint64
	held  map[string]rados.IOContext // namespaces whose lock may be ours
}

func newTerm(io rados.IOContext, cookie, description string, epoch uint64) *Term {
	t := &Term{io: io, cookie: cookie, description: description, epoch: epoch, held: map[string]rados.IOContext{}}
	t.run, t.stop = context.WithCancel(context.Background())
	return t
}

// Epoch numbers the term: a later term of the pool, whosever it is, has a higher one; those
// of rbd-mirror are not counted.
func (t *Term) Epoch() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.epoch
}

// Assert gives the step that a write to Object in a namespace begins with: the OSD refuses
// the operation with EBUSY if this term does not hold the lock there any more. In a
// namespace other than the default one ("") it makes sure first that the term holds it,
// which costs a read, or a few operations the first time. Read what the write depends on
// after Assert, not before; and after a refused write ask again, for the lock may have been
// broken by hand.
//
// Errors, besides those of RADOS (ENOENT: the pool is gone): ErrOver if the term has ended,
// or a later one has begun.
func (t *Term) Assert(ctx context.Context, namespace string) (class.Call, error) {
	t.mu.Lock()
	over := t.over
	if !over {
		t.busy.Add(1)
	}
	t.mu.Unlock()
	if over {
		return class.Call{}, ErrOver
	}
	defer t.busy.Done()
	if namespace != "" {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(t.run, cancel)()
		if err := t.hold(ctx, namespace); err != nil {
			return class.Call{}, fmt.Errorf("lead namespace %s of pool %s: %w", namespace, t.io.Pool().Name, err)
		}
	}
	return assertCall(t.cookie), nil
}

// hold makes sure that the lock in a namespace is ours.
func (t *Term) hold(ctx context.Context, namespace string) error {
	t.mu.Lock()
	io := t.held[namespace]
	t.mu.Unlock()
	if io == nil {
		opened, err := t.io.Cluster().OpenID(ctx, t.io.Pool().ID, namespace)
		if err != nil {
			return err
		}
		t.mu.Lock()
		if io = t.held[namespace]; io == nil {
			// Entered before the lock is ours: an attempt whose answer is lost may
			// have taken it, and the end of the term has to release it.
			io, t.held[namespace] = opened, opened
			opened = nil
		}
		t.mu.Unlock()
		if opened != nil {
			opened.Close() // another call was as fast
		}
	}
	for {
		done, err := t.claim(ctx, io)
		if done || err != nil {
			return err
		}
	}
}

// claim looks at the lock in a namespace once and does the next thing about it.
func (t *Term) claim(ctx context.Context, io rados.IOContext) (done bool, err error) {
	seen, err := look(ctx, io)
	if errors.Is(err, syscall.ENOENT) {
		var create rados.WriteOp
		create.Create(false)
		return false, io.Write(ctx, Object, &create)
	}
	if err != nil {
		return false, err
	}
	epoch := t.Epoch()
	var op rados.WriteOp
	op.CmpXattr(epochXattr, encodeEpoch(seen.epoch))
	switch owner := seen.owner; {
	case seen.epoch > epoch:
		return false, t.overtake(ctx, epoch, seen.epoch)
	case owner != nil && owner.Entity == cls.ClientName(t.io.Cluster().InstanceID()) && owner.Cookie == t.cookie && seen.epoch == epoch:
		return true, nil
	case owner != nil:
		op.Exec(cls.Break(cls.RBDName, owner.LockerID))
	default:
		op.Exec(lockCall(t.cookie, t.description))
	}
	op.SetXattr(epochXattr, encodeEpoch(epoch))
	err = io.Write(ctx, Object, &op)
	switch {
	case errors.Is(err, syscall.ECANCELED), errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.EBUSY), errors.Is(err, syscall.EEXIST):
		return false, nil // it has changed since we looked
	}
	return false, err
}

// overtake is for a namespace that has seen a higher epoch than ours: either a later term
// has begun, or the pool's Object was removed and counts from the beginning again. If the
// lock there is still ours, it is the second, and we count on from the higher one.
func (t *Term) overtake(ctx context.Context, epoch, seen uint64) error {
	var op rados.WriteOp
	op.Exec(assertCall(t.cookie))
	op.CmpXattr(epochXattr, encodeEpoch(epoch))
	op.SetXattr(epochXattr, encodeEpoch(seen+1))
	err := t.io.Write(ctx, Object, &op)
	switch {
	case errors.Is(err, syscall.ECANCELED) && t.Epoch() != epoch:
		return nil // another call of this term has done it
	case errors.Is(err, syscall.EBUSY), errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECANCELED):
		return fmt.Errorf("%w: term %d, the namespace has seen %d: %w", ErrOver, epoch, seen, err)
	case err != nil:
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.epoch = seen + 1
	return nil
}

// close ends the term: Assert answers ErrOver from now on.
func (t *Term) close() {
	t.mu.Lock()
	t.over = true
	t.mu.Unlock()
	t.stop()
	t.busy.Wait()
}

// release gives the locks in namespaces back, unless the client is fenced. It comes before
// the release of the pool's lock; what it leaves behind the next term breaks.
func (t *Term) release(ctx context.Context, fenced bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	var all sync.WaitGroup
	for _, io := range t.held {
		all.Go(func() {
			defer io.Close()
			if !fenced {
				_ = rados.Tell(ctx, io, Object, cls.Unlock(cls.RBDName, t.cookie))
			}
		})
	}
	all.Wait()
}
