package image_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/image/lock"
	"github.com/rbdwarden/rbdwarden/journal"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/mem"
)

const (
	trashID   = "l1"
	trashName = "vm"
)

// trashScene is a pool with one local copy, on a cluster whose clients can be killed.
type trashScene struct {
	t     *testing.T
	store *mem.Store
	io    rados.IOContext // of a client that lives

	mu      sync.Mutex
	objects map[string]bool // all that were ever written
	doomed  *mem.Client
	left    int  // operations that doomed may still start
	after   bool // its last operation is performed
}

func newTrashScene(t *testing.T) *trashScene {
	t.Helper()
	s := &trashScene{t: t, objects: map[string]bool{}}
	s.store = mem.New(mem.Options{
		WatchTimeout: 20 * time.Millisecond, Faults: mem.FaultFunc(s.judge),
		Config: map[string]string{
			"rbd_default_data_pool": "", "rbd_journal_order": "24", "rbd_journal_splay_width": "4", "rbd_journal_pool": "",
			"rbd_blocklist_expire_seconds": "0",
		},
	})
	s.store.AddPool("rbd")
	s.io = s.open(s.store.Connect())
	ctx := t.Context()
	fatal(t, rados.Tell(ctx, s.io, mirror.Object, mirror.SetUUID("local-uuid")))
	fatal(t, rados.Tell(ctx, s.io, mirror.Object, mirror.SetMode(mirror.ModePool)))
	return s
}

func (s *trashScene) judge(op mem.Op) mem.Verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	if op.Kind == mem.Write {
		s.objects[op.Object] = true
	}
	if op.Client != s.doomed {
		return mem.Verdict{}
	}
	s.left--
	return mem.Verdict{CrashBefore: s.left == 0 && !s.after, CrashAfter: s.left == 0 && s.after}
}

func (s *trashScene) open(c *mem.Client) rados.IOContext {
	s.t.Helper()
	io, err := c.Open(s.t.Context(), "rbd", "")
	fatal(s.t, err)
	return io
}

// mortal is a client that dies at its nth operation.
func (s *trashScene) mortal(n int) rados.IOContext {
	c := s.store.Connect()
	s.mu.Lock()
	s.doomed, s.left, s.after = c, n, n%2 == 0
	s.mu.Unlock()
	return s.open(c)
}

// lock are lock options under which nobody waits for the dead.
func (s *trashScene) lock() lock.Options {
	return lock.Options{
		Description: "test", KnownDead: func(string) bool { return s.doomed != nil && s.doomed.Crashed() },
		RetryDelay: time.Millisecond, DeadGrace: time.Millisecond, RewatchGrace: time.Millisecond, ReleaseWait: time.Millisecond,
		NotifyTimeout: 10 * time.Millisecond, CheckInterval: time.Second, CleanupTimeout: time.Second, ReacquireTimeout: time.Second,
	}
}

// create makes a copy with data and a protected snapshot.
func (s *trashScene) create() {
	s.t.Helper()
	ctx := s.t.Context()
	_, err := image.Create(ctx, s.io, image.CreateSpec{
		ID: trashID, Name: trashName, GlobalID: "global", RemoteMirrorUUID: "remote-uuid", Size: 1 << 20, Order: 16,
		Features: rbd.FeatureLayering | rbd.FeatureExclusiveLock | rbd.FeatureJournaling | rbd.FeatureObjectMap,
	})
	fatal(s.t, err)
	im, err := image.Open(ctx, s.io, trashID, image.Options{Lock: s.lock()})
	fatal(s.t, err)
	_, err = im.Apply(ctx, []image.IO{{Kind: image.Write, Offset: 5, Length: 5, Data: []byte("hello")}})
	fatal(s.t, err)
	_, _, err = im.SnapCreate(ctx, nil, "snap")
	fatal(s.t, err)
	_, err = im.SnapProtect(ctx, nil, "snap")
	fatal(s.t, err)
	fatal(s.t, im.Close(ctx))
}

// remains are the objects that have the image's id or name in theirs.
func (s *trashScene) remains() (left []string) {
	s.t.Helper()
	s.mu.Lock()
	names := make([]string, 0, len(s.objects))
	for o := range s.objects {
		names = append(names, o)
	}
	s.mu.Unlock()
	for _, o := range names {
		if !strings.Contains(o, trashID) && !strings.Contains(o, trashName) {
			continue
		}
		var op rados.ReadOp
		op.Stat()
		if err := s.io.Read(s.t.Context(), o, &op); err == nil {
			left = append(left, o)
		} else if !errors.Is(err, syscall.ENOENT) {
			s.t.Fatal(err)
		}
	}
	return left
}

