package sim

import (
	"context"
	"errors"
	"fmt"
	"time"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/image/lock"
	"github.com/rbdwarden/rbdwarden/rados"
)

// notifyTimeout is how long the promoting command waits for its notification.
const notifyTimeout = 5 * time.Second

// thinking is how long the command takes between its steps.
const thinking = 1234567 * time.Nanosecond

// promote is a forced promotion of a copy, as "rbd mirror image promote --force" does it,
// and then its user's write: the tag, the notification, the lock. When the lock is the
// user's, the copy is a disk that a power cut could have left (invariant 5), and no worker
// writes it any more (6).
func (w *world) promote(m *model) {
	w.oracle.mu.Lock()
	id, ready := m.copied, m.era != nil && !m.promoting
	m.promoting = m.promoting || ready
	w.oracle.mu.Unlock()
	if !ready {
		return
	}
	w.trace.Add("%s is promoted", m.globalID)
	w.goes.Go(func() {
		if err := w.promoted(w.ctx, m, id); err != nil {
			w.oracle.mu.Lock()
			defer w.oracle.mu.Unlock()
			w.oracle.violated("%s: promotion by force failed: %v", m.globalID, err)
		}
	})
}

func (w *world) promoted(ctx context.Context, m *model, id string) error {
	io, err := w.local.Connect().Open(ctx, poolName, "")
	if err != nil {
		return err
	}
	header := wire.HeaderObject(id)
	tid, err := rados.Ask(ctx, io, header, wire.GetNextTagTID())
	if err != nil {
		return err
	}
	data := wire.Marshal(wire.TagData{MirrorUUID: wire.LocalMirrorUUID})
	if err := rados.Tell(ctx, io, header, wire.TagCreate(tid, 0, data)); err != nil {
		return fmt.Errorf("tag %d: %w", tid, err)
	}
	var im *image.Image
	begin := time.Now()
	for try := 0; im == nil; try++ {
		reply, err := io.Notify(ctx, header, nil, notifyTimeout)
		if err != nil {
			return err
		}
		time.Sleep(thinking)
		w.trace.Add("%s: %d have heard of the promotion, %d not", m.globalID, len(reply.Acks), len(reply.Missed))
		im, err = image.Open(ctx, io, id, image.Options{AllowPrimary: true})
		var refused *lock.RefusedError
		if errors.As(err, &refused) && time.Since(begin) < closeTimeout+notifyTimeout {
			// The notification was lost on its way; or the owner cannot hear it any more, and
			// waits for an operation to end before it lets go.
			time.Sleep(thinking << min(try, 11))
			continue
		}
		if err != nil {
			return err
		}
		time.Sleep(thinking)
	}
	w.oracle.promoted(m)
	b := make([]byte, sector)
	copy(b, "the user's")
	_, err = im.Apply(ctx, []image.IO{{Kind: image.Write, Length: sector, Data: b}})
	w.trace.Add("%s is primary", m.globalID)
	return errors.Join(err, im.Close(ctx))
}
