package replayer_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/journal"
	mirrorpool "github.com/rbdwarden/rbdwarden/mirror"
	"github.com/rbdwarden/rbdwarden/rados"
)

const (
	parentGlobalID = "global-parent"
	parentSize     = imageSize * 5 / 8
	allFeatures    = rbd.FeatureLayering | rbd.FeatureExclusiveLock | rbd.FeatureJournaling | rbd.FeatureObjectMap | rbd.FeatureFastDiff
)

// newFamilyScene is a scene whose image is a clone, which has a snapshot "base" and data
// of its own. The parent is mirrored, too, unless nothing says so: mirrorParent does.
func newFamilyScene(t *testing.T, seed uint64, chaos bool) *scene {
	t.Helper()
	s := emptyScene(t, seed, chaos)
	ctx := t.Context()
	golden := make([]byte, parentSize)
	fill(s.rng, golden[:parentSize/3])
	fill(s.rng, golden[parentSize/2:])
	_, err := image.Create(ctx, s.primary, image.CreateSpec{
		ID: "p1", Name: "golden", GlobalID: parentGlobalID, RemoteMirrorUUID: "somebody", Size: parentSize, Order: objectOrder, Features: allFeatures,
	})
	check(t, err)
	check(t, s.librbd("p1").with(ctx, func(im *image.Image) error {
		if _, err := im.Apply(ctx, []image.IO{{Kind: image.Write, Length: parentSize, Data: golden}}); err != nil {
			return err
		}
		if _, _, err := im.SnapCreate(ctx, nil, "v1"); err != nil {
			return err
		}
		if _, err := im.SnapProtect(ctx, nil, "v1"); err != nil {
			return err
		}
		_, err := im.Apply(ctx, []image.IO{{Kind: image.WriteSame, Length: parentSize, Data: []byte("later")}})
		return err
	}))
	s.parentTag = s.promote(ctx, "p1")

	h := must(image.ReadHeader(ctx, s.primary, "p1"))(t)
	features := allFeatures
	if s.rng.IntN(2) == 0 {
		features |= rbd.FeatureDeepFlatten
	}
	_, err = image.Create(ctx, s.primary, image.CreateSpec{
		ID: "r1", Name: "vm", GlobalID: globalID, RemoteMirrorUUID: "somebody", Size: imageSize, Order: objectOrder, Features: features,
		Clone: &image.CloneOf{
			IO: s.primary, ImageID: "p1", Snap: h.Snapshot(nil, "v1").ID, Overlap: parentSize, Format: uint8(1 + s.rng.IntN(2)),
		},
	})
	check(t, err)
	copy(s.model, golden)
	check(t, s.librbd("r1").with(ctx, func(im *image.Image) error {
		write := func() error {
			data := make([]byte, 30000)
			fill(s.rng, data)
			at := s.rng.Uint64N(imageSize - 30000)
			copy(s.model[at:], data)
			_, err := im.Apply(ctx, []image.IO{{Kind: image.Write, Offset: at, Length: 30000, Data: data}})
			return err
		}
		for range 4 {
			if err := write(); err != nil {
				return err
			}
		}
		clear(s.model[1<<objectOrder : 2<<objectOrder]) // hides a whole object of the parent's
		if _, err := im.Apply(ctx, []image.IO{{Kind: image.Discard, Offset: 1 << objectOrder, Length: 1 << objectOrder}}); err != nil {
			return err
		}
		s.base = bytes.Clone(s.model)
		if _, _, err := im.SnapCreate(ctx, nil, "base"); err != nil {
			return err
		}
		for range 4 {
			if err := write(); err != nil {
				return err
			}
		}
		return nil
	}))
	s.tag = s.promote(ctx, "r1")
	return s
}

// promote makes an image primary.
func (s *scene) promote(ctx context.Context, id string) wire.Tag {
	j := must(journal.Open(ctx, s.primary, id))(s.t)
	defer j.Close()
	return must(j.AllocateTag(ctx, 0, wire.TagData{MirrorUUID: wire.LocalMirrorUUID}))(s.t)
}

