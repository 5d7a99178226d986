package journal

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rbdwarden/rbdwarden/rados"
)

// rewatchPause is the time between attempts to watch the header again
// (JournalMetadata::schedule_watch_reset).
const rewatchPause = time.Second

// Watch calls changed, from goroutines of its own, whenever somebody has changed
// the header, and when the watch was lost, since a change may have been missed
// then; a lost watch is set again until stop is called. changed must not block.
// stop waits until no call is under way; call it before Journal.Close.
//
// All who watch share one watch of the cluster's: each costs the OSD an operation every
// five seconds. Of its own commits a Journal does not tell.
func (j *Journal) Watch(ctx context.Context, changed func()) (stop func(), err error) {
	j.watching.Lock()
	defer j.watching.Unlock()
	w := j.watch
	if w == nil {
		if w, err = j.beginWatch(ctx); err != nil {
			return nil, fmt.Errorf("watch journal: %w", err)
		}
	}
	listener := &changed
	w.mu.Lock()
	w.listeners = append(w.listeners, listener)
	w.mu.Unlock()
	return func() {
		j.watching.Lock()
		defer j.watching.Unlock()
		w.mu.Lock() // nobody is being told while it is held
		i := slices.Index(w.listeners, listener)
		if i >= 0 {
			w.listeners = slices.Delete(w.listeners, i, i+1)
		}
		last := i >= 0 && len(w.listeners) == 0
		w.mu.Unlock()
		if last {
			j.watch = nil
			w.cancel()
			w.done.Wait()
		}
	}, nil
}

// beginWatch sets the watch. j.watching is held.
func (j *Journal) beginWatch(ctx context.Context) (*headerWatch, error) {
	w := &headerWatch{j: j, lost: make(chan struct{}, 1)}
	watch, err := j.header.Watch(ctx, j.HeaderObject(), 0, w)
	if err != nil {
		return nil, err
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	w.cancel = cancel
	w.done.Go(func() { w.run(run, watch) })
	j.watch = w
	return w, nil
}

// headerWatch is the handler of a Journal's watch, and the loop that keeps it alive.
type headerWatch struct {
	j      *Journal
	lost   chan struct{} // the current watch has ended by itself
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu        sync.Mutex // held while listeners are told
	listeners []*func()
}

// changed tells all who listen.
func (w *headerWatch) changed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, tell := range w.listeners {
		(*tell)()
	}
}

// Notified acknowledges with nothing: notifications on the header have no content.
func (w *headerWatch) Notified(n rados.Notification) {
	n.Ack(nil)
	if !w.j.ownEcho(n.NotifierID) {
		w.changed()
	}
}

func (w *headerWatch) WatchLost(error) {
	select {
	case w.lost <- struct{}{}:
	default:
	}
}

func (w *headerWatch) run(ctx context.Context, watch rados.Watch) {
	for {
		select {
		case <-ctx.Done():
		case <-w.lost:
			w.changed()
		}
		w.close(watch)
		if watch = w.rewatch(ctx); watch == nil {
			return
		}
		w.changed()
	}
}

// close gives up the watch; what the cluster thinks of it no longer matters.
func (w *headerWatch) close(watch rados.Watch) {
	ctx, cancel := context.WithTimeout(context.Background(), notifyTimeout)
	defer cancel()
	_ = watch.Close(ctx)
}

// rewatch tries until it has a watch or ctx ends (nil).
func (w *headerWatch) rewatch(ctx context.Context) rados.Watch {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(rewatchPause):
		}
		if watch, err := w.j.header.Watch(ctx, w.j.HeaderObject(), 0, w); err == nil {
			return watch
		}
	}
}
