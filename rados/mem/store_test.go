package mem

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/rados"
)

var ctx = context.Background()

func newPool(t *testing.T, opt Options) (*Store, *Client, rados.IOContext) {
	t.Helper()
	s := New(opt)
	s.AddPool("rbd")
	c := s.Connect()
	return s, c, openPool(t, c)
}

func openPool(t *testing.T, c *Client) rados.IOContext {
	t.Helper()
	io, err := c.Open(ctx, "rbd", "")
	if err != nil {
		t.Fatal(err)
	}
	return io
}

func w() *rados.WriteOp { return &rados.WriteOp{} }

func do(t *testing.T, io rados.IOContext, object string, op *rados.WriteOp) {
	t.Helper()
	if err := io.Write(ctx, object, op); err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, err error, errno syscall.Errno) {
	t.Helper()
	if errno == 0 && err == nil {
		return
	}
	if !errors.Is(err, errno) {
		t.Fatalf("error %v, want %v", err, errno)
	}
}

func data(t *testing.T, io rados.IOContext, object string, snap ceph.SnapID) string {
	t.Helper()
	op := rados.ReadOp{Snap: snap}
	r := op.Read(0, 1<<20)
	switch err := io.Read(ctx, object, &op); {
	case errors.Is(err, syscall.ENOENT):
		return "(none)"
	case err != nil:
		t.Fatal(err)
	}
	return string(r.Data)
}

func TestOperationsAreAtomic(t *testing.T) {
	_, _, io := newPool(t, Options{})
	do(t, io, "o", w().WriteFull([]byte("old")).SetOmap(map[string][]byte{"k": []byte("1")}))
	err := io.Write(ctx, "o", w().WriteFull([]byte("new")).SetOmap(map[string][]byte{"k": []byte("2")}).
		SetXattr("x", nil).Create(true))
	want(t, err, syscall.EEXIST)
	var op rados.ReadOp
	omap, attrs := op.ListOmap("", "", 10), op.Xattrs()
	if err := io.Read(ctx, "o", &op); err != nil {
		t.Fatal(err)
	}
	if got := data(t, io, "o", 0); got != "old" || string(omap.Pairs["k"]) != "1" || len(attrs.Pairs) != 0 {
		t.Errorf("a failed operation changed the object: %q %q %q", got, omap.Pairs, attrs.Pairs)
	}
	var mismatch *rados.MismatchError
	if err := io.Write(ctx, "o", w().CmpExt(0, []byte("oxd")).Remove()); !errors.As(err, &mismatch) || mismatch.Offset != 1 {
		t.Errorf("compare: %v", err)
	}
}