// flatten flattens the clone on the primary, with what the journal says of it.
func (s *scene) flatten() {
	ctx := s.t.Context()
	s.op++
	flatten := s.op
	s.append(wire.Flatten{Op: flatten})
	check(s.t, s.librbd("r1").with(ctx, func(im *image.Image) error {
		_, err := im.Flatten(ctx, nil)
		return err
	}))
	s.append(wire.OpFinish{Op: flatten})
	s.flattened = flatten
}

// equalFamily compares the clone, its snapshot and its links.
func (s *scene) equalFamily() {
	s.t.Helper()
	s.equal()
	ctx := s.t.Context()
	io := s.trustedLocal()
	id, _, err := mirrorpool.FindImage(ctx, io, globalID)
	check(s.t, err)
	here, there := must(image.ReadHeader(ctx, io, id))(s.t), must(image.ReadHeader(ctx, s.primary, "r1"))(s.t)
	s.holds(io, id, here.Snapshot(nil, "base").ID, s.base)
	if here.Attached != there.Attached || here.Overlap != there.Overlap || here.OpFeatures.Has(rbd.OpFeatureCloneChild) != there.OpFeatures.Has(rbd.OpFeatureCloneChild) {
		s.t.Errorf("head: %v, %d bytes shared, %v; want %v, %d, %v", here.Attached, here.Overlap, here.OpFeatures, there.Attached, there.Overlap, there.OpFeatures)
	}
	a, b := here.Snapshot(nil, "base"), there.Snapshot(nil, "base")
	if a.Attached != b.Attached || a.Overlap != b.Overlap {
		s.t.Errorf("base: %v, %d bytes shared, want %v, %d", a.Attached, a.Overlap, b.Attached, b.Overlap)
	}
	parent, _, err := mirrorpool.FindImage(ctx, io, parentGlobalID)
	check(s.t, err)
	if there.Parent.Exists() && here.Parent.ImageID != parent {
		s.t.Errorf("parent is %+v, want image %s", here.Parent, parent)
	}
	h := must(image.ReadHeader(ctx, io, parent))(s.t)
	if snap := h.Snapshot(nil, "v1"); snap == nil || snap.Protection != rbd.Protected || there.OpFeatures.Has(rbd.OpFeatureCloneChild) != (snap.ChildCount == 1) {
		s.t.Errorf("snapshot of the parent: %+v", snap)
	}
}

// Whatever fails, is lost, comes late, or dies while a parent and its clone are mirrored,
// and the clone perhaps flattened: the copies are right in the end.
func TestClonesSurvive(t *testing.T) {
	for seed := *firstSeed; seed < *firstSeed+uint64(*seeds+1)/2; seed++ {
		t.Run(fmt.Sprintf("seed-%d", seed), func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T) {
				s := newFamilyScene(t, seed, true)
				flatten := s.rng.IntN(8)
				if flatten == 0 {
					s.flatten()
				}
				w := s.start()
				for range s.rng.IntN(6) { // in the sync
					time.Sleep(time.Duration(s.rng.IntN(80)) * time.Millisecond)
					w.die()
					if flatten == 1 {
						flatten = 0
						s.flatten()
					}
					w = s.start()
				}
				for round := range 5 {
					for range 20 {
						s.happen()
					}
					if flatten == round+2 {
						s.flatten()
					}
					time.Sleep(time.Duration(s.rng.IntN(30)) * time.Millisecond)
					if round%2 == 1 {
						w.die()
						w = s.start()
					}
				}
				s.caughtUp(w)
				s.parentSynced() // a clone that was flattened does without it
				s.equalFamily()
				w.die()
			})
		})
	}
}

