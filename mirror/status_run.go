package mirror

import (
	"context"
	"errors"
	"time"

	cephmirror "github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/rados"
)

// statusRun is what only StatusWriter.Run knows.
type statusRun struct {
	w     *StatusWriter
	watch rados.Watch // nil: not registered
	beat  time.Time   // when all is written again
	retry time.Time   // nothing is tried before; zero after a success
}

// step does what can be done now. An error means that the client is fenced.
func (r *statusRun) step(ctx context.Context) error {
	if time.Now().Before(r.retry) {
		return nil
	}
	if r.watch == nil {
		if err := r.register(ctx); err != nil {
			return r.failure(ctx, err)
		}
	}
	if now := time.Now(); !now.Before(r.beat) {
		r.beat = now.Add(r.w.cfg.Beat)
		r.w.mu.Lock()
		r.w.book.beat(now)
		r.w.mu.Unlock()
	}
	return r.failure(ctx, r.write(ctx))
}

// next is when step has something to do again, as far as is known.
func (r *statusRun) next() time.Time {
	if !r.retry.IsZero() {
		return r.retry
	}
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	if due, ok := r.w.book.next(); ok && due.Before(r.beat) {
		return due
	}
	return r.beat
}

// register deletes the statuses of writers that are gone, watches, and has all of our
// own written again: some may have been deleted by others while we did not watch.
// (src/tools/rbd_mirror/MirrorStatusWatcher.cc)
func (r *statusRun) register(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.w.cfg.Timeout)
	defer cancel()
	var op rados.WriteOp
	op.AssertExists().Exec(cephmirror.StatusRemoveDown())
	if err := r.w.cfg.IO.Write(ctx, cephmirror.Object, &op); err != nil {
		return err
	}
	watch, err := r.w.cfg.IO.Watch(ctx, cephmirror.Object, watchTimeout, statusWatch{r.w.lost})
	if err != nil {
		return err
	}
	now := time.Now()
	r.watch = watch
	r.beat = now.Add(r.w.cfg.Beat)
	r.w.mu.Lock()
	r.w.cond.Registered = true
	r.w.book.beat(now)
	r.w.mu.Unlock()
	return nil
}

// statusWatch acknowledges everything: the watch is there only to be seen.
type statusWatch struct{ lost chan lostWatch }

// lostWatch is why a watch has ended by itself.
type lostWatch struct{ err error }

func (statusWatch) Notified(n rados.Notification) { n.Ack(nil) }

func (s statusWatch) WatchLost(err error) {
	select {
	case s.lost <- lostWatch{err}:
	default:
	}
}

// watchLost gives the dead watch up; step registers a new one.
func (r *statusRun) watchLost(ctx context.Context, err error) {
	r.unregister(ctx)
	r.w.mu.Lock()
	r.w.cond.Err = err
	r.w.mu.Unlock()
}

func (r *statusRun) unregister(ctx context.Context) {
	if r.watch == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, r.w.cfg.Timeout)
	defer cancel()
	// What is left of a watch that cannot be closed ends with its timeout or with the
	// connection.
	_ = r.watch.Close(ctx)
	r.watch = nil
	select {
	case <-r.w.lost: // of the watch that is gone
	default:
	}
	r.w.mu.Lock()
	r.w.cond.Registered = false
	r.w.mu.Unlock()
}

// write writes batches until nothing is due.
func (r *statusRun) write(ctx context.Context) error {
	for {
		batch := r.take()
		if len(batch) == 0 {
			return nil
		}
		err := r.writeBatch(ctx, batch)
		r.done(batch, err)
		if err != nil {
			return err
		}
	}
}

func (r *statusRun) take() []statusUpdate {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	batch := r.w.book.take(time.Now(), statusBatch)
	r.w.busy = len(batch) > 0
	return batch
}

// writeBatch writes to an rbd_mirroring that exists: otherwise a late status would
// make a new one in a pool that is no longer mirrored.
func (r *statusRun) writeBatch(ctx context.Context, batch []statusUpdate) error {
	ctx, cancel := context.WithTimeout(ctx, r.w.cfg.Timeout)
	defer cancel()
	var op rados.WriteOp
	op.AssertExists()
	for _, u := range batch {
		if u.remove {
			// The class's own method would delete what the other sites say, too.
			op.RemoveOmap(cephmirror.StatusKey(u.globalID, r.w.cfg.MirrorUUID))
		} else {
			op.Exec(cephmirror.StatusSet(u.globalID, u.status))
		}
	}
	return r.w.cfg.IO.Write(ctx, cephmirror.Object, &op)
}

func (r *statusRun) done(batch []statusUpdate, err error) {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.w.busy = false
	if err != nil {
		r.w.book.failed(batch, time.Now())
		return
	}
	r.w.book.written(batch)
	r.w.cond.LastWrite = time.Now()
	r.w.releaseIdle()
}

// failure notes how a step went and when to try again. Only being fenced is returned.
func (r *statusRun) failure(ctx context.Context, err error) error {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	if err == nil {
		r.retry = time.Time{}
		r.w.cond.Failures, r.w.cond.Err = 0, nil
		return nil
	}
	if ctx.Err() != nil {
		return nil // Run is about to end
	}
	r.w.cond.Err = err
	if errors.Is(err, rados.Blocklisted) {
		return err
	}
	delay := r.w.cfg.Retry << min(r.w.cond.Failures, 16)
	r.w.cond.Failures++
	r.retry = time.Now().Add(min(delay, r.w.cfg.Beat))
	return nil
}

// end writes what is left and gives the watch up, within the timeout.
func (r *statusRun) end(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.w.cfg.Timeout)
	defer cancel()
	if r.watch == nil {
		return // what was written now would count as down at once
	}
	r.w.mu.Lock()
	now := time.Now()
	for _, e := range r.w.book.entries {
		if e.pending {
			e.await(now)
		}
	}
	r.w.mu.Unlock()
	if r.retry.IsZero() {
		_ = r.write(ctx) // statuses are told as well as can be; there is nobody left to tell
	}
	r.unregister(ctx)
}