func TestSnapshotsSeeTheirState(t *testing.T) {
	_, _, io := newPool(t, Options{})
	take := func(old ceph.SnapContext) ceph.SnapContext {
		id, err := io.CreateSnapID(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return ceph.SnapContext{Seq: id, Snaps: append([]ceph.SnapID{id}, old.Snaps...)}
	}
	write := func(object string, c ceph.SnapContext, op *rados.WriteOp) {
		t.Helper()
		op.SnapContext = c
		do(t, io, object, op)
	}
	c0 := ceph.SnapContext{}
	write("o", c0, w().WriteFull([]byte("aaaa")))
	c1 := take(c0)
	c2 := take(c1)
	write("o", c2, w().Write(1, []byte("b")))
	c3 := take(c2)
	write("o", c3, w().Remove())
	write("late", c3, w().WriteFull([]byte("late")))
	s1, s2, s3 := c1.Seq, c2.Seq, c3.Seq
	for _, c := range []struct {
		object string
		snap   ceph.SnapID
		want   string
	}{
		{"o", s1, "aaaa"}, {"o", s2, "aaaa"}, {"o", s3, "abaa"}, {"o", 0, "(none)"},
		{"late", s1, "(none)"}, {"late", s3, "(none)"}, {"late", 0, "late"},
	} {
		if got := data(t, io, c.object, c.snap); got != c.want {
			t.Errorf("%s at %d: %q, want %q", c.object, c.snap, got, c.want)
		}
	}
	var op rados.ReadOp
	list := op.ListSnaps()
	if err := io.Read(ctx, "o", &op); err != nil {
		t.Fatal(err)
	}
	wantClones := []rados.Clone{
		{ID: s2, Snaps: []ceph.SnapID{s1, s2}, Size: 4, Overlap: []rados.Extent{{Offset: 0, Length: 1}, {Offset: 2, Length: 2}}},
		{ID: s3, Snaps: []ceph.SnapID{s3}, Size: 4},
	}
	if d := cmp.Diff(wantClones, list.Clones); d != "" {
		t.Errorf("clones (-want +got):\n%s", d)
	}
	write("o", c3, w().Rollback(s1))
	if got := data(t, io, "o", 0); got != "aaaa" {
		t.Errorf("rolled back to %q", got)
	}
	for _, id := range []ceph.SnapID{s1, s2, s3} {
		if err := io.RemoveSnapID(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	if got := data(t, io, "o", s1); got != "(none)" {
		t.Errorf("a removed snapshot reads %q", got)
	}
}

type listener struct {
	mu   sync.Mutex
	got  []string
	lost error
	ack  bool
}

func (l *listener) Notified(n rados.Notification) {
	l.mu.Lock()
	l.got = append(l.got, string(n.Payload))
	ack := l.ack
	l.mu.Unlock()
	if ack {
		n.Ack([]byte("heard " + string(n.Payload)))
		n.Ack([]byte("again"))
	}
}

func (l *listener) WatchLost(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost = err
}

func TestNotifyReachesWatchers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, a, io := newPool(t, Options{})
		b := s.Connect()
		do(t, io, "o", w().Create(true))
		good, deaf, dead := &listener{ack: true}, &listener{}, &listener{ack: true}
		watchOf := func(c *Client, l *listener) rados.Watch {
			h, err := openPool(t, c).Watch(ctx, "o", 30*time.Second, l)
			if err != nil {
				t.Fatal(err)
			}
			return h
		}
		wa, wb := watchOf(a, good), watchOf(b, deaf)
		crashing := s.Connect()
		wc := watchOf(crashing, dead)
		crashing.Crash()
		notify := func() rados.NotifyReply {
			r, err := io.Notify(ctx, "o", []byte("hello"), 5*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		r := notify()
		if len(r.Acks) != 1 || string(r.Acks[0].Reply) != "heard hello" || r.Acks[0].Watcher.ClientID != a.InstanceID() {
			t.Errorf("acknowledged by %+v", r.Acks)
		}
		if len(r.Missed) != 2 || r.Missed[0].Cookie != wb.Cookie() || r.Missed[1].Cookie != wc.Cookie() {
			t.Errorf("missed by %+v", r.Missed)
		}
		if len(dead.got) != 0 {
			t.Errorf("a crashed client heard %q", dead.got)
		}
		time.Sleep(31 * time.Second)
		if r := notify(); len(r.Missed) != 1 {
			t.Errorf("after its timeout the crashed client's watch is still there: %+v", r.Missed)
		}
		if err := a.Blocklist(ctx, b.Addresses(), 0); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !errors.Is(deaf.lost, rados.Blocklisted) {
			t.Errorf("blocklisted client's watch ended with %v", deaf.lost)
		}
		want(t, openPool(t, b).Write(ctx, "o", w().Append([]byte("x"))), rados.Blocklisted)
		if err := wa.Close(ctx); err != nil {
			t.Fatal(err)
		}
		if r := notify(); len(r.Acks)+len(r.Missed) != 0 {
			t.Errorf("nobody watches, but %+v", r)
		}
	})
}

func TestRemovalEndsWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, io := newPool(t, Options{})
		_, err := io.Watch(ctx, "o", 0, &listener{})
		want(t, err, syscall.ENOENT)
		do(t, io, "o", w().Create(true))
		l := &listener{}
		h, err := io.Watch(ctx, "o", 0, l)
		if err != nil {
			t.Fatal(err)
		}
		do(t, io, "o", w().Remove())
		synctest.Wait()
		if _, err := h.Check(); !errors.Is(err, syscall.ENOTCONN) || !errors.Is(l.lost, syscall.ENOTCONN) {
			t.Errorf("watch of a removed object: %v, told %v", err, l.lost)
		}
	})
}

// TestDelaysKeepOrder: whatever the delays, operations on one object take effect in
// the order in which they were started; those on different objects need not.
func TestDelaysKeepOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var done []string
		delays := map[uint64]time.Duration{1: 30, 2: 10, 3: 1}
		s, _, io := newPool(t, Options{Faults: FaultFunc(func(op Op) Verdict {
			return Verdict{Delay: delays[op.Seq] * time.Second}
		})})
		var wg sync.WaitGroup
		for _, step := range []struct{ object, text string }{{"a", "1"}, {"a", "2"}, {"b", "3"}} {
			wg.Go(func() {
				if err := io.Write(ctx, step.object, w().Append([]byte(step.text))); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				done = append(done, step.text)
			})
			synctest.Wait() // so that they start in this order
		}
		wg.Wait()
		if got := data(t, io, "a", 0); got != "12" {
			t.Errorf("object holds %q", got)
		}
		if !slices.Equal(done, []string{"3", "1", "2"}) {
			t.Errorf("completed in order %q", done)
		}
		_ = s
	})
}

func TestFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var next Verdict
		s, c, io := newPool(t, Options{Faults: FaultFunc(func(Op) Verdict { v := next; next = Verdict{}; return v })})
		write := func(v Verdict, text string, wait time.Duration) error {
			ctx, cancel := context.WithTimeout(ctx, wait)
			defer cancel()
			next = v
			return io.Write(ctx, "o", w().Append([]byte(text)))
		}
		want(t, write(Verdict{Fail: syscall.ETIMEDOUT}, "a", time.Minute), syscall.ETIMEDOUT)
		want(t, write(Verdict{Hide: syscall.ETIMEDOUT}, "b", time.Minute), syscall.ETIMEDOUT)
		if err := write(Verdict{Lose: true}, "c", time.Minute); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("lost answer: %v", err)
		}
		if err := write(Verdict{Delay: time.Minute}, "d", time.Second); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("given up: %v", err)
		}
		if got := data(t, io, "o", 0); got != "bcd" {
			// The read waits behind the write that was given up.
			t.Errorf("object holds %q", got)
		}
		if err := write(Verdict{CrashAfter: true}, "e", time.Minute); !errors.Is(err, ErrCrashed) || !c.Crashed() {
			t.Fatalf("crash: %v", err)
		}
		if err := write(Verdict{}, "f", time.Minute); !errors.Is(err, ErrCrashed) {
			t.Fatalf("after the crash: %v", err)
		}
		other := openPool(t, s.Connect())
		next = Verdict{CrashBefore: true}
		if err := other.Write(ctx, "o", w().Append([]byte("g"))); !errors.Is(err, ErrCrashed) {
			t.Fatalf("crash: %v", err)
		}
		if got := data(t, openPool(t, s.Connect()), "o", 0); got != "bcde" {
			t.Errorf("object holds %q", got)
		}
	})
}

func TestChaosIsDeterministic(t *testing.T) {
	run := func(seed uint64) (out []Verdict) {
		c := &Chaos{Seed: seed, MaxDelay: time.Second, Fail: 0.2, Hide: 0.2, Crash: 0.1}
		for range 50 {
			out = append(out, c.Judge(Op{}))
		}
		return out
	}
	if !slices.Equal(run(7), run(7)) || slices.Equal(run(7), run(8)) {
		t.Error("verdicts do not follow the seed")
	}
}

func TestLocksAreTakenAndAsserted(t *testing.T) {
	s, _, io := newPool(t, Options{})
	other := openPool(t, s.Connect())
	request := lock.Request{Name: "rbd_lock", Type: lock.Exclusive, Cookie: "c", Tag: "internal"}
	want(t, rados.Tell(ctx, io, "o", lock.Lock(request)), 0)
	want(t, rados.Tell(ctx, other, "o", lock.Lock(request)), syscall.EBUSY)
	info, err := rados.Ask(ctx, other, "o", lock.GetInfo("rbd_lock"))
	if err != nil || len(info.Lockers) != 1 || info.Tag != "internal" {
		t.Fatalf("lock info %+v, %v", info, err)
	}
	held := lock.Assert("rbd_lock", lock.Exclusive, "c", "internal")
	do(t, io, "o", w().Exec(held).Append([]byte("mine")))
	want(t, other.Write(ctx, "o", w().Exec(held).Append([]byte("theirs"))), syscall.EBUSY)
	// A step behind the lock's fails: the lock is not taken.
	err = other.Write(ctx, "p", w().Exec(lock.Lock(request)).Create(true).Create(true))
	want(t, err, syscall.EEXIST)
	want(t, rados.Tell(ctx, io, "p", lock.Lock(request)), 0)
	if got := data(t, io, "o", 0); got != "mine" {
		t.Errorf("object holds %q", got)
	}
}

func TestJournalExpiresTags(t *testing.T) {
	_, _, io := newPool(t, Options{})
	tell := func(op *rados.WriteOp) { t.Helper(); do(t, io, "journal.x", op) }
	tell(w().Exec(journal.Create(12, 4, -1)))
	tell(w().Exec(journal.ClientRegister("", nil)))
	for i := range 4 {
		class := journal.TagClass(0)
		if i == 0 {
			class = journal.NewTagClass
		}
		tell(w().Exec(journal.TagCreate(journal.TagTID(i), class, []byte{byte(i)})))
	}
	tell(w().Exec(journal.ClientCommit("", journal.ObjectSetPosition{{Object: 1, Tag: 3, Entry: 7}})))
	tell(w().Exec(journal.ClientRegister("peer", []byte("data"))))
	peer, err := rados.Ask(ctx, io, "journal.x", journal.GetClient("peer"))
	if err != nil || len(peer.CommitPosition) != 1 || peer.CommitPosition[0].Entry != 7 {
		t.Fatalf("a new client starts at %+v, %v", peer, err)
	}
	tell(w().Exec(journal.TagCreate(4, 0, nil)))
	_, err = rados.Ask(ctx, io, "journal.x", journal.GetTag(2))
	want(t, err, syscall.ENOENT)
	tags, err := rados.Ask(ctx, io, "journal.x", journal.TagList(0, 64, "peer", nil))
	if err != nil || len(tags) != 2 || tags[0].TID != 3 || tags[1].TID != 4 {
		t.Errorf("tags %+v, %v", tags, err)
	}
	want(t, rados.Tell(ctx, io, "journal.x", journal.TagCreate(9, 0, nil)), syscall.ESTALE)
}

