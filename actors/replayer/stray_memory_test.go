package replayer_test

import (
	"context"
	"strings"
	"testing"
	"time"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/image"
	imagesync "github.com/rbdwarden/rbdwarden/image/sync"
)

// late is a primary on which something happens around the making of a sync point.
type late struct {
	snapshots
	around func(create func())
}

func (l late) Create(ctx context.Context, name string) (err error) {
	l.around(func() { err = l.snapshots.Create(ctx, name) })
	return err
}

// swept waits until the primary has no sync point of ours.
func (s *scene) swept(why string) {
	s.t.Helper()
	var left []string
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		left = nil
		for _, snap := range must(image.ReadHeader(s.t.Context(), s.primary, "r1"))(s.t).Snapshots {
			if strings.HasPrefix(snap.Name, imagesync.SyncPointPrefix("local-uuid")) {
				left = append(left, snap.Name)
			}
		}
		if len(left) == 0 {
			return
		}
	}
	s.t.Errorf("%s: sync points %q are left on the primary", why, left)
}

// A sync point that the primary makes late, for a worker that is dead, is removed: one that comes before ours, one that comes
// while the copy is under way, one that comes when the image replays, one that was there when the image was started again.
// Another site's stays.
func TestLateSyncPointsAreRemoved(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		s := newScene(t, 6, false)
		ctx, primary := t.Context(), s.librbd("r1")
		stray := func(n string) string { return imagesync.SyncPointPrefix("local-uuid") + n }
		op := wire.OpTID(2000)
		journalled := func(name string) {
			check(t, primary.Create(ctx, name))
			op++
			s.append(wire.SnapCreate{Op: op, Name: name})
			s.append(wire.OpFinish{Op: op})
		}
		made := false
		s.onSync = func(create func()) {
			made = true
			check(t, primary.Create(ctx, stray("before")))
			create()
			check(t, primary.Create(ctx, stray("behind")))
		}
		s.write(0, "A")
		w := s.start()
		s.caughtUp(w)
		s.swept("around the copy's own")
		if !made {
			t.Fatal("no sync point was made")
		}

		check(t, primary.Create(ctx, ".rbd-mirror.others.one"))
		journalled(stray("late"))
		s.write(1, "B")
		s.caughtUp(w)
		s.swept("while the image replays")

		s.stop(w)
		check(t, primary.Create(ctx, stray("meanwhile")))
		w = s.start()
		s.caughtUp(w)
		s.swept("before a start")
		h := must(image.ReadHeader(ctx, s.primary, "r1"))(t)
		if len(h.Snapshots) != 1 || h.Snapshots[0].Name != ".rbd-mirror.others.one" {
			t.Errorf("snapshots of the primary: %+v", h.Snapshots)
		}
		s.stop(w)
		s.equal()
	})
}