// inTrash checks everything about an image that has arrived in the trash.
func (s *trashScene) inTrash(deleted, deferment time.Time) error {
	ctx := s.t.Context()
	entry, err := rados.Ask(ctx, s.io, rbd.TrashObject, rbd.TrashGet(trashID))
	if err != nil {
		return err
	}
	want := rbd.TrashSpec{Source: rbd.TrashMirroring, Name: trashName, State: rbd.TrashNormal, DeletionTime: entry.DeletionTime, DefermentEnds: entry.DefermentEnds}
	if entry != want || !entry.DeletionTime.Equal(deleted) || !entry.DefermentEnds.Equal(deferment) {
		return fmt.Errorf("in the trash: %+v", entry)
	}
	for what, err := range map[string]error{
		"mirror record": drop(rados.Ask(ctx, s.io, mirror.Object, mirror.ImageGet(trashID))),
		"directory":     drop(image.Name(ctx, s.io, trashID)),
		"name":          drop(image.ID(ctx, s.io, trashName)),
	} {
		if !errors.Is(err, syscall.ENOENT) {
			return fmt.Errorf("%s is still there: %w", what, err)
		}
	}
	// Who restores it may write it.
	j, err := journal.Open(ctx, s.io, trashID)
	if err != nil {
		return err
	}
	defer j.Close()
	tags, err := j.Tags(ctx, wire.MasterClientID, nil)
	if err != nil || len(tags) != 1 {
		return fmt.Errorf("tags %v, %w", tags, err)
	}
	if data, err := wire.DecodeTagData(tags[0].Data); err != nil || data.MirrorUUID != wire.LocalMirrorUUID {
		return fmt.Errorf("tag %+v, %w", data, err)
	}
	im, err := image.Open(ctx, s.io, trashID, image.Options{Lock: s.lock(), AllowPrimary: true})
	if err != nil {
		return err
	}
	return im.Close(ctx)
}

// Killed anywhere on the way to the trash, and anywhere on the way out of it: the next
// one completes it. Nothing is deleted before its time.
func TestTrashSurvivesDeath(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	ends := now.Add(time.Hour)
	for n := 1; ; n++ {
		s := newTrashScene(t)
		s.create()
		ctx := t.Context()
		moved := image.MoveToTrash(ctx, s.mortal(n), trashID, now, ends, s.lock())
		died := s.doomed.Crashed() // what fails is not always told: an announcement that nobody hears is none
		// The successor is later, but the deferment counts from the beginning.
		fatal(t, image.MoveToTrash(ctx, s.io, trashID, now, ends, s.lock()))
		if err := s.inTrash(now, ends); err != nil {
			t.Fatalf("killed at operation %d: %v", n, err)
		}
		fatal(t, image.RemoveFromTrash(ctx, s.io, trashID, ends.Add(-time.Second), s.lock()))
		if err := s.inTrash(now, ends); err != nil {
			t.Fatalf("before its time: %v", err)
		}
		removed := image.RemoveFromTrash(ctx, s.mortal(n), trashID, ends, s.lock())
		died = died || s.doomed.Crashed()
		again := image.RemoveFromTrash(ctx, s.io, trashID, ends, s.lock())
		for errors.Is(again, syscall.EBUSY) { // while the dead client's watch lasts
			again = image.RemoveFromTrash(ctx, s.io, trashID, ends, s.lock())
		}
		fatal(t, again)
		if left := s.remains(); len(left) > 0 {
			t.Fatalf("killed at operation %d: left behind: %q", n, left)
		}
		if copies, err := image.TrashedCopies(ctx, s.io); err != nil || len(copies) > 0 {
			t.Fatalf("killed at operation %d: in the trash: %v, %v", n, copies, err)
		}
		if !died {
			fatal(t, moved)
			fatal(t, removed)
			if n < 20 {
				t.Errorf("done after %d operations already", n)
			}
			return
		}
	}
}

