//go:build live

package lock

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/rbdwarden/rbdwarden/ceph/class"
	cls "github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/ceph/notify"
	"github.com/rbdwarden/rbdwarden/rados"
)

// TestLiveHeld has rbd's commands meet our lock: they see it, and are answered.
func TestLiveHeld(t *testing.T) {
	id := createImage(t, "held")
	mustCLI(t, "rbd", "snap", "create", "p/held@old")
	io := liveIO(t)
	l := liveAcquire(t, io, id, Options{})

	who := fmt.Sprintf("client.%d", io.Cluster().InstanceID())
	if out := mustCLI(t, "rbd", "lock", "ls", "p/held"); !strings.Contains(out, who) || !strings.Contains(out, l.Cookie()) {
		t.Errorf("rbd lock ls: %s", out)
	}
	if out := mustCLI(t, "rbd", "status", "p/held"); !strings.Contains(out, who+" cookie="+strings.TrimPrefix(l.Cookie(), "auto ")) {
		t.Errorf("rbd status: %s", out)
	}
	for _, argv := range [][]string{
		{"rbd", "snap", "create", "p/held@new"},
		{"rbd", "snap", "rm", "p/held@old"},
		{"rbd", "snap", "rename", "p/held@old", "p/held@older"},
		{"rbd", "snap", "protect", "p/held@old"},
		{"rbd", "resize", "-s", "128M", "p/held"},
		{"rbd", "rename", "p/held", "p/other"},
		{"rbd", "feature", "disable", "p/held", "fast-diff"},
		{"rbd", "image-meta", "set", "p/held", "k", "v"},
		{"rbd", "object-map", "rebuild", "p/held"},
		{"rbd", "sparsify", "p/held"},
		{"rbd", "bench", "--io-type", "write", "--io-total", "4K", "p/held"},
	} {
		began := time.Now()
		_, err := site.CLI(within(t, time.Minute), argv[0], argv[1:]...)
		took := time.Since(began)
		if err == nil || !strings.Contains(err.Error(), "Read-only file system") || took > 4*time.Second {
			t.Errorf("%s: after %v: %v", strings.Join(argv, " "), took, err)
		}
	}
	if !l.Valid() || l.Verify(within(t, 5*time.Second)) != nil {
		t.Errorf("%v, %v", l.State(), l.Cause())
	}
	if err := l.Release(within(t, 10*time.Second), nil); err != nil {
		t.Error(err)
	}
	if out := mustCLI(t, "rbd", "lock", "ls", "p/held"); strings.TrimSpace(out) != "" {
		t.Errorf("left a lock: %s", out)
	}
	if out := mustCLI(t, "rbd", "status", "p/held"); strings.Contains(out, "watcher=") {
		t.Errorf("left a watch: %s", out)
	}
	if out := blocklistOf(t); strings.Contains(out, "/") {
		t.Errorf("a clean run blocklists nobody: %s", out)
	}
	mustCLI(t, "rbd", "snap", "create", "p/held@new")
}

// TestLiveTakesFromLibrbd takes the lock from a living librbd, which gives it away.
func TestLiveTakesFromLibrbd(t *testing.T) {
	id := createImage(t, "taken")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	bench := site.Command(ctx, "rbd", "bench", "--io-type", "write", "--io-size", "4K", "--io-threads", "1",
		"--io-pattern", "rand", "--io-total", "1G", "p/taken")
	if err := bench.Start(); err != nil {
		t.Fatal(err)
	}
	io := liveIO(t)
	await(t, "bench has the lock", func() bool {
		i, err := rados.Ask(ctx, io, Header(id).Object, cls.GetInfo(cls.RBDName))
		return err == nil && len(i.Lockers) == 1
	})
	l := liveAcquire(t, io, id, Options{})
	// It wants the lock back, is refused, and gives up.
	if err := bench.Wait(); err == nil {
		t.Error("bench went on without the lock")
	}
	if out := blocklistOf(t); strings.Contains(out, "/") {
		t.Errorf("a living owner was blocklisted: %s", out)
	}
	if !l.Valid() {
		t.Error(l.Cause())
	}
}

