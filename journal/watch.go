package journal

import (
	"context"
	"fmt"
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
func (j *Journal) Watch(ctx context.Context, changed func()) (stop func(), err error) {
	w := &headerWatch{j: j, changed: changed, lost: make(chan struct{}, 1)}
	watch, err := j.header.Watch(ctx, j.HeaderObject(), 0, w)
	if err != nil {
		return nil, fmt.Errorf("watch journal: %w", err)
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var done sync.WaitGroup
	done.Go(func() { w.run(run, watch) })
	return func() {
		cancel()
		done.Wait()
	}, nil
}

// headerWatch is one Watch: its handler, and the loop that keeps it alive.
type headerWatch struct {
	j       *Journal
	changed func()
	lost    chan struct{} // the current watch has ended by itself
}

// Notified acknowledges with nothing: notifications on the header have no content.
func (w *headerWatch) Notified(n rados.Notification) {
	n.Ack(nil)
	w.changed()
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
