package replayer_test

import (
	"strings"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/mirror"
	mirrorpool "github.com/rbdwarden/rbdwarden/mirror"
	"github.com/rbdwarden/rbdwarden/rados"
)

// dismantle disables the mirroring of the pool and of its image on the primary, in rbd's steps but for the last one, with
// peers or without, and answers what the worker says of the image then.
func dismantle(t *testing.T, seed uint64, from mirror.Mode, peers ...mirror.Peer) (gone bool, said string) {
	s := newScene(t, seed, false)
	ctx := t.Context()
	check(t, rados.Tell(ctx, s.primary, mirror.Object, mirror.SetMode(from)))
	for _, peer := range peers {
		check(t, rados.Tell(ctx, s.primary, mirror.Object, mirror.PeerPing(peer.SiteName, peer.MirrorUUID)))
	}
	s.happen()
	w := s.start()
	s.caughtUp(w)
	check(t, rados.Tell(ctx, s.primary, mirror.Object, mirror.SetMode(mirror.ModeImage)))
	_, record, err := mirrorpool.FindImage(ctx, s.primary, globalID)
	check(t, err)
	record.State = mirror.ImageDisabling
	check(t, rados.Tell(ctx, s.primary, mirror.Object, mirror.ImageSet("r1", record)))
	check(t, rados.Tell(ctx, s.primary, mirror.Object, mirror.ImageRemove("r1")))
	io := s.trustedLocal()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		_, _, err := mirrorpool.FindImage(ctx, io, globalID)
		if gone = err != nil; gone {
			break
		}
		if r := w.said(); r.State == "error" && strings.Contains(r.Description, "being disabled there") {
			said = r.Description
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("neither removed nor explained: %+v", w.said())
		}
	}
	s.stop(w)
	return gone, said
}

// TestCopiesOutliveTheMirroringOfTheirPool looks at a pool whose mirroring is being disabled as a whole at the moment when an
// image has gone and the pool is still mirrored, image by image.
func TestCopiesOutliveTheMirroringOfTheirPool(t *testing.T) {
	peer := mirror.Peer{SiteName: "here", MirrorUUID: "local-uuid"}
	if gone, said := dismantle(t, 11, mirror.ModePool); gone || !strings.Contains(said, "no peers") {
		t.Errorf("a pool without peers: gone %v, %q", gone, said)
	}
	if gone, said := dismantle(t, 12, mirror.ModePool, peer); gone || !strings.Contains(said, "kept until") {
		t.Errorf("a pool that was mirrored as a whole: gone %v, %q", gone, said)
	}
	if gone, said := dismantle(t, 13, mirror.ModeImage, peer); !gone {
		t.Errorf("an image that was disabled: %q", said)
	}
}
