package mirror

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	cephmirror "github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/rados"
)

// show prints the steps of writes: "set ID STATE DESCRIPTION", "remove KEY", "remove down".
func show(t testing.TB, ops []*rados.WriteOp) string {
	t.Helper()
	var lines []string
	for _, op := range ops {
		if op.Steps[0].Kind != rados.WriteAssertExists {
			t.Error("a write would create the object")
		}
		for _, s := range op.Steps[1:] {
			switch {
			case s.Kind == rados.WriteOmapRemove:
				lines = append(lines, "remove "+strings.Join(s.Keys, " "))
			case s.Call.Method == "mirror_image_status_remove_down":
				lines = append(lines, "remove down")
			case s.Call.Method == "mirror_image_status_set":
				d := encoding.NewDecoder("test", s.Call.In)
				id := d.String()
				status, err := cephmirror.DecodeStatus(d.Rest())
				if err != nil {
					t.Fatal(err)
				}
				lines = append(lines, strings.TrimSpace(fmt.Sprintf("set %s %s %v %s", id, status.MirrorUUID, status.State, status.Description)))
			default:
				t.Errorf("unexpected step %+v", s)
			}
		}
	}
	return strings.Join(lines, "; ")
}

// running starts a writer that ends with the test.
func running(t *testing.T, cfg StatusConfig) (w *StatusWriter, stop func() error) {
	t.Helper()
	w = NewStatusWriter(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	synctest.Wait()
	return w, func() error {
		cancel()
		return <-done
	}
}

func expect(t *testing.T, io *fakeIO, want string) {
	t.Helper()
	synctest.Wait()
	if got := show(t, io.taken()); got != want {
		t.Errorf("%s\n got: %s\nwant: %s", time.Now().Format("05.000"), got, want)
	}
}

func TestStatusWriterPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		io := newFakeIO("p")
		w, stop := running(t, StatusConfig{IO: io, MirrorUUID: "u"})
		expect(t, io, "remove down")
		if !io.watching() || !w.Condition().Registered {
			t.Error("no watch")
		}

		w.Set("g", cephmirror.StatusReplaying, "a")
		w.Set("g", cephmirror.StatusReplaying, "b")
		expect(t, io, "")
		time.Sleep(DefaultHurry)
		expect(t, io, "set g u replaying b")

		w.Set("g", cephmirror.StatusReplaying, "c") // only the description
		time.Sleep(DefaultHurry)
		expect(t, io, "")
		w.Set("h", cephmirror.StatusError, "bad") // takes the other along
		time.Sleep(DefaultHurry)
		expect(t, io, "set h u error bad; set g u replaying c")

		w.Set("g", cephmirror.StatusReplaying, "c") // nothing new
		w.Set("g", cephmirror.StatusReplaying, "d")
		time.Sleep(DefaultSettle)
		expect(t, io, "set g u replaying d")

		time.Sleep(DefaultBeat)
		expect(t, io, "set g u replaying d; set h u error bad")

		w.Set("g", cephmirror.StatusStopped, "")
		if err := stop(); err != nil {
			t.Error(err)
		}
		expect(t, io, "set g u stopped")
		if io.watching() {
			t.Error("the watch is still there")
		}
	})
}

func TestStatusWriterForgetsAndRemoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		io := newFakeIO("p")
		w, stop := running(t, StatusConfig{IO: io})
		w.Set("kept", cephmirror.StatusReplaying, "")
		w.Set("released", cephmirror.StatusReplaying, "")
		time.Sleep(DefaultHurry)
		expect(t, io, "remove down; set kept  replaying; set released  replaying")

		w.Set("released", cephmirror.StatusStopped, "")
		w.Forget("released")
		w.Remove("gone")
		time.Sleep(DefaultHurry)
		expect(t, io, "remove status_global_gone; set released  stopped")
		time.Sleep(DefaultBeat)
		expect(t, io, "set kept  replaying")
		w.Forget("kept")
		time.Sleep(DefaultBeat)
		expect(t, io, "")
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// TestRemoteRemovalLeavesOthersStatuses: the key has our mirror uuid.
func TestRemoteRemovalLeavesOthersStatuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		io := newFakeIO("p")
		w, stop := running(t, StatusConfig{IO: io, MirrorUUID: "u"})
		w.Remove("g")
		time.Sleep(DefaultHurry)
		expect(t, io, "remove down; remove remote_status_global_g_u")
		_ = stop()
	})
}

func TestStatusBatchesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		io := newFakeIO("p")
		w, stop := running(t, StatusConfig{IO: io})
		io.taken()
		for i := range 250 {
			w.Set(fmt.Sprint(i), cephmirror.StatusReplaying, "")
		}
		time.Sleep(DefaultHurry)
		synctest.Wait()
		var sizes []int
		for _, op := range io.taken() {
			sizes = append(sizes, len(op.Steps)-1)
		}
		if fmt.Sprint(sizes) != "[100 100 50]" {
			t.Errorf("operations of %v statuses", sizes)
		}
		_ = stop()
	})
}

// TestDeadRemoteDelaysNobody: the remote cluster never answers, the local one does.
func TestDeadRemoteDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local, remote := newFakeIO("p"), newFakeIO("p")
		remote.block = true
		wl, stopLocal := running(t, StatusConfig{IO: local})
		wr, stopRemote := running(t, StatusConfig{IO: remote, MirrorUUID: "u"})
		both := StatusWriters{wl, wr}
		local.taken()
		start := time.Now()
		for i := range 100 {
			both.Set("g", cephmirror.StatusReplaying, fmt.Sprint(i))
			time.Sleep(DefaultHurry)
			synctest.Wait()
		}
		if took := time.Since(start); took != 100*DefaultHurry {
			t.Errorf("100 changes took %v", took)
		}
		if n := len(local.taken()); n == 0 {
			t.Error("the local pool got nothing")
		}
		if c := wr.Condition(); c.Registered || c.Failures == 0 || !errors.Is(c.Err, context.DeadlineExceeded) {
			t.Errorf("%+v", c)
		}

		remote.mu.Lock()
		remote.block = false // it comes back
		remote.mu.Unlock()
		for !wr.Condition().Registered {
			time.Sleep(time.Second)
		}
		expect(t, remote, "remove down; set g u replaying 99")
		if err := stopLocal(); err != nil {
			t.Error(err)
		}
		if err := stopRemote(); err != nil {
			t.Error(err)
		}
	})
}

// TestStopDuringOutage: a cluster that does not answer holds up the end by one
// timeout at most.
func TestStopDuringOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		io := newFakeIO("p")
		w, stop := running(t, StatusConfig{IO: io})
		io.mu.Lock()
		io.block = true
		io.mu.Unlock()
		w.Set("g", cephmirror.StatusReplaying, "")
		time.Sleep(time.Second)
		start := time.Now()
		if err := stop(); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > DefaultTimeout {
			t.Errorf("took %v", took)
		}
	})
}

func TestFailedStatusesAreWrittenLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		io := newFakeIO("p")
		w, stop := running(t, StatusConfig{IO: io})
		io.taken()
		io.mu.Lock()
		io.fail = func(*rados.WriteOp) error { return syscall.EIO }
		io.mu.Unlock()
		w.Set("g", cephmirror.StatusSyncing, "1")
		w.Set("h", cephmirror.StatusStopped, "")
		w.Forget("h")
		time.Sleep(DefaultHurry)
		synctest.Wait()
		w.Set("g", cephmirror.StatusReplaying, "2")
		if c := w.Condition(); c.Pending != 2 || !errors.Is(c.Err, syscall.EIO) {
			t.Errorf("%+v", c)
		}
		io.mu.Lock()
		io.fail = nil
		io.mu.Unlock()
		time.Sleep(DefaultRetry)
		expect(t, io, "set g  replaying 2; set h  stopped")
		if c := w.Condition(); c.Pending != 0 || c.Err != nil || c.Failures != 0 || c.LastWrite.IsZero() {
			t.Errorf("%+v", c)
		}
		_ = stop()
	})
}