// TestRemovedObjectRemembersItsOmap: an object that was removed while it had an omap and
// clones, and is made again, makes a clone where its omap is cleared, as if it had one.
func TestRemovedObjectRemembersItsOmap(t *testing.T) {
	_, _, io := newPool(t, Options{})
	for _, op := range omapOfARemovedObject(1, 2, 3) {
		do(t, io, "o", op)
	}
	op := (&rados.ReadOp{})
	list := op.ListSnaps()
	if err := io.Read(ctx, "o", op); err != nil {
		t.Fatal(err)
	}
	want := []rados.Clone{
		{ID: 1, Snaps: []ceph.SnapID{1}},
		{ID: 2, Snaps: []ceph.SnapID{2}, Size: 3, Overlap: []rados.Extent{{Length: 3}}},
		{ID: 3, Snaps: []ceph.SnapID{3}, Size: 3},
		{ID: ceph.NoSnap, Size: 1},
	}
	if d := cmp.Diff(want, list.Clones); d != "" {
		t.Error(d)
	}
}

// omapOfARemovedObject are the operations of that test, under three snapshots that were
// taken one after the other.
func omapOfARemovedObject(one, two, three ceph.SnapID) []*rados.WriteOp {
	at := func(snaps ...ceph.SnapID) *rados.WriteOp {
		return &rados.WriteOp{SnapContext: ceph.SnapContext{Seq: snaps[0], Snaps: snaps}}
	}
	return []*rados.WriteOp{
		w().SetOmap(map[string][]byte{"k": []byte("v")}),
		at(one).Remove(),
		at(one).WriteFull([]byte("abc")),
		at(two, one).ClearOmap(),
		at(three, two, one).WriteFull([]byte("d")),
	}
}

// TestForgetWatches: the OSD has dropped a watch, and its client does not know until it is told.
func TestForgetWatches(t *testing.T) {
	s, c, io := newPool(t, Options{})
	do(t, io, "o", w().Create(false))
	lost := make(chan error, 1)
	watch, err := io.Watch(ctx, "o", 0, lostHandler(lost))
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close(ctx)
	tell := c.ForgetWatches()
	if r, err := openPool(t, s.Connect()).Notify(ctx, "o", nil, time.Second); err != nil || len(r.Acks)+len(r.Missed) > 0 {
		t.Errorf("notification reached %+v, %v", r, err)
	}
	if _, err := watch.Check(); err != nil {
		t.Errorf("the client knows already: %v", err)
	}
	tell()
	want(t, <-lost, syscall.ENOTCONN)
}

type lostHandler chan error

func (lostHandler) Notified(n rados.Notification) { n.Ack(nil) }
func (h lostHandler) WatchLost(err error)         { h <- err }

// TestDelivery: a notification is lost, then comes twice, as the faults want it; and each
// operation is observed when it was performed.
func TestDelivery(t *testing.T) {
	var verdict atomic.Pointer[Verdict]
	observed := 0
	s, _, io := newPool(t, Options{
		Faults: FaultFunc(func(op Op) Verdict {
			if op.Kind == Deliver {
				return *verdict.Load()
			}
			return Verdict{}
		}),
		Observe: func(v View, op Op, err error) {
			if op.Kind == Write && v.Exists(op.Object) {
				observed++
			}
		},
	})
	do(t, io, "o", w().Create(false))
	if observed != 1 {
		t.Errorf("observed %d writes", observed)
	}
	heard := make(counter, 9)
	watch, err := io.Watch(ctx, "o", 0, heard)
	if err != nil {
		t.Fatal(err)
	}
	other := openPool(t, s.Connect())
	for times, v := range []Verdict{{Fail: syscall.ETIMEDOUT}, {}, {Twice: true}} {
		verdict.Store(&v)
		if _, err := other.Notify(ctx, "o", nil, 50*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		for range times {
			<-heard
		}
	}
	want(t, watch.Close(ctx), 0)
	if len(heard) > 0 {
		t.Errorf("%d more than wanted", len(heard))
	}
}

type counter chan struct{}

func (c counter) Notified(n rados.Notification) { n.Ack(nil); c <- struct{}{} }
func (counter) WatchLost(error)                 {}
