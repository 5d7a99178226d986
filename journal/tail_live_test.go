//go:build live

package journal

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/ceph/go-ceph/rbd"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/rados/librados"
)

// TestTailLive tails an image while librbd writes to it through many object sets
// and tags, commits and trims as it goes, restarts now and then, and rebuilds the
// image from the events.
func TestTailLive(t *testing.T) {
	io, ctx := openLive(t)
	native, _ := librados.Native(io)
	img := createImage(t, io, 14, 3)
	j, err := Open(ctx, io, img.id)
	must(t, err)
	defer j.Close()
	must(t, j.Register(ctx, "peer", wire.MirrorPeerClientMeta{}))
	must(t, img.Image.Close())

	writing, done := context.WithCancel(ctx)
	var writeErr error
	go func() {
		defer done()
		rng := rand.New(rand.NewPCG(1, 2))
		for range 8 { // each open is a new tag
			w, err := rbd.OpenImage(native, img.name, rbd.NoSnapshot)
			if err != nil {
				writeErr = err
				return
			}
			for range 150 {
				b := bytes.Repeat([]byte{byte(rng.IntN(256))}, 512*(1+rng.IntN(16)))
				if _, writeErr = w.WriteAt(b, int64(rng.IntN(8<<20-len(b)))/512*512); writeErr != nil {
					return
				}
			}
			if writeErr = w.Close(); writeErr != nil {
				return
			}
		}
	}()

	content := make([]byte, 8<<20)
	var tags, entries, restarts, trimmed int
	open := func() (*Tailer, *Positions) {
		tail, err := NewTailer(ctx, j, TailConfig{ClientID: "peer", Budget: 1 << 20})
		must(t, err)
		c, err := j.Client(ctx, "peer")
		must(t, err)
		return tail, NewPositions(3, c.CommitPosition)
	}
	tail, positions := open()
	for finished := false; ; {
		b, err := tail.Next(ctx, 64<<10)
		must(t, err)
		for _, e := range b.Entries {
			v, err := tail.Event(e)
			must(t, err)
			if w, ok := v.Event.(wire.AioWrite); ok {
				copy(content[w.Offset:], w.Data)
				entries++
			}
			positions.Delivered(e.Position)
			positions.Safe(e.Position.Tag, e.Position.Entry)
		}
		if b.Dropped.Count > 0 {
			t.Errorf("dropped %+v of writers that closed the image", b.Dropped)
		}
		if b.Ended != nil {
			tags++
			must(t, j.Commit(ctx, "peer", positions.Position()))
			n, err := j.Trim(ctx)
			must(t, err)
			trimmed += n
			if tags%3 == 0 {
				tail.Close()
				tail, positions = open()
				restarts++
			}
		}
		if b.CaughtUp {
			if finished {
				break
			}
			finished = writing.Err() != nil
			must(t, tail.Wait(ctx))
		}
	}
	must(t, ctx.Err())
	must(t, writeErr)
	if held := tail.Held(); held != 0 {
		t.Errorf("%d bytes held when caught up", held)
	}
	tail.Close()
	must(t, j.Commit(ctx, "peer", positions.Position()))
	if tags < 7 || entries != 8*150 || trimmed == 0 {
		t.Errorf("%d tags, %d writes, %d sets trimmed", tags, entries, trimmed)
	}
	t.Logf("%d tags ended, %d writes, %d restarts, %d object sets trimmed", tags, entries, restarts, trimmed)

	want := make([]byte, len(content))
	r, err := rbd.OpenImageReadOnly(native, img.name, rbd.NoSnapshot)
	must(t, err)
	defer r.Close()
	_, err = r.ReadAt(want, 0)
	must(t, err)
	if !bytes.Equal(content, want) {
		t.Error("the events do not add up to the image")
	}

	// The primary's own position is what ours is, since both have everything.
	c, err := j.Client(ctx, wire.MasterClientID)
	must(t, err)
	m, err := j.Refresh(ctx)
	must(t, err)
	peer, _ := m.Client("peer")
	if !slices.Equal(c.CommitPosition, peer.CommitPosition) {
		t.Errorf("we committed %v, librbd %v", peer.CommitPosition, c.CommitPosition)
	}
}

