//go:build live

package journal

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/ceph/go-ceph/rbd"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/librados"
)

var capture = flag.String("capture", "", "write what librbd journalled to this folder of vectors")

// The live tests need a cluster: WARDEN_TEST_CONF is its ceph.conf, with
// client.admin's keyring.
func openLive(t *testing.T) (rados.IOContext, context.Context) {
	t.Helper()
	conf := os.Getenv("WARDEN_TEST_CONF")
	if conf == "" {
		t.Fatal("WARDEN_TEST_CONF is not set")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	c, err := librados.Connect(ctx, librados.Config{ConfFile: conf})
	must(t, err)
	t.Cleanup(c.Close)
	const pool = "journal-test"
	_, _, err = c.MonCommand(ctx, map[string]any{"prefix": "osd pool create", "pool": pool, "pg_num": 8}, nil)
	must(t, err)
	must(t, c.WaitForLatestMap(ctx))
	io, err := c.Open(ctx, pool, "")
	must(t, err)
	t.Cleanup(io.Close)
	native, _ := librados.Native(io)
	must(t, rbd.PoolInit(native, true))
	return io, ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// liveImage is a journaled image that librbd has open.
type liveImage struct {
	*rbd.Image
	id, name string
}

func createImage(t *testing.T, io rados.IOContext, order, splay uint64, journalPool ...string) *liveImage {
	t.Helper()
	native, _ := librados.Native(io)
	name := fmt.Sprintf("%s-%d", t.Name(), time.Now().UnixNano())
	o := rbd.NewRbdImageOptions()
	defer o.Destroy()
	features := rbd.FeatureLayering | rbd.FeatureExclusiveLock | rbd.FeatureObjectMap | rbd.FeatureFastDiff | rbd.FeatureJournaling
	must(t, o.SetUint64(rbd.RbdImageOptionFeatures, features))
	must(t, o.SetUint64(rbd.RbdImageOptionOrder, 20))
	must(t, o.SetUint64(rbd.RbdImageOptionJournalOrder, order))
	must(t, o.SetUint64(rbd.RbdImageOptionJournalSplayWidth, splay))
	for _, pool := range journalPool {
		must(t, o.SetString(rbd.RbdImageOptionJournalPool, pool))
	}
	must(t, rbd.CreateImage(native, name, 8<<20, o))
	img, err := rbd.OpenImage(native, name, rbd.NoSnapshot)
	must(t, err)
	id, err := img.GetId()
	must(t, err)
	i := &liveImage{Image: img, id: id, name: name}
	t.Cleanup(func() {
		_ = i.Close()
		_ = rbd.RemoveImage(native, i.name)
	})
	return i
}

// TestEveryEventOfLibrbd has librbd journal what its interface can, and reads it
// back in order.
func TestEveryEventOfLibrbd(t *testing.T) {
	io, ctx := openLive(t)
	img := createImage(t, io, 16, 2)
	j, err := Open(ctx, io, img.id)
	must(t, err)
	defer j.Close()
	n := uint64(3)
	must(t, j.Register(ctx, "peer", wire.MirrorPeerClientMeta{
		ImageID: "1234", State: wire.PeerReplaying, SyncObjectCount: 4,
		SyncPoints: []wire.SyncPoint{{SnapName: ".rbd-mirror.x.y", FromSnapName: "", ObjectNumber: &n}},
		SnapSeqs:   map[uint64]uint64{2: 4},
	}))

	want := playEverything(t, img)
	var got []wire.EventType
	var entries []Entry
	tail, err := NewTailer(ctx, j, TailConfig{ClientID: "peer"})
	must(t, err)
	defer tail.Close()
	for {
		b, err := tail.Next(ctx, 1<<20)
		must(t, err)
		for _, e := range b.Entries {
			v, err := tail.Event(e)
			must(t, err)
			if !bytes.Equal(wire.Marshal(v), e.Payload) {
				t.Errorf("%v at %v is encoded differently", v.Event.Type(), e.Position)
			}
			if age := time.Since(v.Timestamp); age < -time.Minute || age > time.Hour {
				t.Errorf("%v has timestamp %v", v.Event.Type(), v.Timestamp)
			}
			if p, ok := v.Event.(wire.OpFinish); ok && p.Result != 0 && syscall.Errno(-p.Result) != syscall.ENOENT {
				t.Errorf("unexpected result %v", p)
			}
			got = append(got, v.Event.Type())
			entries = append(entries, e)
		}
		if b.CaughtUp {
			break
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("events\n got %v\nwant %v", got, want)
	}
	compareWithInspect(t, ctx, j, img.id, 0)
	if *capture != "" {
		writeVectors(t, ctx, j, entries)
	}
}

// TestJournalPoolLive: librbd puts the objects of a journal in another pool into
// that pool's default namespace.
func TestJournalPoolLive(t *testing.T) {
	plain, ctx := openLive(t)
	native, _ := librados.Native(plain)
	if err := rbd.NamespaceCreate(native, "ns"); err != nil && !errors.Is(err, rbd.ErrExist) {
		t.Fatal(err)
	}
	io, err := plain.Cluster().Open(ctx, plain.Pool().Name, "ns")
	must(t, err)
	t.Cleanup(io.Close)
	const pool = "journal-test-objects"
	_, _, err = io.Cluster().MonCommand(ctx, map[string]any{"prefix": "osd pool create", "pool": pool, "pg_num": 8}, nil)
	must(t, err)
	must(t, io.Cluster().WaitForLatestMap(ctx))
	img := createImage(t, io, 16, 2, pool)
	j, err := Open(ctx, io, img.id)
	must(t, err)
	defer j.Close()
	must(t, j.Register(ctx, "peer", wire.MirrorPeerClientMeta{}))
	_, err = img.WriteAt(make([]byte, 512), 0)
	must(t, err)
	must(t, img.Flush())
	tail, err := NewTailer(ctx, j, TailConfig{ClientID: "peer"})
	must(t, err)
	defer tail.Close()
	b, err := tail.Next(ctx, 1<<20)
	must(t, err)
	if len(b.Entries) == 0 {
		t.Error("no entries")
	}
}

func playEverything(t *testing.T, img *liveImage) []wire.EventType {
	t.Helper()
	var want []wire.EventType
	op := func(typ wire.EventType, err error) {
		t.Helper()
		must(t, err)
		want = append(want, typ, wire.TypeOpFinish)
	}
	io := func(typ wire.EventType, n int, err error) {
		t.Helper()
		must(t, err)
		want = append(want, typ)
	}
	data := bytes.Repeat([]byte("w"), 512)
	n, err := img.WriteAt(data, 4096)
	io(wire.TypeAioWrite, n, err)
	io(wire.TypeAioFlush, 0, img.Flush())
	n, err = img.Discard(0, 1<<20)
	io(wire.TypeAioDiscard, n, err)
	m, err := img.WriteSame(65536, 4096, data, 0)
	io(wire.TypeAioWriteSame, int(m), err)
	io(wire.TypeAioFlush, 0, img.Flush())
	_, err = img.CreateSnapshot("s1")
	op(wire.TypeSnapCreate, err)
	op(wire.TypeResize, img.Resize(12<<20))
	op(wire.TypeSnapRename, img.GetSnapshot("s1").Rename("s2"))
	op(wire.TypeSnapProtect, img.GetSnapshot("s2").Protect())
	op(wire.TypeSnapUnprotect, img.GetSnapshot("s2").Unprotect())
	op(wire.TypeSnapRollback, img.GetSnapshot("s2").Rollback())
	op(wire.TypeMetadataSet, img.SetMetadata("key", "value"))
	op(wire.TypeMetadataRemove, img.RemoveMetadata("key"))
	op(wire.TypeUpdateFeatures, img.UpdateFeatures(rbd.FeatureFastDiff, false))
	op(wire.TypeSnapRemove, img.GetSnapshot("s2").Remove())
	op(wire.TypeRename, img.Rename(img.name+"-renamed"))
	img.name += "-renamed"
	io(wire.TypeAioFlush, 0, img.Flush())
	return want
}

// writeVectors keeps the journal's bytes for the tests of package ceph/journal.
func writeVectors(t *testing.T, ctx context.Context, j *Journal, entries []Entry) {
	t.Helper()
	must(t, os.MkdirAll(*capture, 0o755))
	keep := func(name string, b []byte) {
		must(t, os.WriteFile(filepath.Join(*capture, name), b, 0o644))
	}
	m, err := j.Refresh(ctx)
	must(t, err)
	for n := m.MinimumSet.Object(m.SplayWidth, 0); ; n++ {
		var op rados.ReadOp
		data := op.Read(0, 4<<20)
		if err := j.data.Read(ctx, j.DataObject(n), &op); errors.Is(err, syscall.ENOENT) {
			break
		} else {
			must(t, err)
		}
		keep(fmt.Sprintf("object.%d", n), data.Data)
	}
	for _, e := range entries {
		v, _ := wire.DecodeEvent(e.Payload)
		keep(fmt.Sprintf("event.%02d", uint32(v.Event.Type())), e.Payload)
	}
	for i, c := range m.Clients {
		keep(fmt.Sprintf("client.%d", i), wire.Marshal(c))
		keep(fmt.Sprintf("clientdata.%d", i), c.Data)
	}
	tags, err := j.Tags(ctx, "peer", nil)
	must(t, err)
	for _, tag := range tags {
		keep(fmt.Sprintf("tag.%d", tag.TID), wire.Marshal(tag))
		keep(fmt.Sprintf("tagdata.%d", tag.TID), tag.Data)
	}
}
