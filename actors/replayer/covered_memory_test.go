package replayer_test

import (
	"context"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/image"
	imagesync "github.com/rbdwarden/rbdwarden/image/sync"
)

// journalled makes sync points with their events.
type journalled struct {
	snapshots
	s *scene
}

func (s *scene) remoteSnapshots(id string) imagesync.Snapshots {
	if s.onSync != nil {
		return late{s.librbd(id), s.onSync}
	}
	if s.journals {
		return journalled{s.librbd(id), s}
	}
	return s.librbd(id)
}

func (j journalled) Create(ctx context.Context, name string) error {
	j.s.append(wire.SnapCreate{Op: 1000, Name: name})
	defer j.s.append(wire.OpFinish{Op: 1000})
	return j.snapshots.Create(ctx, name)
}

// An operation is under way while the image is copied. What lies between its event and the sync point is in the copy: the
// compare-and-writes there would come out differently on it. The operation itself is not, and is done when it ends, by
// another worker, too.
func TestOperationUnderWayAtTheSyncPoint(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		s := newScene(t, 7, false)
		s.journals = true
		s.write(0, "A")
		s.append(wire.Rename{Op: 1, Name: "moved"})
		s.compareAndWrite(0, "B", "C") // not so
		s.compareAndWrite(0, "A", "B")
		ctx := t.Context()
		check(t, s.librbd("r1").with(ctx, func(im *image.Image) error {
			_, err := im.Apply(ctx, []image.IO{{Kind: image.Write, Length: 512, Data: s.model[:512]}})
			return err
		}))
		w := s.start()
		replaying := func() bool { return w.said().Step == core.Replaying.String() }
		s.until("it replays", replaying)
		s.write(4, "X")
		w.die()
		w = s.start()
		s.until("it replays again", replaying)
		time.Sleep(time.Second) // of the bubble: whatever can be done is done
		s.equal()
		if _, name := s.replica(); name == "moved" {
			t.Error("an operation was done before it ended on the primary")
		}
		s.append(wire.OpFinish{Op: 1})
		s.write(5, "Y")
		s.caughtUp(w)
		s.stop(w)
		s.equal()
		if _, name := s.replica(); name != "moved" {
			t.Errorf("the replica is called %q", name)
		}
	})
}