// compareWithInspect counts the entries in the journal as `rbd journal inspect`
// does, which leaves out those that every client has committed.
func compareWithInspect(t *testing.T, ctx context.Context, j *Journal, id string, committed int) {
	t.Helper()
	out, _ := exec.CommandContext(ctx, "rbd", "-c", os.Getenv("WARDEN_TEST_CONF"), "journal", "inspect",
		"--pool", "journal-test", "--journal", id, "--verbose").CombinedOutput()
	found := regexp.MustCompile(`(\d+) entries inspected, (\d+) errors`).FindSubmatch(out)
	if found == nil {
		t.Fatalf("%s", out)
	}
	var dump bytes.Buffer
	must(t, Dump(ctx, j.header, id, &dump, true))
	n, _ := strconv.Atoi(string(found[1]))
	ours := bytes.Count(dump.Bytes(), []byte(`{"kind":"entry"`))
	t.Logf("rbd journal inspect: %s; dump: %d entries", found[0], ours)
	if ours != n+committed || n == 0 || bytes.Contains(dump.Bytes(), []byte(`"corrupt"`)) {
		t.Errorf("inspect found %d entries, dump %d", n, ours)
	}
}

// TestAppendFirstLive gives a new tag its first entry, and lets librbd find the
// journal in order: it counts the entry, opens the image and writes behind it.
func TestAppendFirstLive(t *testing.T) {
	io, ctx := openLive(t)
	native, _ := librados.Native(io)
	img := createImage(t, io, 16, 4)
	_, err := img.WriteAt(make([]byte, 512), 0)
	must(t, err)
	must(t, img.Image.Close())
	j, err := Open(ctx, io, img.id)
	must(t, err)
	defer j.Close()
	must(t, j.Register(ctx, "peer", wire.CLIClientMeta{}))
	meta, err := j.ImageMeta(ctx)
	must(t, err)
	c, err := j.Client(ctx, wire.MasterClientID)
	must(t, err)
	newest, _ := c.CommitPosition.Newest()
	tag, err := j.AllocateTag(ctx, meta.TagClass, wire.TagData{Predecessor: wire.TagPredecessor{CommitValid: true, Tag: newest.Tag, Entry: newest.Entry}})
	must(t, err)
	at, err := j.AppendFirst(ctx, tag.TID, wire.DemotePromote{}, time.Now())
	must(t, err)
	p := NewPositions(4, c.CommitPosition)
	p.Delivered(at)
	p.Safe(at.Tag, at.Entry)
	must(t, j.Commit(ctx, wire.MasterClientID, p.Position()))

	w, err := rbd.OpenImage(native, img.name, rbd.NoSnapshot)
	must(t, err)
	_, err = w.WriteAt(make([]byte, 512), 4096)
	must(t, err)
	must(t, w.Close())
	tags, err := j.ImageTags(ctx, wire.MasterClientID, meta.TagClass)
	must(t, err)
	if last := tags[len(tags)-1]; last.TID != tag.TID+1 || last.Predecessor.Tag != tag.TID || last.Predecessor.Entry != 0 {
		t.Errorf("librbd's next tag is %+v", last)
	}
	compareWithInspect(t, ctx, j, img.id, 1) // the first write was committed before the peer came
}

// BenchmarkTailLive reads the backlog of WARDEN_TEST_IMAGE (an id in
// WARDEN_TEST_POOL) again and again, from the oldest object set on.
func BenchmarkTailLive(b *testing.B) {
	id := os.Getenv("WARDEN_TEST_IMAGE")
	if id == "" {
		b.Skip("no WARDEN_TEST_IMAGE")
	}
	ctx := b.Context()
	c, err := librados.Connect(ctx, librados.Config{ConfFile: os.Getenv("WARDEN_TEST_CONF")})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	io, err := c.Open(ctx, os.Getenv("WARDEN_TEST_POOL"), "")
	if err != nil {
		b.Fatal(err)
	}
	defer io.Close()
	j, err := Open(ctx, io, id)
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	_ = j.Register(ctx, "bench", wire.CLIClientMeta{})
	var entries, bytes int64
	for b.Loop() {
		tail, err := NewTailer(ctx, j, TailConfig{ClientID: "bench"})
		if err != nil {
			b.Fatal(err)
		}
		for caughtUp := false; !caughtUp; {
			batch, err := tail.Next(ctx, 4<<20)
			if err != nil {
				b.Fatal(err)
			}
			for _, e := range batch.Entries {
				if _, err := tail.Event(e); err != nil {
					b.Fatal(err)
				}
				entries++
				bytes += int64(e.Size())
			}
			caughtUp = batch.CaughtUp
		}
		tail.Close()
	}
	b.SetBytes(bytes / int64(b.N))
	b.ReportMetric(float64(entries)/b.Elapsed().Seconds(), "entries/s")
}
