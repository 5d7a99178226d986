package replayer

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	"github.com/rbdwarden/rbdwarden/ceph"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/image/lock"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/mem"
	"github.com/rbdwarden/rbdwarden/replay"
)

const cloneSize = 1 << 20

// localClone makes a local copy of a clone, "child", of "base"; the bytes are 1. The
// parent's snapshot is in the trash.
func localClone(t *testing.T) rados.IOContext { return localCloneAmid(t, nil) }

// localCloneAmid is localClone where faults judges each operation.
func localCloneAmid(t *testing.T, faults mem.Faults) rados.IOContext {
	t.Helper()
	ctx := t.Context()
	store := mem.New(mem.Options{Faults: faults, Config: map[string]string{
		"rbd_default_data_pool": "", "rbd_journal_order": "24", "rbd_journal_splay_width": "4", "rbd_journal_pool": "",
	}})
	store.AddPool("rbd")
	client := store.Connect()
	t.Cleanup(client.Close)
	io, err := client.Open(ctx, "rbd", "")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(err)
	must(rados.Tell(ctx, io, mirror.Object, mirror.SetUUID("local-uuid")))
	must(rados.Tell(ctx, io, mirror.Object, mirror.SetMode(mirror.ModePool)))
	for _, id := range []string{"base", "child"} {
		_, err := image.Create(ctx, io, image.CreateSpec{
			ID: id, Name: id, GlobalID: "global-" + id, RemoteMirrorUUID: "remote-uuid", Size: cloneSize, Order: 12,
			Features: rbd.FeatureLayering | rbd.FeatureExclusiveLock | rbd.FeatureJournaling | rbd.FeatureObjectMap | rbd.FeatureFastDiff,
		})
		must(err)
	}
	base, err := image.Open(ctx, io, "base", image.Options{})
	must(err)
	_, err = base.Apply(ctx, []image.IO{{Kind: image.WriteSame, Length: cloneSize, Data: []byte{1}}})
	must(err)
	snap, _, err := base.SnapCreate(ctx, rbd.UserSnapshot{}, "s")
	must(err)
	spec := rbd.ParentSpec{Pool: io.Pool().ID, ImageID: "base", Snap: snap}
	must(rados.Tell(ctx, io, rbd.HeaderObject("child"), rbd.ParentAttach(spec, cloneSize, false)))
	must(rados.Tell(ctx, io, rbd.HeaderObject("child"), rbd.SetOpFeatures(rbd.OpFeatureCloneChild, rbd.OpFeatureCloneChild)))
	must(rados.Tell(ctx, io, rbd.HeaderObject("base"), rbd.ChildAttach(snap, rbd.ChildSpec{Pool: io.Pool().ID, ImageID: "child"})))
	_, err = base.SnapRemove(ctx, rbd.UserSnapshot{}, "s")
	must(err)
	must(base.Close(ctx))
	return io
}

// openedBy opens a local copy as a replay does.
func openedBy(t *testing.T, io rados.IOContext, id string, notify func(core.Msg)) *performer {
	t.Helper()
	p := NewPerformer(Resources{
		Local: Site{IO: io, MirrorUUID: "local-uuid"}, Timeout: 10 * time.Second, Log: zerolog.Nop(),
		Limits: image.Limits{Bytes: 8192}, // so that a flatten has several steps
		Lock:   lock.Options{RetryDelay: time.Millisecond, DeadGrace: time.Millisecond},
	}, notify).(*performer)
	t.Cleanup(func() {
		if err := p.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if _, err := p.openLocal(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return p
}

var flattenStep = replay.Operation{StepID: 3, Event: wire.Flatten{Op: 1}, Concurrent: true}

// A journalled flatten is applied in steps: between two of them the gate is open, and
// the progress is told. The parent's snapshot, which only waited for the clone, goes.
func TestFlatten(t *testing.T) {
	io := localClone(t)
	openedBy(t, io, "base", func(core.Msg) {})
	var told []core.OperationProgressed
	var p *performer
	p = openedBy(t, io, "child", func(m core.Msg) {
		if m, ok := m.(core.OperationProgressed); ok {
			told = append(told, m)
			if !p.local.gate.TryAcquire(wholeGate) {
				t.Error("a promotion would have to wait")
				return
			}
			p.local.gate.Release(wholeGate)
		}
	})
	for range 2 { // done again, it is no error
		m, err := p.apply(t.Context(), flattenStep)
		if err != nil || m != core.Msg(core.Applied{Step: 3, Entries: 1}) {
			t.Fatalf("%+v, %v", m, err)
		}
	}
	if len(told) < 5 || told[1].Step != 3 || told[1].Name != "Flatten" || told[1].Done <= told[0].Done || told[1].Total != cloneSize>>12 {
		t.Errorf("progress: %+v", told)
	}
	if p.local.image.Header().HasParent() {
		t.Error("still a clone")
	}
	r, err := image.OpenReader(t.Context(), io, "child", ceph.NoSnap)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	pieces, err := r.Read(t.Context(), 0, cloneSize)
	if err != nil || !bytes.Equal(image.Flat(pieces, 0, cloneSize), bytes.Repeat([]byte{1}, cloneSize)) {
		t.Errorf("contents differ, %v", err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		h, err := image.ReadHeader(t.Context(), io, "base")
		if err != nil {
			t.Fatal(err)
		}
		if len(h.Snapshots) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the parent keeps %+v", h.Snapshots)
		}
	}
}

// A promotion in the middle ends it.
func TestFlattenEndsWithPromotion(t *testing.T) {
	io := localClone(t)
	var p *performer
	p = openedBy(t, io, "child", func(m core.Msg) {
		if _, ok := m.(core.OperationProgressed); ok {
			p.local.state.Lock()
			p.local.now.data.MirrorUUID = wire.LocalMirrorUUID
			p.local.state.Unlock()
		}
	})
	if _, err := p.apply(t.Context(), flattenStep); !errors.Is(err, errPromoted) {
		t.Errorf("%v", err)
	}
	if !p.local.image.Header().HasParent() {
		t.Error("flattened to the end")
	}
}
