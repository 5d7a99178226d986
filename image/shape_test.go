package image_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/rados"
)

// Killed anywhere while the snapshots of a copy are made, of an image that had other sizes in its life, which is then done
// again: no object map was given up.
func TestSnapshotsOfACopySurviveDeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for n := 1; copyDies(t, n); n++ {
		}
	})
}

// copyDies has the making die at its nth operation, if it has so many, and then done again.
func copyDies(t *testing.T, n int) bool {
	t.Helper()
	s := newTrashScene(t)
	s.create()
	ctx := t.Context()
	_ = s.reshape(ctx, s.mortal(n))
	fatal(t, s.reshape(ctx, s.io))
	h, err := image.ReadHeader(ctx, s.io, trashID)
	fatal(t, err)
	if h.Flags.Has(rbd.FlagObjectMapInvalid) {
		t.Errorf("killed at operation %d: the head's map was given up", n)
	}
	for _, snap := range h.Snapshots {
		if snap.Flags.Has(rbd.FlagObjectMapInvalid) {
			t.Errorf("killed at operation %d: the map of %s was given up", n, snap.Name)
		}
	}
	return s.doomed.Crashed()
}

// reshape makes what a copy begins with.
func (s *trashScene) reshape(ctx context.Context, io rados.IOContext) error {
	im, err := image.Open(ctx, io, trashID, image.Options{Lock: s.lock()})
	if err != nil {
		return err
	}
	for i, size := range []uint64{3 << 20, 2 << 20, 4 << 20} {
		if _, _, err := im.SnapCreateWithSize(ctx, nil, fmt.Sprint(i), size, image.Sharing{}); err != nil {
			return errors.Join(err, im.Close(ctx))
		}
	}
	_, err = im.SetHead(ctx, 4<<20, image.Sharing{})
	return errors.Join(err, im.Close(ctx))
}