// TestLiveKilledOwner fences an owner that was killed.
func TestLiveKilledOwner(t *testing.T) {
	id := createImage(t, "killed")
	h := startHolder(t, id)
	io := liveIO(t)
	owner, err := rados.Ask(within(t, 10*time.Second), io, Header(id).Object, cls.GetInfo(cls.RBDName))
	if err != nil || len(owner.Lockers) != 1 {
		t.Fatal(owner, err)
	}
	h.signal(t, syscall.SIGKILL)
	began := time.Now()
	l := liveAcquire(t, io, id, Options{})
	t.Logf("taken over after %v", time.Since(began))
	if out := blocklistOf(t); !strings.Contains(out, owner.Lockers[0].Address.Blocklist()) {
		t.Errorf("%s is not blocklisted: %s", owner.Lockers[0].Address.Blocklist(), out)
	}
	if !l.Valid() {
		t.Error(l.Cause())
	}
}

// TestLiveKnownDeadOwner is TestLiveKilledOwner by somebody who waited for the
// process: there is no need to wait for the OSD.
func TestLiveKnownDeadOwner(t *testing.T) {
	id := createImage(t, "reaped")
	h := startHolder(t, id)
	h.signal(t, syscall.SIGKILL)
	_ = h.cmd.Wait()
	io := liveIO(t)
	began := time.Now()
	l := liveAcquire(t, io, id, Options{KnownDead: func(description string) bool { return description == "holder" }})
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("took %v", took)
	}
	if !l.Valid() || !strings.Contains(blocklistOf(t), "/") {
		t.Error(l.Cause(), blocklistOf(t))
	}
}

// TestLivePausedOwner pauses an owner for longer than its watch lives. Awake again,
// it writes at once, and is refused.
func TestLivePausedOwner(t *testing.T) {
	id := createImage(t, "paused")
	h := startHolder(t, id)
	h.signal(t, syscall.SIGSTOP)
	io := liveIO(t)
	l := liveAcquire(t, io, id, Options{})
	before := readData(t, io, id)
	h.signal(t, syscall.SIGCONT)
	if line := h.await(t, "refused:"); !strings.HasPrefix(line, "refused: true") {
		t.Error(line)
	}
	if line := h.await(t, "lost"); !strings.HasPrefix(line, "lost: true false") {
		t.Error(line)
	}
	if line := h.await(t, "released:"); line != "released: <nil>" {
		t.Error(line)
	}
	if after := readData(t, io, id); after != before {
		t.Errorf("a fenced owner's write has landed: %q, then %q", before, after)
	}
	if !l.Valid() {
		t.Error(l.Cause())
	}
}

func readData(t testing.TB, io rados.IOContext, id string) string {
	t.Helper()
	var op rados.ReadOp
	data := op.Read(0, 100)
	if err := io.Read(within(t, 10*time.Second), "data."+id, &op); err != nil {
		t.Fatal(err)
	}
	return string(data.Data)
}

// TestLiveWatchLost has the OSD forget the watch of a paused owner whom nobody
// replaces: it wins its lock back.
func TestLiveWatchLost(t *testing.T) {
	id := createImage(t, "lost")
	h := startHolder(t, id)
	held := func() (cookie string, watchers int) {
		io := liveIO(t)
		var op rados.ReadOp
		q := cls.GetInfo(cls.RBDName)
		info, list := op.Exec(q.Call), op.ListWatchers()
		if err := io.Read(within(t, 10*time.Second), Header(id).Object, &op); err != nil {
			t.Fatal(err)
		}
		i, err := q.Decode(info.Data)
		if err != nil || len(i.Lockers) != 1 {
			t.Fatal(i, err)
		}
		return i.Lockers[0].Cookie, len(list.Watchers)
	}
	before, n := held()
	if n != 1 {
		t.Fatalf("%d watchers", n)
	}
	h.signal(t, syscall.SIGSTOP)
	for end := time.Now().Add(40 * time.Second); n == 1; _, n = held() {
		if time.Now().After(end) {
			t.Fatal("the OSD keeps the watch")
		}
		time.Sleep(200 * time.Millisecond)
	}
	h.signal(t, syscall.SIGCONT)
	for _, word := range []string{"suspended", "resumed", "updated"} {
		h.await(t, word)
	}
	after, n := held()
	if n != 1 {
		t.Errorf("%d watchers", n)
	}
	t.Logf("cookie %q, then %q", before, after)
}

