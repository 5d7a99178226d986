package journal

import (
	"errors"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/mem"
)

// registered is a journal with a client "peer" that has committed entry 5, as two processes know it. Where lose is set,
// the answer to the next write is lost.
func registered(t *testing.T) (io rados.IOContext, j *Journal, one, two *Registration, lose *atomic.Bool) {
	t.Helper()
	ctx := t.Context()
	lose = &atomic.Bool{}
	store := mem.New(mem.Options{Faults: mem.FaultFunc(func(op mem.Op) (v mem.Verdict) {
		if op.Kind == mem.Write && lose.Swap(false) {
			v.Hide = syscall.ETIMEDOUT
		}
		return v
	})})
	store.AddPool("rbd")
	io, err := store.Connect().Open(ctx, "rbd", "")
	ok(t, err)
	ok(t, Create(ctx, io, testImage, CreateOptions{Order: 12, SplayWidth: 2, Pool: -1}))
	j, err = Open(ctx, io, testImage)
	ok(t, err)
	t.Cleanup(j.Close)
	ok(t, j.Register(ctx, "peer", wire.MirrorPeerClientMeta{ImageID: "a"}))
	ok(t, j.Commit(ctx, "peer", upTo(5)))
	one, two = &Registration{}, &Registration{}
	for _, r := range []*Registration{one, two} {
		c, err := j.Client(ctx, "peer")
		ok(t, err)
		r.Know(c)
	}
	return io, j, one, two, lose
}

func upTo(e wire.EntryTID) wire.ObjectSetPosition {
	return wire.ObjectSetPosition{{Object: wire.ObjectNumber(e % 2), Tag: 1, Entry: e}}
}

func stored(t *testing.T, j *Journal) wire.Client {
	t.Helper()
	c, err := j.Client(t.Context(), "peer")
	ok(t, err)
	return c
}

// TestWhatComesTooLateIsRefused has a process go on after another one took its place and wrote.
func TestWhatComesTooLateIsRefused(t *testing.T) {
	_, j, late, successor, _ := registered(t)
	ctx := t.Context()
	ok(t, late.Commit(ctx, j, upTo(6)))
	// The successor has read the record before that: it is not the one to go on, either, until it has looked again.
	if err := successor.Commit(ctx, j, upTo(5)); !errors.Is(err, ErrOvertaken) {
		t.Fatalf("commit on a record that was read too early: %v", err)
	}
	successor.Know(stored(t, j))
	ok(t, successor.Commit(ctx, j, upTo(9)))
	want := stored(t, j)
	for what, err := range map[string]error{
		"commit":     late.Commit(ctx, j, upTo(7)),
		"update":     late.Update(ctx, j, wire.MirrorPeerClientMeta{ImageID: "a", State: wire.PeerSyncing}),
		"unregister": late.Unregister(ctx, j),
	} {
		if !errors.Is(err, ErrOvertaken) || rados.Classify(err) != rados.Transient {
			t.Errorf("%s of a process that was overtaken: %v", what, err)
		}
	}
	if got := stored(t, j); !sameClient(got, want) {
		t.Errorf("the record is %+v, was %+v", got, want)
	}
	ok(t, successor.Update(ctx, j, wire.MirrorPeerClientMeta{ImageID: "b"}))
	ok(t, successor.Commit(ctx, j, upTo(11)))
	ok(t, successor.Unregister(ctx, j))
	if err := successor.Commit(ctx, j, upTo(12)); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("commit of a client that is gone: %v", err)
	}
}

// TestDisconnectedClientIsNotWritten: what the primary flags is a change by somebody else.
func TestDisconnectedClientIsNotWritten(t *testing.T) {
	_, j, one, _, _ := registered(t)
	ok(t, j.SetClientState(t.Context(), "peer", wire.Disconnected))
	if err := one.Commit(t.Context(), j, upTo(6)); !errors.Is(err, ErrOvertaken) {
		t.Errorf("commit of a client that was disconnected: %v", err)
	}
}

// TestLostAnswersAreNobodyElse: a write that was done although its answer was lost, or was not done, is our own.
func TestLostAnswersAreNobodyElse(t *testing.T) {
	_, j, one, _, lose := registered(t)
	lose.Store(true)
	if err := one.Commit(t.Context(), j, upTo(6)); !errors.Is(err, syscall.ETIMEDOUT) {
		t.Fatal(err)
	}
	ok(t, one.Update(t.Context(), j, wire.MirrorPeerClientMeta{ImageID: "b"}))
	ok(t, one.Commit(t.Context(), j, upTo(7)))
	if got := stored(t, j); !sameClient(got, one.Known()) || got.CommitPosition[0].Entry != 7 {
		t.Errorf("stored is %+v, known %+v", got, one.Known())
	}
}

// TestRecordOfAnotherRelease has the record in the bytes of a release that knows more of it than we.
func TestRecordOfAnotherRelease(t *testing.T) {
	io, j, one, _, _ := registered(t)
	c := stored(t, j)
	var e encoding.Encoder
	e.Struct(2, 1, func(e *encoding.Encoder) {
		e.String(c.ID)
		e.Blob(c.Data)
		c.CommitPosition.Encode(e)
		e.U8(uint8(c.State))
		e.U64(4711)
	})
	var op rados.WriteOp
	op.SetOmap(map[string][]byte{wire.ClientKey("peer"): e.Bytes()})
	ok(t, io.Write(t.Context(), j.HeaderObject(), &op))
	ok(t, one.Commit(t.Context(), j, upTo(6)))
	if got := stored(t, j); got.CommitPosition[0].Entry != 6 {
		t.Errorf("stored is %+v", got)
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
