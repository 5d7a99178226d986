package image_test

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/rados"
)

// Killed anywhere in a renaming, which is then done again: only the new name leads to the image, and the old one is free.
func TestRenameSurvivesDeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for n := 1; renameDies(t, n); n++ {
		}
	})
}

// renameDies has a renaming die at its nth operation, if it has so many, and then done again.
func renameDies(t *testing.T, n int) bool {
	t.Helper()
	s := newTrashScene(t)
	s.create()
	ctx := t.Context()
	_ = s.rename(ctx, s.mortal(n))
	fatal(t, s.rename(ctx, s.io))
	if id, err := image.ID(ctx, s.io, "moved"); id != trashID || err != nil {
		t.Errorf("killed at operation %d: the new name leads to %q, %v", n, id, err)
	}
	if name, err := image.Name(ctx, s.io, trashID); name != "moved" || err != nil {
		t.Errorf("killed at operation %d: the image is called %q, %v", n, name, err)
	}
	if id, err := image.ID(ctx, s.io, trashName); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("killed at operation %d: the old name leads to %q, %v", n, id, err)
	}
	return s.doomed.Crashed()
}

func (s *trashScene) rename(ctx context.Context, io rados.IOContext) error {
	im, err := image.Open(ctx, io, trashID, image.Options{Lock: s.lock()})
	if err != nil {
		return err
	}
	_, err = im.Rename(ctx, "moved")
	return errors.Join(err, im.Close(ctx))
}
