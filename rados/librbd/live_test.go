//go:build live

package librbd

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/ceph/go-ceph/rbd"

	cephrbd "github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/librados"
)

// The live tests need a cluster: WARDEN_TEST_CONF is its ceph.conf.
func openImage(t *testing.T) (context.Context, rados.IOContext, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	c, err := librados.Connect(ctx, librados.Config{ConfFile: os.Getenv("WARDEN_TEST_CONF")})
	must(t, err)
	t.Cleanup(c.Close)
	const pool = "librbd-test"
	_, _, err = c.MonCommand(ctx, map[string]any{"prefix": "osd pool create", "pool": pool, "pg_num": 8}, nil)
	must(t, err)
	must(t, c.WaitForLatestMap(ctx))
	io, err := c.Open(ctx, pool, "")
	must(t, err)
	t.Cleanup(io.Close)
	native, _ := librados.Native(io)
	must(t, rbd.PoolInit(native, true))
	options := rbd.NewRbdImageOptions()
	defer options.Destroy()
	must(t, rbd.CreateImage(native, t.Name(), 4<<20, options))
	t.Cleanup(func() { must(t, rbd.RemoveImage(native, t.Name())) })
	image, err := rbd.OpenImage(native, t.Name(), rbd.NoSnapshot)
	must(t, err)
	id, err := image.GetId()
	must(t, err)
	must(t, image.Close())
	return ctx, io, id
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A process that is killed while it removes a snapshot leaves it in the trash, under another name.
func TestRemovalOfASnapshotIsCompleted(t *testing.T) {
	ctx, io, id := openImage(t)
	for _, name := range []string{"one", "two"} {
		must(t, CreateSnapshot(ctx, io, id, name))
	}
	snaps, err := rados.Ask(ctx, io, cephrbd.HeaderObject(id), cephrbd.GetSnapContext())
	must(t, err)
	for _, snap := range snaps.Snaps { // both, of which only one is ours
		must(t, rados.Tell(ctx, io, cephrbd.HeaderObject(id), cephrbd.SnapshotTrashAdd(snap)))
	}
	must(t, RemoveSnapshot(ctx, io, id, "one"))
	left, err := rados.Ask(ctx, io, cephrbd.HeaderObject(id), cephrbd.GetSnapContext())
	must(t, err)
	if want := snaps.Snaps[:1]; len(left.Snaps) != 1 || left.Snaps[0] != want[0] {
		t.Errorf("snapshots %v are left, want %v of %v", left.Snaps, want, snaps.Snaps)
	}
	if err := RemoveSnapshot(ctx, io, id, "one"); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("a second removal: %v, want ENOENT", err)
	}
	must(t, RemoveSnapshot(ctx, io, id, "two"))
	if left, err := rados.Ask(ctx, io, cephrbd.HeaderObject(id), cephrbd.GetSnapContext()); err != nil || len(left.Snaps) > 0 {
		t.Errorf("snapshots %v are left (%v), want none", left.Snaps, err)
	}
}