// What is not mirroring's, is being restored, or has become primary is left alone.
func TestTrashLeavesOthersAlone(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	t.Run("primary", func(t *testing.T) {
		s := newTrashScene(t)
		s.create()
		j, err := journal.Open(t.Context(), s.io, trashID)
		fatal(t, err)
		_, err = j.AllocateTag(t.Context(), 0, wire.TagData{MirrorUUID: wire.LocalMirrorUUID})
		fatal(t, err)
		j.Close()
		var primary *image.PrimaryError
		if err := image.MoveToTrash(t.Context(), s.io, trashID, now, now, s.lock()); !errors.As(err, &primary) {
			t.Fatalf("moved a primary image: %v", err)
		}
		if id, err := image.ID(t.Context(), s.io, trashName); err != nil || id != trashID {
			t.Errorf("its name leads to %q, %v", id, err)
		}
	})
	t.Run("not mirrored", func(t *testing.T) {
		s := newTrashScene(t)
		s.create()
		record := mirror.Image{GlobalID: "global", State: mirror.ImageDisabling}
		fatal(t, rados.Tell(t.Context(), s.io, mirror.Object, mirror.ImageSet(trashID, record)))
		fatal(t, rados.Tell(t.Context(), s.io, mirror.Object, mirror.ImageRemove(trashID)))
		fatal(t, image.MoveToTrash(t.Context(), s.io, trashID, now, now, s.lock()))
		if id, err := image.ID(t.Context(), s.io, trashName); err != nil || id != trashID {
			t.Errorf("its name leads to %q, %v", id, err)
		}
	})
	for name, entry := range map[string]rbd.TrashSpec{
		"the user's":      {Source: rbd.TrashUser, Name: trashName},
		"being restored":  {Source: rbd.TrashMirroring, Name: trashName, State: rbd.TrashRestoring},
		"still being put": {Source: rbd.TrashMirroring, Name: trashName, State: rbd.TrashMoving},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTrashScene(t)
			s.create()
			fatal(t, image.MoveToTrash(t.Context(), s.io, trashID, now, now, s.lock()))
			fatal(t, rados.Tell(t.Context(), s.io, rbd.TrashObject, rbd.TrashRemove(trashID)))
			fatal(t, rados.Tell(t.Context(), s.io, rbd.TrashObject, rbd.TrashAdd(trashID, entry)))
			before := len(s.remains())
			err := image.RemoveFromTrash(t.Context(), s.io, trashID, now.Add(time.Hour), s.lock())
			if entry.State != rbd.TrashNormal && !errors.Is(err, syscall.EBUSY) {
				t.Errorf("got %v", err)
			}
			if after := len(s.remains()); after != before {
				t.Errorf("%d of %d objects are left", after, before)
			}
		})
	}
}

func TestMirroringOptions(t *testing.T) {
	s := newTrashScene(t)
	s.create()
	ctx := t.Context()
	defaults := image.MirroringOptions{DeleteDelay: time.Minute}
	read := func() image.MirroringOptions {
		t.Helper()
		o, _, err := image.ReadMirroringOptions(ctx, s.io, trashID, defaults)
		fatal(t, err)
		return o
	}
	if o := read(); o != defaults {
		t.Errorf("nothing set: %+v", o)
	}
	set := func(object string, pairs map[string]string) {
		values := map[string][]byte{}
		for k, v := range pairs {
			values[k] = []byte(v)
		}
		fatal(t, rados.Tell(ctx, s.io, object, rbd.MetadataSet(values)))
	}
	set(rbd.InfoObject, map[string]string{
		"conf_rbd_mirroring_replay_delay": "7", "conf_rbd_mirroring_delete_delay": "5", "conf_rbd_qos_iops_limit": "9",
	})
	if o := read(); o.ReplayDelay != 7*time.Second || o.DeleteDelay != 5*time.Second {
		t.Errorf("the pool's: %+v", o)
	}
	set(rbd.HeaderObject(trashID), map[string]string{
		"conf_rbd_mirroring_replay_delay": "90", "conf_rbd_mirroring_resync_after_disconnect": "true",
		"conf_rbd_mirroring_delete_delay": "-3",
	})
	o, bad, err := image.ReadMirroringOptions(ctx, s.io, trashID, defaults)
	fatal(t, err)
	if want := (image.MirroringOptions{ReplayDelay: 90 * time.Second, DeleteDelay: 5 * time.Second, ResyncAfterDisconnect: true}); o != want {
		t.Errorf("the image's: %+v", o)
	}
	if fmt.Sprint(bad) != `[rbd_mirroring_delete_delay = "-3"]` {
		t.Errorf("bad values: %q", bad)
	}
}

func drop[V any](_ V, err error) error { return err }

func fatal(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
