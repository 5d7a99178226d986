package replayer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/image/lock"
	"github.com/rbdwarden/rbdwarden/journal"
	"github.com/rbdwarden/rbdwarden/rados"
)

var (
	errNotOwner = fmt.Errorf("the exclusive lock is not held: %w", syscall.EBUSY)
	// errPromoted ends an Apply that came too late: the image is primary now.
	errPromoted = errors.New("the local image was promoted")
)

// holdPromotion is how long a promotion waits for us to let the image go. It is less
// than the five seconds for which the promoting command waits for its notification.
const holdPromotion = 4 * time.Second

// localImage is the local copy while we own it: the open image with its lock, and its
// journal, which tells of promotions and requests to re-sync.
//
// The gate keeps invariant 6 (a primary image is never written): every step passes it,
// and a notification of the local journal shuts it until the journal's newest tag was
// read. If the image was promoted it stays shut, and the promoting command hears an
// answer only when our last write has landed and the lock is free.
type localImage struct {
	image   *image.Image
	lock    *lock.Lock
	journal *journal.Journal
	io      rados.IOContext
	timeout time.Duration
	notify  func(core.Msg)
	trouble func(error)                 // tells of what is no reason to stop
	opened  atomic.Pointer[image.Image] // image, once it may be changed

	gate   *semaphore.Weighted // each step takes one, a look takes all
	state  sync.Mutex          // guards the rest
	now    role
	watch  rados.Watch
	looks  sync.WaitGroup
	closed chan struct{} // closed when the lock was given up
	done   context.CancelFunc
}

// openLocal is OPEN_LOCAL_IMAGE.
func (p *performer) openLocal(ctx context.Context, imageID string) (core.Msg, error) {
	l := &localImage{io: p.Local.IO, timeout: p.Timeout, notify: p.notify, gate: semaphore.NewWeighted(wholeGate), closed: make(chan struct{})}
	// Who is primary is looked up before the lock is asked for: from a primary's
	// owner it must not be taken.
	j, err := journal.Open(ctx, p.Local.IO, imageID)
	if errors.Is(err, syscall.ENOENT) {
		return core.LocalOpened{Missing: true}, nil
	}
	if err != nil {
		return nil, err
	}
	l.journal = j
	if l.now, err = readRole(ctx, j); err != nil {
		j.Close()
		return nil, err
	}
	if l.now.promotion() == core.Primary {
		j.Close()
		return core.LocalOpened{Promotion: core.Primary, TagData: l.now.data}, nil
	}
	options := p.Lock
	options.Policy = l
	options.Trouble = func(err error) { p.Log.Warn().Err(err).Msg("exclusive lock") }
	l.trouble = func(err error) { p.Log.Warn().Err(err).Msg("snapshots in the trash") }
	l.image, err = image.Open(ctx, p.Local.IO, imageID, image.Options{Limits: p.applyLimits(), Lock: options})
	if errors.Is(err, syscall.ENOENT) {
		j.Close()
		return core.LocalOpened{Missing: true}, nil
	}
	if err != nil {
		j.Close()
		return nil, err
	}
	l.lock = l.image.Lock()
	p.local = l
	l.watchLock()
	// Again under the lock, and with a watch: from here on a promotion is noticed.
	now, err := l.watchJournal(ctx)
	if err != nil {
		return nil, err
	}
	name, err := image.Name(ctx, p.Local.IO, imageID)
	if err != nil {
		return nil, err
	}
	if now.promotion() != core.Primary {
		if err := p.finishRemovals(ctx); err != nil {
			return nil, err
		}
		l.opened.Store(l.image)
	}
	return core.LocalOpened{
		Name: name, Promotion: now.promotion(), Tag: now.tag, TagData: now.data, ResyncRequested: now.resync,
	}, nil
}

// finishRemovals completes what a predecessor that died left half done.
func (p *performer) finishRemovals(ctx context.Context) error {
	done, err := p.local.enter(ctx)
	if err != nil {
		return err
	}
	defer done()
	return p.local.image.FinishRemovals(ctx)
}

// watchLock tells the machine when the lock is gone for good.
func (l *localImage) watchLock() {
	ctx, cancel := context.WithCancel(context.Background())
	l.done = cancel
	l.looks.Go(func() {
		select {
		case <-l.lock.Lost():
			l.notify(core.LockLost{Err: l.lock.Cause()})
		case <-l.lock.ReleaseRequested():
			l.notify(core.LockLost{Err: errPromoted})
		case <-ctx.Done():
		}
	})
}

// wholeGate is more than the steps that are ever under way.
const wholeGate = 1 << 30

// enter lets one step pass the gate; done lets it out.
func (l *localImage) enter(ctx context.Context) (done func(), err error) {
	if err := l.gate.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	done = func() { l.gate.Release(1) }
	if l.role().promotion() == core.Primary {
		done()
		return nil, errPromoted
	}
	if err := ctx.Err(); err != nil {
		done()
		return nil, err
	}
	return done, nil
}

// enterOwned is enter for a step that changes the journal, which only the lock's owner may.
func (l *localImage) enterOwned(ctx context.Context) (done func(), err error) {
	done, err = l.enter(ctx)
	if err == nil && !l.lock.Valid() {
		done()
		return nil, errNotOwner
	}
	return done, err
}

