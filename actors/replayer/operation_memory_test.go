package replayer_test

import (
	"bytes"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/journal"
	mirrorpool "github.com/rbdwarden/rbdwarden/mirror"
	"github.com/rbdwarden/rbdwarden/rados/mem"
)

// newTag begins another session of the primary, which has completed what the one before left unfinished.
func (s *scene) newTag() {
	s.t.Helper()
	before := wire.TagPredecessor{MirrorUUID: wire.LocalMirrorUUID, CommitValid: true, Tag: s.tag.TID, Entry: s.next - 1}
	j := must(journal.Open(s.t.Context(), s.primary, "r1"))(s.t)
	defer j.Close()
	s.tag = must(j.AllocateTag(s.t.Context(), s.tag.Class, wire.TagData{MirrorUUID: wire.LocalMirrorUUID, Predecessor: before}))(s.t)
	s.next = 0
}

// replica reads the header of the local image, and tells its name.
func (s *scene) replica() (h *image.Header, name string) {
	s.t.Helper()
	ctx, io := s.t.Context(), s.trustedLocal()
	id, _, err := mirrorpool.FindImage(ctx, io, globalID)
	check(s.t, err)
	return must(image.ReadHeader(ctx, io, id))(s.t), must(image.Name(ctx, io, id))(s.t)
}

// saved compares a snapshot of the local image with what the image held when it was taken.
func (s *scene) saved(name string, want []byte) {
	s.t.Helper()
	h, _ := s.replica()
	snap := h.Snapshot(rbd.UserSnapshot{}, name)
	if snap == nil {
		s.t.Errorf("%s is missing", name)
		return
	}
	io := s.trustedLocal()
	id, _, err := mirrorpool.FindImage(s.t.Context(), io, globalID)
	check(s.t, err)
	s.holds(io, id, snap.ID, want)
}

// The primary's client dies in the middle of an operation: the journal has the event and no end of it. Its next client
// completes what is in the journal, and begins a new tag; so the replica does it, at its place among the writes.
func TestOperationsThatWereUnderWay(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		s := newScene(t, 4, false)
		s.write(0, "AB")
		w := s.start()
		s.caughtUp(w)
		begin := func(ev wire.Event) {
			s.append(ev)
			s.newTag()
			s.write(4, "C")
		}

		s.op++
		first := bytes.Clone(s.model)
		begin(wire.SnapCreate{Op: s.op, Name: "snap-1"})
		s.write(0, "Z")
		s.caughtUp(w)
		s.saved("snap-1", first)

		s.model = s.model[:imageSize/2]
		begin(wire.Resize{Op: 1, Size: imageSize / 2})
		s.write(1, "Y")
		s.caughtUp(w)
		s.equal()

		s.model = bytes.Clone(first)
		begin(wire.SnapRollback{Op: 1, Name: "snap-1"})
		s.write(2, "X")
		s.caughtUp(w)
		s.equal()

		begin(wire.Rename{Op: 1, Name: "moved"})
		s.write(3, "W")
		s.caughtUp(w)
		if _, name := s.replica(); name != "moved" {
			t.Errorf("the replica is called %q", name)
		}
		s.stop(w)
		s.equal()
	})
}

// What failed on the primary must not be done on the replica, and must not stop it.
func TestOperationsThatFailedOnThePrimary(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		s := newScene(t, 5, false)
		s.op++
		s.append(wire.SnapCreate{Op: 1, Name: "snap-1"})
		s.append(wire.OpFinish{Op: 1})
		w := s.start()
		s.caughtUp(w)
		before, name := s.replica()
		for i, failed := range []struct {
			event func(wire.OpTID) wire.Event
			errno syscall.Errno
		}{
			{func(op wire.OpTID) wire.Event { return wire.SnapUnprotect{Op: op, Name: "snap-1"} }, syscall.EBUSY},
			{func(op wire.OpTID) wire.Event { return wire.SnapRemove{Op: op, Name: "snap-1"} }, syscall.EBUSY},
			{func(op wire.OpTID) wire.Event { return wire.SnapCreate{Op: op, Name: "above the limit"} }, syscall.EDQUOT},
			{func(op wire.OpTID) wire.Event { return wire.SnapLimit{Op: op, Limit: 0} }, syscall.ERANGE},
			{func(op wire.OpTID) wire.Event { return wire.Resize{Op: op, Size: 2 * imageSize} }, syscall.EINVAL},
			{func(op wire.OpTID) wire.Event { return wire.Resize{Op: op, Size: imageSize / 2} }, syscall.ERESTART},
			{func(op wire.OpTID) wire.Event { return wire.Rename{Op: op, Name: "taken"} }, syscall.EEXIST},
			{func(op wire.OpTID) wire.Event { return wire.MetadataSet{Op: op, Key: "conf_rbd_nonsense", Value: "1"} }, syscall.EINVAL},
		} {
			op := wire.OpTID(10 + i)
			s.append(failed.event(op))
			s.write(i, "A")
			s.append(wire.OpFinish{Op: op, Result: -int32(failed.errno)})
		}
		s.caughtUp(w)
		s.stop(w)
		s.equal()
		after, renamed := s.replica()
		if renamed != name || after.Size != before.Size || after.SnapLimit != before.SnapLimit || len(after.Snapshots) != len(before.Snapshots) {
			t.Errorf("the replica was %q %+v, and is %q %+v", name, before, renamed, after)
		}
	})
}

