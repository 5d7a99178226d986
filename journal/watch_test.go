package journal

import (
	"sync/atomic"
	"testing"
	"time"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/rados"
)

// listen counts the calls that a Watch makes.
func listen(t *testing.T, j *Journal) (heard *atomic.Int64, stop func()) {
	t.Helper()
	heard = &atomic.Int64{}
	stop, err := j.Watch(t.Context(), func() { heard.Add(1) })
	ok(t, err)
	return heard, stop
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not in time: ", what)
		}
	}
}

// TestWatchersShareOneWatch: the OSD has one to look after, whoever stops first.
func TestWatchersShareOneWatch(t *testing.T) {
	io, j, _, _, _ := registered(t)
	watches := func() int {
		var op rados.ReadOp
		list := op.ListWatchers()
		ok(t, io.Read(t.Context(), j.HeaderObject(), &op))
		return len(list.Watchers)
	}
	a, stopA := listen(t, j)
	b, stopB := listen(t, j)
	if n := watches(); n != 1 {
		t.Errorf("%d watches", n)
	}
	ok(t, j.Register(t.Context(), "another", wire.MirrorPeerClientMeta{}))
	eventually(t, "both are told", func() bool { return a.Load() > 0 && b.Load() > 0 })
	stopA()
	stopA() // again: as if nothing
	before := a.Load()
	ok(t, j.Register(t.Context(), "a third", wire.MirrorPeerClientMeta{}))
	eventually(t, "the other one is told", func() bool { return b.Load() > 1 })
	if a.Load() > before {
		t.Error("told after its stop")
	}
	stopB()
	if n := watches(); n != 0 {
		t.Errorf("%d watches are left", n)
	}
	c, stopC := listen(t, j)
	ok(t, j.Register(t.Context(), "a fourth", wire.MirrorPeerClientMeta{}))
	eventually(t, "who comes later is told", func() bool { return c.Load() > 0 })
	stopC()
}

// TestOwnCommitsAreNoNews: a journal's own commits wake nobody but others; what else it
// changes, and what others commit, does.
func TestOwnCommitsAreNoNews(t *testing.T) {
	io, j, own, other, _ := registered(t)
	elsewhere, err := Open(t.Context(), io, testImage)
	ok(t, err)
	t.Cleanup(elsewhere.Close)
	j.notifies.Wait()
	here, stopHere := listen(t, j)
	defer stopHere()
	there, stopThere := listen(t, elsewhere)
	defer stopThere()
	for n := range int64(20) {
		ok(t, own.Commit(t.Context(), j, upTo(wire.EntryTID(10+n))))
		eventually(t, "others are told of a commit", func() bool { return there.Load() > n })
		j.notifies.Wait()
	}
	if n := here.Load(); n > 0 {
		t.Errorf("told %d times of its own commits", n)
	}
	ok(t, own.Update(t.Context(), j, wire.MirrorPeerClientMeta{ImageID: "b"}))
	eventually(t, "an update is told", func() bool { return here.Load() > 0 })
	j.notifies.Wait()
	before := here.Load()
	c, err := j.Client(t.Context(), "peer")
	ok(t, err)
	other.Know(c)
	ok(t, other.Commit(t.Context(), elsewhere, upTo(99)))
	eventually(t, "another's commit is told", func() bool { return here.Load() > before })
}
