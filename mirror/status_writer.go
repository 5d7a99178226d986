package mirror

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	cephmirror "github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/rados"
)

// StatusConfig says where a StatusWriter writes, and how soon.
type StatusConfig struct {
	// IO is the pool and namespace whose rbd_mirroring gets the statuses. The
	// connection behind it is the writer that Ceph shows.
	IO rados.IOContext
	// MirrorUUID is cephmirror.LocalUUID in the local pool, and the local pool's
	// mirror uuid in a remote one.
	MirrorUUID string

	// Zero values take the defaults below.
	Hurry   time.Duration // from a change of state until it is written
	Settle  time.Duration // from a change of the description alone
	Beat    time.Duration // everything is written again so often
	Retry   time.Duration // after a failure; doubles up to Beat
	Timeout time.Duration // for one operation, and for the last writes of Run
}

// The defaults of StatusConfig. rbd-mirror writes every change at once and all of it
// every 30 seconds, at most 100 in an operation (MirrorStatusUpdater.cc). Descriptions
// of images that replay change all the time, so here they wait a little.
const (
	DefaultHurry   = 200 * time.Millisecond
	DefaultSettle  = 3 * time.Second
	DefaultBeat    = 30 * time.Second
	DefaultRetry   = time.Second
	DefaultTimeout = 10 * time.Second

	statusBatch = 100
)

func (c *StatusConfig) fill() {
	for _, f := range []struct {
		field   *time.Duration
		initial time.Duration
	}{
		{&c.Hurry, DefaultHurry}, {&c.Settle, DefaultSettle}, {&c.Beat, DefaultBeat},
		{&c.Retry, DefaultRetry}, {&c.Timeout, DefaultTimeout},
	} {
		if *f.field <= 0 {
			*f.field = f.initial
		}
	}
}

// StatusWriter writes image statuses to one pool. Ceph shows a status as up while its
// writer watches rbd_mirroring (any watch of the same connection there will do), so Run
// keeps a watch there. Statuses can be set before
// and while Run runs; none of these methods waits for the cluster. Use one writer for
// the local pool and one for each remote pool (see StatusWriters): a slow remote
// cluster holds up nobody else.
type StatusWriter struct {
	cfg  StatusConfig
	wake chan struct{}  // has room for one: something is to be looked at
	lost chan lostWatch // the watch has ended by itself

	mu   sync.Mutex
	book *statusBook
	cond StatusCondition
	idle []chan struct{} // Flush: closed when nothing is pending or under way
	busy bool            // a batch is under way
}

// StatusCondition says how a StatusWriter is doing.
type StatusCondition struct {
	Registered bool      // the watch is there, so statuses show as up
	Pending    int       // statuses to be written
	Failures   int       // consecutive failures
	Err        error     // the last of them
	LastWrite  time.Time // the last success
}

// NewStatusWriter makes a writer; Run makes it write.
func NewStatusWriter(cfg StatusConfig) *StatusWriter {
	cfg.fill()
	return &StatusWriter{
		cfg:  cfg,
		wake: make(chan struct{}, 1),
		lost: make(chan lostWatch, 1),
		book: newStatusBook(cfg.Hurry, cfg.Settle),
	}
}

// Set notes what is to be said of an image.
func (w *StatusWriter) Set(globalID string, state cephmirror.StatusState, description string) {
	w.change(func(now time.Time) {
		w.book.set(now, globalID, cephmirror.Status{MirrorUUID: w.cfg.MirrorUUID, State: state, Description: description})
	})
}

// Forget leaves the last status of an image as it is and writes it no more: another
// daemon will.
func (w *StatusWriter) Forget(globalID string) {
	w.change(func(time.Time) { w.book.forget(globalID) })
}

// Remove deletes this site's status of an image, which is no longer mirrored. What
// other sites say stays.
func (w *StatusWriter) Remove(globalID string) {
	w.change(func(now time.Time) { w.book.remove(now, globalID) })
}

// Condition tells how the writer is doing.
func (w *StatusWriter) Condition() StatusCondition {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.cond
	c.Pending = w.book.pending()
	return c
}

// Flush has everything that is pending written now, and waits for it.
func (w *StatusWriter) Flush(ctx context.Context) error {
	done := make(chan struct{})
	w.change(func(now time.Time) {
		for _, e := range w.book.entries {
			if e.pending {
				e.await(now)
			}
		}
		w.idle = append(w.idle, done)
		w.releaseIdle()
	})
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("flush statuses: %w", errors.Join(ctx.Err(), w.Condition().Err))
	}
}

// change changes the book and wakes Run.
func (w *StatusWriter) change(f func(now time.Time)) {
	w.mu.Lock()
	f(time.Now())
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// releaseIdle lets Flush return if there is nothing left to do. mu is held.
func (w *StatusWriter) releaseIdle() {
	if w.busy || w.book.pending() > 0 {
		return
	}
	for _, done := range w.idle {
		close(done)
	}
	w.idle = nil
}

// Run deletes what dead writers left, watches, and writes, until ctx ends; then it
// writes what is pending, gives up the watch (so Ceph shows the statuses as down) and
// returns nil. It returns early only if the cluster has blocklisted this client.
// Everything else is retried, see Condition. Call it once.
func (w *StatusWriter) Run(ctx context.Context) error {
	r := statusRun{w: w, beat: time.Now().Add(w.cfg.Beat)}
	defer r.end(ctx)
	for {
		if err := r.step(ctx); err != nil {
			return fmt.Errorf("statuses in pool %s: %w", w.cfg.IO.Pool().Name, err)
		}
		timer := time.NewTimer(time.Until(r.next()))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-w.wake:
		case <-timer.C:
		case lost := <-w.lost:
			r.watchLost(ctx, lost.err)
		}
		timer.Stop()
	}
}

// StatusWriters are the writers of one pool and namespace: the local one and one for
// each remote pool. Each works at its own pace.
type StatusWriters []*StatusWriter

// Set calls Set of each.
func (ws StatusWriters) Set(globalID string, state cephmirror.StatusState, description string) {
	for _, w := range ws {
		w.Set(globalID, state, description)
	}
}

// Forget calls Forget of each.
func (ws StatusWriters) Forget(globalID string) {
	for _, w := range ws {
		w.Forget(globalID)
	}
}

// Remove calls Remove of each.
func (ws StatusWriters) Remove(globalID string) {
	for _, w := range ws {
		w.Remove(globalID)
	}
}