// TestLiveHeaderUpdate hears of what librbd changes.
func TestLiveHeaderUpdate(t *testing.T) {
	id := createImage(t, "updated")
	updated := make(chan struct{}, 100)
	policy := &diary{release: true, onEntry: func(e string) {
		if e == "updated" {
			updated <- struct{}{}
		}
	}}
	l := liveAcquire(t, liveIO(t), id, Options{Policy: policy})
	// Released when asked: the command goes on by itself.
	go func() {
		<-l.ReleaseRequested()
		time.Sleep(100 * time.Millisecond)
		if err := rados.Tell(context.Background(), l.io, l.target.Object, l.AssertLocked()); err != nil {
			t.Errorf("still ours until we release it: %v", err)
		}
		if err := l.Release(context.Background(), nil); err != nil {
			t.Error(err)
		}
	}()
	mustCLI(t, "rbd", "bench", "--io-type", "write", "--io-total", "4K", "p/updated")
	if l.State() != Released || !strings.Contains(policy.String(), "requested false") {
		t.Errorf("%v: %s", l.State(), policy)
	}
	l = liveAcquire(t, liveIO(t), id, Options{Policy: policy})
	call := notify.Encode(notify.HeaderUpdate{})
	if _, err := liveIO(t).Notify(within(t, 10*time.Second), l.target.Object, call, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	select {
	case <-updated:
	case <-time.After(5 * time.Second):
		t.Error("not heard")
	}
}

// TestLiveObjectMap breaks the object map's lock of a client that is gone.
func TestLiveObjectMap(t *testing.T) {
	id := createImage(t, "map")
	ctx := within(t, 30*time.Second)
	first, second := liveIO(t), liveIO(t)
	for _, io := range []rados.IOContext{first, first, second} {
		if err := LockObjectMap(ctx, io, id); err != nil {
			t.Fatal(err)
		}
	}
	i, err := rados.Ask(ctx, first, "rbd_object_map."+id, cls.GetInfo(cls.RBDName))
	if err != nil || len(i.Lockers) != 1 || i.Lockers[0].Entity != cls.ClientName(second.Cluster().InstanceID()) {
		t.Errorf("%+v, %v", i, err)
	}
	for range 2 {
		if err := UnlockObjectMap(ctx, second, id); err != nil {
			t.Error(err)
		}
	}
	if err := LockObjectMap(ctx, first, "nosuch"); !errors.Is(err, syscall.ENOENT) {
		t.Error(err)
	}
}

// TestLiveModel performs random calls on an object and on the model of the class:
// both must agree on every error and on the lock's state.
func TestLiveModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	clients := []rados.IOContext{liveIO(t), liveIO(t)}
	ctx := within(t, 2*time.Minute)
	const object = "model"
	var create rados.WriteOp
	if err := clients[0].Write(ctx, object, create.Create(false)); err != nil {
		t.Fatal(err)
	}
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	name := func() string { return pick("a", "a", "b", "") }
	cookie := func() string { return pick("", "x", "y") }
	tag := func() string { return pick("t", "t", "t", "u") }
	kind := func() cls.Type { return cls.Type(r.IntN(4)) }
	var model cls.Object
	for n := range 2000 {
		who := r.IntN(len(clients))
		io := clients[who]
		entity := cls.ClientName(io.Cluster().InstanceID())
		var call class.Call
		switch r.IntN(6) {
		case 0, 1:
			k := kind()
			if k == cls.ExclusiveEphemeral {
				k = cls.Exclusive // it would remove the object
			}
			call = cls.Lock(cls.Request{Name: name(), Type: k, Cookie: cookie(), Tag: tag(), Flags: cls.Flags(r.IntN(4))})
		case 2:
			call = cls.Unlock(name(), cookie())
		case 3:
			call = cls.Break(name(), cls.LockerID{Entity: cls.ClientName(clients[r.IntN(2)].Cluster().InstanceID()), Cookie: cookie()})
		case 4:
			call = cls.Assert(name(), kind(), cookie(), tag())
		case 5:
			call = cls.SetCookie(name(), kind(), cookie(), tag(), cookie())
		}
		_, _, want := model.Call(call.Method, call.In, cls.Caller{Entity: entity}, time.Now())
		got := rados.Tell(ctx, io, object, call)
		if (want == nil) != (got == nil) || want != nil && !errors.Is(got, want) {
			t.Fatalf("call %d, %s %x: the OSD says %v, the model %v", n, call.Method, call.In, got, want)
		}
		for _, l := range []string{"a", "b"} {
			q := cls.GetInfo(l)
			real, err := rados.Ask(ctx, io, object, q)
			if err != nil {
				t.Fatal(err)
			}
			out, _, _ := model.Call(q.Method, q.In, cls.Caller{}, time.Now())
			ours, _ := q.Decode(out)
			if diff := cmp.Diff(ours, real, cmpopts.IgnoreFields(cls.LockerInfo{}, "Address"), cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("call %d, %s %x: %s", n, call.Method, call.In, diff)
			}
		}
	}
}