// A limit that the primary was below and the replica is not must not stop it; what limits it then is the number of
// snapshots that it has.
func TestSnapshotAboveTheReplicasLimit(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		s := newScene(t, 6, false)
		for _, ev := range []wire.Event{
			wire.SnapCreate{Op: 1, Name: "snap-1"}, wire.OpFinish{Op: 1},
			wire.SnapLimit{Op: 2, Limit: 1}, wire.OpFinish{Op: 2},
			wire.SnapCreate{Op: 3, Name: "snap-2"}, wire.OpFinish{Op: 3},
		} {
			s.append(ev)
		}
		s.op = 2
		w := s.start()
		s.caughtUp(w)
		s.stop(w)
		s.equal()
		if h, _ := s.replica(); h.SnapLimit != uint64(len(h.Snapshots)) || h.SnapLimit < 2 {
			t.Errorf("the limit is %d with %d snapshots", h.SnapLimit, len(h.Snapshots))
		}
	})
}

// What is done to a snapshot that neither site has is forgiven: it was removed later on. A roll-back to it is not: what it
// brought back is nowhere else.
func TestOperationsOnMissingSnapshots(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		s := newScene(t, 7, false)
		s.append(wire.SnapRename{Op: 1, SnapID: 999, OldName: "gone", NewName: "other"})
		s.append(wire.OpFinish{Op: 1})
		s.write(0, "A")
		w := s.start()
		s.caughtUp(w)
		s.equal()
		s.append(wire.SnapRollback{Op: 2, Name: "gone"})
		s.append(wire.OpFinish{Op: 2})
		for deadline := time.Now().Add(time.Minute); !strings.Contains(w.said().Description, "resync the image"); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("a roll-back to nothing: %+v", w.said())
			}
		}
		if s.behind() == "" {
			t.Error("the roll-back counts as replayed")
		}
		s.stop(w)
	})
}

// A snapshot that was removed on the primary while the first copy was made is not what it was there: a roll-back to it,
// which the journal has before its removal, would bring back what nobody knows.
func TestRollbackToWhatVanishedInTheSync(t *testing.T) {
	t.Parallel()
	s := newScene(t, 8, false)
	ctx := t.Context()
	primary := func(fn func(*image.Image) error) { check(t, s.librbd("r1").with(ctx, fn)) }
	for _, name := range []string{"whole", "vanishes"} {
		primary(func(im *image.Image) error {
			_, _, err := im.SnapCreate(ctx, rbd.UserSnapshot{}, name)
			return err
		})
	}
	var once sync.Once
	vanish := mem.FaultFunc(func(op mem.Op) mem.Verdict {
		if op.Kind == mem.Write && strings.HasPrefix(op.Object, "rbd_data.") && !strings.HasPrefix(op.Object, "rbd_data.r1") {
			once.Do(func() {
				primary(func(im *image.Image) error {
					_, err := im.SnapRemove(ctx, rbd.UserSnapshot{}, "vanishes")
					return err
				})
			})
		}
		return mem.Verdict{}
	})
	s.fault.Store(&vanish)
	s.write(0, "A")
	w := s.start()
	s.caughtUp(w)
	s.append(wire.SnapRollback{Op: 1, Name: "whole"})
	s.append(wire.OpFinish{Op: 1})
	s.caughtUp(w)
	s.append(wire.SnapRollback{Op: 2, Name: "vanishes"})
	s.append(wire.OpFinish{Op: 2})
	s.until("the roll-back is refused", func() bool {
		return strings.Contains(w.said().Description, "removed on the primary while it was being copied")
	})
	if s.behind() == "" {
		t.Error("the roll-back counts as replayed")
	}
	s.stop(w)
}
