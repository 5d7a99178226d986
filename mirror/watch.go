package mirror

import (
	"context"
	"fmt"
	"time"

	cephmirror "github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/rados"
)

// Handler gets what happens to the records of a pool and namespace. Its methods are
// called from one goroutine, one after the other, and must not block for long.
type Handler interface {
	// ModeUpdated: the pool's mode has changed.
	ModeUpdated(mode cephmirror.Mode)
	// ImageUpdated: an image's record has changed; ImageDisabled: it is gone.
	ImageUpdated(ev cephmirror.ImageUpdated)
	// Unreadable: something has changed, but the notification could not be
	// understood; read all again.
	Unreadable(reason error)
	// WatchLost: nothing more will come; watch again, then read all again.
	WatchLost(err error)
}

// Watch calls h for what happens on rbd_mirroring, until the watch is closed.
// Notifications are acknowledged before h is called, so a slow handler delays no "rbd
// mirror" command. What happened before Watch returned may be missed: list after it.
func Watch(ctx context.Context, io rados.IOContext, h Handler) (rados.Watch, error) {
	return io.Watch(ctx, cephmirror.Object, watchTimeout, watcher{h})
}

// watchTimeout 0 takes the cluster's default.
const watchTimeout time.Duration = 0

type watcher struct{ Handler }

func (w watcher) Notified(n rados.Notification) {
	n.Ack(nil)
	ev, err := cephmirror.DecodeEvent(n.Payload)
	if err != nil {
		w.Unreadable(fmt.Errorf("notification on %s from client.%d: %w", cephmirror.Object, n.NotifierID, err))
		return
	}
	switch ev := ev.(type) {
	case cephmirror.ModeUpdated:
		w.ModeUpdated(ev.Mode)
	case cephmirror.ImageUpdated:
		w.ImageUpdated(ev)
	case cephmirror.UnknownEvent:
		w.Unreadable(fmt.Errorf("notification on %s from client.%d: unknown operation %d", cephmirror.Object, n.NotifierID, ev.Operation))
	}
}
