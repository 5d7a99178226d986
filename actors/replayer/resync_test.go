package replayer_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/journal"
	mirrorpool "github.com/rbdwarden/rbdwarden/mirror"
)

// goAstray lets the local copy become another image: it is promoted, written,
// snapshotted and demoted, and a re-sync is asked for.
func (s *scene) goAstray(rng *rand.Rand) (imageID string) {
	s.t.Helper()
	ctx := s.t.Context()
	// The primary's image has what its journal says: a sync point is made of it.
	check(s.t, s.librbd("r1").with(ctx, func(im *image.Image) error {
		for op := wire.OpTID(1); op <= s.op; op++ {
			if _, _, err := im.SnapCreate(ctx, rbd.UserSnapshot{}, fmt.Sprintf("snap-%d", op)); err != nil {
				return err
			}
		}
		_, err := im.Apply(ctx, []image.IO{{Kind: image.Write, Length: imageSize, Data: s.model}})
		return err
	}))
	io := s.trustedLocal()
	id, _, err := mirrorpool.FindImage(ctx, io, globalID)
	check(s.t, err)
	check(s.t, snapshots{io, id, &s.opening}.with(ctx, func(im *image.Image) error {
		for i := range 1 + rng.IntN(8) {
			data := make([]byte, 512+rng.IntN(40<<10)&^511)
			fill(rng, data)
			at := rng.Uint64N(imageSize-64<<10) &^ 511
			if _, err := im.Apply(ctx, []image.IO{{Kind: image.Write, Offset: at, Length: uint64(len(data)), Data: data}}); err != nil {
				return err
			}
			if i%3 == 0 {
				if _, _, err := im.SnapCreate(ctx, rbd.UserSnapshot{}, fmt.Sprintf("astray-%d", i)); err != nil {
					return err
				}
			}
		}
		return nil
	}))
	j := must(journal.Open(ctx, io, id))(s.t)
	defer j.Close()
	for _, data := range []wire.TagData{{MirrorUUID: wire.LocalMirrorUUID}, {MirrorUUID: wire.OrphanMirrorUUID}} {
		must(j.AllocateTag(ctx, 0, data))(s.t)
	}
	check(s.t, j.RequestResync(ctx, journal.ResyncInPlace))
	return id
}

// mended waits until the request to re-sync is gone.
func (s *scene) mended(id string, w *worker) {
	s.t.Helper()
	io := s.trustedLocal()
	j := must(journal.Open(s.t.Context(), io, id))(s.t)
	defer j.Close()
	for deadline := time.Now().Add(time.Minute); must(j.ImageMeta(s.t.Context()))(s.t).ResyncRequested; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("never re-synced: %+v", w.said())
		}
	}
}

// TestResyncInPlaceSurvives lets the copy go astray and workers die while they mend it
// in place: it is the same image in the end, and right, and until then the request to
// re-sync stays.
func TestResyncInPlaceSurvives(t *testing.T) {
	for seed := *firstSeed; seed < *firstSeed+uint64(*seeds+2)/3; seed++ {
		t.Run(fmt.Sprintf("seed-%d", seed), func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T) {
				s := newScene(t, seed, true)
				w := s.start()
				for range 30 {
					s.happen()
				}
				s.caughtUp(w)
				w.die()
				id := s.goAstray(s.rng)
				for range 10 {
					s.happen()
				}
				w = s.start()
				for range s.rng.IntN(4) {
					time.Sleep(time.Duration(s.rng.IntN(60)) * time.Millisecond)
					w.die()
					w = s.start()
				}
				s.mended(id, w)
				for range 10 {
					s.happen()
				}
				s.caughtUp(w)
				s.equal()
				io := s.trustedLocal()
				now, _, err := mirrorpool.FindImage(t.Context(), io, globalID)
				check(t, err)
				if now != id {
					t.Errorf("image %s was replaced by %s", id, now)
				}
				h := must(image.ReadHeader(t.Context(), io, id))(t)
				for _, snap := range h.Snapshots {
					if snap.Name[0] == 'a' {
						t.Errorf("snapshot %s of the wrong history is left", snap.Name)
					}
				}
				w.die()
			})
		})
	}
}
