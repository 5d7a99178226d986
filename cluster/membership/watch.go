package membership

import (
	"context"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/rados"
)

// watch keeps a watch on the object until ctx ends. It only hurries: without it, all is
// seen a heartbeat later.
func (g *Group) watch(ctx context.Context) {
	for ctx.Err() == nil {
		lost := make(chan error, 1)
		w, err := g.io.Watch(ctx, Object, 0, &watcher{g, lost})
		if err == nil {
			nudge(g.poked) // there may have been news without it
			select {
			case <-ctx.Done():
			case err = <-lost:
			}
			g.closeWatch(ctx, w)
		}
		if err != nil && rados.Classify(err) == rados.Fenced {
			select {
			case g.fatal <- err:
			default:
			}
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(g.opt.Beat):
		}
	}
}

func (g *Group) closeWatch(ctx context.Context, w rados.Watch) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	_ = w.Close(ctx) // it is gone, or will be when the OSD misses it
}

// watcher gets the news of one watch.
type watcher struct {
	g    *Group
	lost chan error
}

// Notified implements rados.WatchHandler. It acknowledges last: whoever notifies is told that
// the members have the payload, not that it has reached their hosts.
func (w *watcher) Notified(n rados.Notification) {
	defer n.Ack(nil)
	m, err := class.Decode("notification", n.Payload, readMessage)
	switch {
	case err != nil:
		w.g.opt.Log.Warn().Err(w.g.corrupt(err)).Uint64("client", n.NotifierID).Msg("a damaged notification to the members of the pool")
	case m.subject == aboutPayload:
		w.g.opt.Notified(m.payload)
	default:
		nudge(w.g.poked)
	}
}

// WatchLost implements rados.WatchHandler.
func (w *watcher) WatchLost(err error) { w.lost <- err }