// TestLostWatchIsRegisteredAgain, and all statuses are written again, for somebody may
// have removed them as down.
func TestLostWatchIsRegisteredAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		io := newFakeIO("p")
		w, stop := running(t, StatusConfig{IO: io})
		w.Set("g", cephmirror.StatusReplaying, "")
		time.Sleep(DefaultHurry)
		synctest.Wait()
		io.taken()
		io.watch.handler.WatchLost(syscall.ENOTCONN)
		expect(t, io, "remove down; set g  replaying")
		if io.watches != 2 || !w.Condition().Registered {
			t.Errorf("%d watches, %+v", io.watches, w.Condition())
		}
		_ = stop()
	})
}

func TestFencedWriterEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		io := newFakeIO("p")
		w := NewStatusWriter(StatusConfig{IO: io})
		done := make(chan error, 1)
		go func() { done <- w.Run(t.Context()) }()
		synctest.Wait()
		io.mu.Lock()
		io.fail = func(*rados.WriteOp) error { return rados.Blocklisted }
		io.mu.Unlock()
		w.Set("g", cephmirror.StatusReplaying, "")
		if err := <-done; rados.Classify(err) != rados.Fenced {
			t.Errorf("%v", err)
		}
	})
}

func TestFlushWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		io := newFakeIO("p")
		w, stop := running(t, StatusConfig{IO: io, Hurry: time.Hour})
		io.taken()
		w.Set("g", cephmirror.StatusStopped, "")
		if err := w.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		expect(t, io, "set g  stopped")
		if err := w.Flush(t.Context()); err != nil { // nothing to do
			t.Error(err)
		}
		io.mu.Lock()
		io.fail = func(*rados.WriteOp) error { return syscall.EIO }
		io.mu.Unlock()
		w.Set("g", cephmirror.StatusError, "")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := w.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, syscall.EIO) {
			t.Errorf("%v", err)
		}
		_ = stop()
	})
}

// TestStatusBookLosesNothing drives the book with random changes and failures and then
// lets all succeed: the pool must hold what was said last.
func TestStatusBookLosesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1000, 0)
		b := newStatusBook(time.Second, 10*time.Second)
		stored, want := map[string]cephmirror.Status{}, map[string]cephmirror.Status{}
		var underway []statusUpdate
		id := rapid.SampledFrom([]string{"a", "b", "c"})
		land := func() {
			for _, u := range underway {
				if u.remove {
					delete(stored, u.globalID)
				} else {
					stored[u.globalID] = u.status
				}
			}
		}
		actions := map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				s := cephmirror.Status{State: cephmirror.StatusState(rapid.IntRange(0, 2).Draw(t, "state")),
					Description: rapid.SampledFrom([]string{"x", "y"}).Draw(t, "description")}
				g := id.Draw(t, "id")
				b.set(now, g, s)
				want[g] = s
			},
			"forget": func(t *rapid.T) { b.forget(id.Draw(t, "id")) },
			"remove": func(t *rapid.T) {
				g := id.Draw(t, "id")
				b.remove(now, g)
				delete(want, g)
			},
			"beat": func(*rapid.T) { b.beat(now) },
			"take": func(t *rapid.T) {
				if underway == nil {
					underway = b.take(now, rapid.IntRange(1, 3).Draw(t, "max"))
				}
			},
			"written": func(*rapid.T) { land(); b.written(underway); underway = nil },
			"failed": func(t *rapid.T) {
				if rapid.Bool().Draw(t, "landed all the same") {
					land()
				}
				b.failed(underway, now.Add(time.Second))
				underway = nil
			},
			"time passes": func(t *rapid.T) { now = now.Add(time.Duration(rapid.IntRange(0, 12).Draw(t, "s")) * time.Second) },
		}
		t.Repeat(actions)
		land()
		b.written(underway)
		for {
			due, ok := b.next()
			if !ok {
				break
			}
			now = due
			underway = b.take(now, 2)
			land()
			b.written(underway)
		}
		for g, s := range want {
			if stored[g] != s {
				t.Fatalf("%s: the pool has %+v, said was %+v", g, stored[g], s)
			}
		}
		if len(stored) != len(want) {
			t.Fatalf("the pool has %v, said was %v", stored, want)
		}
		if b.pending() != 0 {
			t.Fatal("something is pending for ever")
		}
	})
}