func (l *localImage) role() role {
	l.state.Lock()
	defer l.state.Unlock()
	return l.now
}

// watchJournal begins to listen to the local journal, and reads its role after that.
func (l *localImage) watchJournal(ctx context.Context) (role, error) {
	w, err := l.io.Watch(ctx, l.journal.HeaderObject(), 0, l)
	if err != nil {
		return role{}, err
	}
	l.state.Lock()
	l.watch = w
	l.state.Unlock()
	return l.look(ctx)
}

// look reads the journal's role with the gate shut: after it no step is under way
// that did not know the role.
func (l *localImage) look(ctx context.Context) (role, error) {
	if err := l.gate.Acquire(ctx, wholeGate); err != nil {
		return role{}, err
	}
	defer l.gate.Release(wholeGate)
	r, err := readRole(ctx, l.journal)
	if err != nil {
		return role{}, err
	}
	l.state.Lock()
	l.now = r
	l.state.Unlock()
	return r, nil
}

// Notified is called when the local journal has changed.
func (l *localImage) Notified(n rados.Notification) {
	l.looks.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), l.timeout)
		defer cancel()
		r, err := l.look(ctx)
		if err != nil {
			n.Ack(nil)
			l.notify(core.LockLost{Err: fmt.Errorf("cannot tell whether the image was promoted: %w", err)})
			return
		}
		l.notify(core.LocalJournalChanged{Promotion: r.promotion(), ResyncRequested: r.resync})
		if r.promotion() == core.Primary {
			select {
			case <-l.closed:
			case <-time.After(holdPromotion):
			}
		}
		n.Ack(nil)
	})
}

// WatchLost is called when the watch on the local journal has ended. Without it a
// promotion would go unnoticed, so the image starts again.
func (l *localImage) WatchLost(err error) {
	l.notify(core.LockLost{Err: fmt.Errorf("watch on %s: %w", l.journal.HeaderObject(), err)})
}

// LockRequested (lock.Policy): the lock goes to others only if the image is primary.
func (l *localImage) LockRequested(bool) (release bool, err error) {
	return l.role().promotion() == core.Primary, nil
}

// HeaderUpdated (lock.Policy): others change the header only for what does not
// concern replay (names, metadata), and when clones leave: a snapshot that went to the
// trash because of them is ours to remove when the last has gone. No event tells of it,
// for on the primary it is done by whoever flattens or removes the clone
// (src/librbd/image/DetachChildRequest.cc).
func (l *localImage) HeaderUpdated() {
	im := l.opened.Load()
	if im == nil || !waitsForClones(im.Header()) {
		return
	}
	l.looks.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), l.timeout)
		defer cancel()
		done, err := l.enter(ctx)
		if err != nil {
			return // promoted
		}
		defer done()
		if err = im.Refresh(ctx); err == nil {
			err = im.FinishRemovals(ctx)
		}
		if err != nil && !errors.Is(err, image.ErrClosed) {
			l.trouble(err) // the next to open the image does it
		}
	})
}

// waitsForClones tells whether a snapshot is in the trash because it has clones.
func waitsForClones(h *image.Header) bool {
	return slices.ContainsFunc(h.Snapshots, func(s image.Snapshot) bool {
		return s.ChildCount > 0 && s.Namespace != nil && s.Namespace.Kind() == rbd.SnapshotTrash
	})
}

// Suspended (lock.Policy): writes are refused by the image until the lock is back.
func (l *localImage) Suspended(error) {}

// Resumed (lock.Policy).
func (l *localImage) Resumed() {}

// close gives the image up: first the lock, then the watches.
func (l *localImage) close(ctx context.Context) error {
	err := l.image.Close(ctx)
	if err != nil {
		// The next Open over this connection adopts the lock; others fence us first.
		err = errors.Join(err, l.image.Abandon(ctx))
	}
	close(l.closed)
	l.done()
	l.state.Lock()
	w := l.watch
	l.state.Unlock()
	if w != nil {
		err = errors.Join(err, w.Close(ctx))
	}
	l.looks.Wait()
	l.journal.Close()
	return err
}

// allocateTag is ALLOCATE_LOCAL_TAG.
func (p *performer) allocateTag(ctx context.Context, data wire.TagData) (core.Msg, error) {
	done, err := p.local.enterOwned(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := p.local.newTag(ctx, data); err != nil {
		return nil, err
	}
	return core.LocalTagAllocated{Data: data}, nil
}

// newTag makes the local journal's newest tag, which says who is primary. The caller has
// passed the gate.
//
// Invariant: a tag that says that this image is primary is never followed by one of ours. A
// promotion whose notification was lost, or has not arrived yet, would be undone: whoever
// opens the image next would take it for a copy and replay over what its user has written.
func (l *localImage) newTag(ctx context.Context, data wire.TagData) error {
	_, err := l.journal.AllocateTagIf(ctx, l.role().tagClass, data, func(ctx context.Context) error {
		r, err := readRole(ctx, l.journal)
		if err != nil || r.promotion() != core.Primary {
			return err
		}
		l.state.Lock()
		l.now = r
		l.state.Unlock()
		l.notify(core.LocalJournalChanged{Promotion: r.promotion(), ResyncRequested: r.resync})
		return errPromoted
	})
	return err
}
