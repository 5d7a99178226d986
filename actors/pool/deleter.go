package pool

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/report"
)

// Deleter deletes the local copies that mirroring has put into the trash of a pool and
// namespace, each when its deferment has ended, whoever put it there and however often
// daemons were restarted meanwhile: the trash itself is the list of what is to be done
// (src/tools/rbd_mirror/ImageDeleter.cc, image_deleter/TrashWatcher.cc).
type Deleter struct {
	// List lists what mirroring has put into the trash, by image id.
	List func(ctx context.Context) (map[string]rbd.TrashSpec, error)
	// Remove deletes one of them. Its time has come.
	Remove func(ctx context.Context, id string) error
	// Slot waits for one of the deletions that a worker may have under way
	// (rbd_mirror_concurrent_image_deletions).
	Slot func(ctx context.Context) (release func(), err error)
	// Refresh is the time between two lists when nothing asks for one.
	Refresh time.Duration
	// Retry is the pause after a deletion that failed (rbd_mirror_delete_retry_interval).
	Retry time.Duration
	// Fenced is called when this client may not write any more.
	Fenced func(err error)
	Log    zerolog.Logger

	kick  chan struct{}
	told  map[string]string // errors that were logged, by image
	queue *deletions
}

// busyRetry is the pause after a deletion that failed because the image is in use or
// has clones.
const busyRetry = 5 * time.Second

// NewDeleter completes a deleter. Run runs it.
func NewDeleter(d Deleter) *Deleter {
	d.kick, d.told, d.queue = make(chan struct{}, 1), map[string]string{}, newDeletions()
	return &d
}

// Kick makes it look into the trash now.
func (d *Deleter) Kick() {
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

// Queue tells what is still to be deleted, what comes first first. Any goroutine may ask.
func (d *Deleter) Queue() []report.Deletion { return d.queue.list() }

// Run deletes until ctx ends and what is under way has stopped.
func (d *Deleter) Run(ctx context.Context) {
	retry := map[string]time.Time{}
	defer d.queue.listed(nil, nil) // another leader's by then
	for ctx.Err() == nil {
		next := time.Now().Add(d.Refresh)
		copies, err := d.list(ctx)
		if err != nil && ctx.Err() == nil {
			d.news("", err, "cannot list the trash")
		}
		if err == nil {
			delete(d.told, "")
			for id := range retry {
				if _, ok := copies[id]; !ok {
					delete(retry, id)
					delete(d.told, id)
				}
			}
			now := time.Now()
			due, wake := dueCopies(copies, retry, now)
			d.queue.listed(copies, due)
			for id, err := range d.removeAll(ctx, due) {
				retry[id] = time.Now().Add(d.failed(id, err))
				d.queue.failed(id, err, retry[id])
				if retry[id].Before(wake) || wake.IsZero() {
					wake = retry[id]
				}
			}
			if !wake.IsZero() && wake.Before(next) {
				next = wake
			}
		}
		timer := time.NewTimer(time.Until(next))
		select {
		case <-ctx.Done():
		case <-d.kick:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// dueCopies are the images to delete now, those first whose time came first, and when
// the next one is due; zero if none is left.
func dueCopies(copies map[string]rbd.TrashSpec, retry map[string]time.Time, now time.Time) (due []string, wake time.Time) {
	for id, spec := range copies {
		at := spec.DefermentEnds
		if again, ok := retry[id]; ok && again.After(at) {
			at = again
		}
		switch {
		case !at.After(now):
			due = append(due, id)
		case wake.IsZero() || at.Before(wake):
			wake = at
		}
	}
	slices.SortFunc(due, func(a, b string) int {
		if c := copies[a].DefermentEnds.Compare(copies[b].DefermentEnds); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
	return due, wake
}

// removeAll deletes images, as many at a time as there are slots, and tells which failed.
func (d *Deleter) removeAll(ctx context.Context, ids []string) map[string]error {
	var (
		running sync.WaitGroup
		mu      sync.Mutex
		failed  = map[string]error{}
	)
	for _, id := range ids {
		release, err := d.Slot(ctx)
		if err != nil {
			break
		}
		running.Go(func() {
			defer release()
			err := d.remove(ctx, id)
			if err == nil {
				d.queue.done(id)
			} else if ctx.Err() == nil {
				mu.Lock()
				failed[id] = err
				mu.Unlock()
			}
		})
	}
	running.Wait()
	return failed
}

// remove deletes one image. A panic is an error like others: it must not end the worker.
func (d *Deleter) remove(ctx context.Context, id string) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	if err := d.Remove(ctx, id); err != nil {
		return err
	}
	d.Log.Info().Str("id", id).Msg("deleted an image from the trash")
	return nil
}

func (d *Deleter) list(ctx context.Context) (_ map[string]rbd.TrashSpec, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return d.List(ctx)
}

// failed decides when a deletion is tried again.
func (d *Deleter) failed(id string, err error) time.Duration {
	d.news(id, err, "cannot delete an image from the trash yet")
	if rados.Classify(err) == rados.Fenced {
		d.Fenced(err)
	}
	var children *image.ChildrenError
	if errors.Is(err, syscall.EBUSY) || errors.As(err, &children) {
		return min(busyRetry, d.Retry)
	}
	return d.Retry
}

// news logs an error once, not at every attempt.
func (d *Deleter) news(id string, err error, text string) {
	if d.told[id] == err.Error() {
		return
	}
	d.told[id] = err.Error()
	d.Log.Warn().Err(err).Str("id", id).Msg(text)
}
