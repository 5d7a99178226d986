//go:build live

package journal

import (
	"bytes"
	"errors"
	"testing"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
)

// TestLiveRegistration does on an OSD what TestWhatComesTooLateIsRefused does in memory, and checks that the record's bytes
// are those that we expect: then none of our writes needs to read it first.
func TestLiveRegistration(t *testing.T) {
	io, ctx := openLive(t)
	img := createImage(t, io, 22, 2)
	j, err := Open(ctx, io, img.id)
	must(t, err)
	defer j.Close()
	must(t, j.Register(ctx, "peer", wire.MirrorPeerClientMeta{ImageID: "a"}))
	var late, successor Registration
	for _, r := range []*Registration{&late, &successor} {
		c, err := j.Client(ctx, "peer")
		must(t, err)
		r.Know(c)
	}
	expected := func() {
		t.Helper()
		raw, _, err := j.clientRecord(ctx, "peer")
		must(t, err)
		if want := wire.Marshal(successor.Known()); !bytes.Equal(raw, want) {
			t.Errorf("the record is %x, expected %x", raw, want)
		}
	}
	expected()
	must(t, successor.Commit(ctx, j, upTo(5)))
	expected()
	must(t, successor.Update(ctx, j, wire.MirrorPeerClientMeta{ImageID: "b", SyncObjectCount: 7}))
	expected()
	if err := late.Commit(ctx, j, upTo(4)); !errors.Is(err, ErrOvertaken) {
		t.Errorf("late commit: %v", err)
	}
	expected()
	must(t, successor.Unregister(ctx, j))
}