// A clone waits for its parent, says so, and is made as soon as that is there.
func TestCloneWaitsForItsParent(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newFamilyScene(t, 1, false)
		ctx := t.Context()
		record := must(mirrorpool.GetImage(ctx, s.primary, "p1"))(t)
		s.forget("p1")
		w := s.start()
		s.says(w, "waiting for the parent image rbd/golden@v1: it is not mirrored")
		check(t, rados.Tell(ctx, s.primary, mirror.Object, mirror.ImageSet("p1", record)))
		s.happen()
		s.caughtUp(w)
		s.stop(w)
		s.equalFamily()
	})
}

// A snapshot that was removed on the primary right after a clone of it was made stays here
// until the clone is here, too.
func TestSnapshotWaitsForItsClone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newFamilyScene(t, 2, false) // of format 2
		ctx := t.Context()
		clone := must(mirrorpool.GetImage(ctx, s.primary, "r1"))(t)
		s.forget("r1")
		w := s.start()
		s.parentSynced()

		check(t, s.librbd("p1").with(ctx, func(im *image.Image) error {
			if _, err := im.SnapUnprotect(ctx, nil, "v1"); err != nil {
				return err
			}
			_, err := im.SnapRemove(ctx, nil, "v1")
			return err
		}))
		for n, ev := range []wire.Event{
			wire.SnapUnprotect{Op: 1, Name: "v1"}, wire.OpFinish{Op: 1}, wire.SnapRemove{Op: 2, Name: "v1"}, wire.OpFinish{Op: 2},
		} {
			payload := wire.Marshal(wire.EventEntry{Event: ev, Timestamp: time.Now()})
			entry := wire.Marshal(wire.Entry{Tag: s.parentTag.TID, TID: wire.EntryTID(n), Payload: payload})
			check(t, s.primary.Write(ctx, wire.DataObject(s.primary.Pool().ID, "p1", wire.ObjectNumber(n%4)), new(rados.WriteOp).Append(entry)))
		}
		check(t, rados.Tell(ctx, s.primary, mirror.Object, mirror.ImageSet("r1", clone)))
		s.happen()
		s.caughtUp(w)
		s.stop(w)
		s.equal()
		io := s.trustedLocal()
		id, _, err := mirrorpool.FindImage(ctx, io, globalID)
		check(t, err)
		h := must(image.ReadHeader(ctx, io, id))(t)
		s.holds(io, id, h.Snapshot(nil, "base").ID, s.base)
		if !h.Attached {
			t.Errorf("it is no clone: %+v", h.Parent)
		}
	})
}

// forget ends the mirroring of an image on the primary.
func (s *scene) forget(id string) {
	record := must(mirrorpool.GetImage(s.t.Context(), s.primary, id))(s.t)
	record.State = mirror.ImageDisabling
	check(s.t, rados.Tell(s.t.Context(), s.primary, mirror.Object, mirror.ImageSet(id, record)))
	check(s.t, rados.Tell(s.t.Context(), s.primary, mirror.Object, mirror.ImageRemove(id)))
}

// parentSynced waits until the parent's first sync is over.
func (s *scene) parentSynced() {
	ctx := s.t.Context()
	s.until("the parent is here", func() bool {
		_, record, err := mirrorpool.FindImage(ctx, s.trustedLocal(), parentGlobalID)
		j := must(journal.Open(ctx, s.primary, "p1"))(s.t)
		defer j.Close()
		client, failed := j.Client(ctx, "local-uuid")
		if err != nil || failed != nil || record.State != mirror.ImageEnabled {
			return false
		}
		meta := must(wire.DecodeClientData(client.Data))(s.t)
		return meta.(wire.MirrorPeerClientMeta).State == wire.PeerReplaying
	})
}

// until waits for something.
func (s *scene) until(what string, is func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("never: %s", what)
		}
	}
}

// says waits until the clone's status has a text.
func (s *scene) says(w *worker, text string) {
	s.t.Helper()
	var said string
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if r := w.said(); r.GlobalID == globalID {
			if said = r.Description; bytes.Contains([]byte(said), []byte(text)) {
				return
			}
		}
	}
	s.t.Fatalf("the worker says %q, not %q", said, text)
}
