package lock

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rbdwarden/rbdwarden/ceph/class"
	cls "github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/ceph/notify"
	"github.com/rbdwarden/rbdwarden/rados"
)

// instead, if not nil, is what the test binary does instead of running the tests
// with a check for leaks; the live tests set it.
var instead func(m *testing.M)

func TestMain(m *testing.M) {
	if instead != nil {
		instead(m)
		return
	}
	goleak.VerifyTestMain(m)
}

const (
	image  = "1234"
	header = "rbd_header.1234"
)

// quick has all delays shortened.
func quick() Options {
	return Options{
		NotifyTimeout: 300 * time.Millisecond, RetryDelay: 5 * time.Millisecond, ReleaseWait: 2 * time.Second,
		DeadGrace: 20 * time.Millisecond, RewatchGrace: 200 * time.Millisecond,
		ReacquireTimeout: 300 * time.Millisecond, CheckInterval: 5 * time.Millisecond, CleanupTimeout: time.Second,
	}
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func mustAcquire(t testing.TB, c *client, opts Options) *Lock {
	t.Helper()
	l, err := Acquire(within(t, 5*time.Second), c, image, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Abandon(context.Background()) })
	if !l.Valid() || l.State() != Held {
		t.Fatalf("acquired, but %v", l.State())
	}
	return l
}

func await(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(3 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// diary is a policy that writes down what it hears.
type diary struct {
	mu      sync.Mutex
	entries []string
	release bool
	err     error
	onEntry func(string)
}

func (d *diary) write(s string) {
	d.mu.Lock()
	d.entries = append(d.entries, s)
	f := d.onEntry
	d.mu.Unlock()
	if f != nil {
		f(s)
	}
}

func (d *diary) LockRequested(force bool) (bool, error) {
	d.write(fmt.Sprintf("requested %v", force))
	return d.release, d.err
}
func (d *diary) HeaderUpdated()    { d.write("updated") }
func (d *diary) Suspended(e error) { d.write("suspended") }
func (d *diary) Resumed()          { d.write("resumed") }

func (d *diary) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.entries, ", ")
}

func TestAcquireAndRelease(t *testing.T) {
	w := newWorld(header)
	c := w.connect()
	l := mustAcquire(t, c, quick())

	watch := w.watchesOf(header)[0]
	i := w.info(header)
	if len(i.Lockers) != 1 || i.Lockers[0].Entity != cls.ClientName(c.id) || i.Type != cls.Exclusive || i.Tag != "internal" ||
		i.Lockers[0].Cookie != fmt.Sprintf("auto %d", watch.cookie) || i.Lockers[0].Cookie != l.Cookie() {
		t.Errorf("%+v", i)
	}
	if err := l.Verify(within(t, time.Second)); err != nil {
		t.Error(err)
	}

	var order []string
	quiesced := errors.New("a write is stuck")
	quiesce := func(context.Context) error {
		order = append(order, fmt.Sprintf("quiesce, valid %v, locked %v", l.Valid(), len(w.info(header).Lockers) == 1))
		return quiesced
	}
	if err := l.Release(within(t, time.Second), quiesce); !errors.Is(err, quiesced) {
		t.Errorf("release with writes under way: %v", err)
	}
	if len(w.info(header).Lockers) != 1 || l.State() != ReleasingLock {
		t.Error("unlocked under a write that was under way")
	}
	quiesced = nil
	if err := l.Release(within(t, time.Second), quiesce); err != nil {
		t.Error(err)
	}
	if got, want := strings.Join(order, "; "), "quiesce, valid false, locked true; quiesce, valid false, locked true"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if len(w.info(header).Lockers) != 0 || len(w.watchesOf(header)) != 0 || len(w.blocklisted()) != 0 {
		t.Errorf("left behind: %+v, %d watches, %v", w.info(header), len(w.watchesOf(header)), w.blocklisted())
	}
	if err := l.Release(within(t, time.Second), nil); err != nil || l.State() != Released {
		t.Errorf("twice: %v, %v", err, l.State())
	}
	mustAcquire(t, c, quick())
}

func TestNoSuchImage(t *testing.T) {
	w := newWorld()
	if _, err := Acquire(within(t, time.Second), w.connect(), image, quick()); !errors.Is(err, syscall.ENOENT) {
		t.Error(err)
	}
}

func TestRefused(t *testing.T) {
	w := newWorld(header)
	d := &diary{}
	opts := quick()
	opts.Policy = d
	owner := mustAcquire(t, w.connect(), opts)
	_, err := Acquire(within(t, 3*time.Second), w.connect(), image, quick())
	var refused *RefusedError
	if !errors.As(err, &refused) || !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), "client.1 at 10.0.0.1:0/1001") {
		t.Error(err)
	}
	if !owner.Valid() || len(w.blocklisted()) != 0 || len(w.watchesOf(header)) != 1 {
		t.Errorf("the owner was harmed: %v, %v, %d watches", owner.State(), w.blocklisted(), len(w.watchesOf(header)))
	}
	if d.String() != "requested false" {
		t.Error(d)
	}
}

func TestHandOver(t *testing.T) {
	w := newWorld(header)
	opts := quick()
	opts.Policy = &diary{release: true}
	owner := mustAcquire(t, w.connect(), opts)
	go func() {
		<-owner.ReleaseRequested()
		if err := owner.Release(context.Background(), nil); err != nil {
			t.Error(err)
		}
	}()
	began := time.Now()
	next := mustAcquire(t, w.connect(), quick())
	if took := time.Since(began); took > time.Second {
		t.Errorf("took %v: the release was not noticed", took)
	}
	if owner.Valid() || !next.Valid() || len(w.blocklisted()) != 0 {
		t.Errorf("%v, %v, %v", owner.State(), next.State(), w.blocklisted())
	}
}

func TestDeadOwnerIsFencedFirst(t *testing.T) {
	w := newWorld(header)
	old := w.connect()
	dead := mustAcquire(t, old, quick())
	assert := dead.AssertLocked()
	w.watchesOf(header)[0].vanish(nil) // it is paused: it hears of nothing

	next := w.connect()
	var steps diary
	next.intercept(func(op string, do func() error) error {
		err := do()
		steps.write(fmt.Sprintf("%s %v", op, err))
		return err
	})
	l := mustAcquire(t, next, quick())
	log := steps.String()
	if !strings.Contains(log, "blocklist <nil>, break_lock <nil>, read <nil>, lock <nil>") {
		t.Error(log)
	}
	if got := w.blocklist["10.0.0.1:0/1001"]; got != 77*time.Second {
		t.Errorf("blocklisted for %v: %v", got, w.blocklisted())
	}
	// It wakes up and writes.
	if err := rados.Tell(within(t, time.Second), old, header, assert); !errors.Is(err, rados.Blocklisted) {
		t.Errorf("a paused owner's write: %v", err)
	}
	if !l.Valid() {
		t.Error(l.State())
	}
}

// TestOwnerRenewingItsWatchIsSpared has an owner without a watch for a moment.
func TestOwnerRenewingItsWatchIsSpared(t *testing.T) {
	w := newWorld(header)
	opts := quick()
	opts.RetryDelay = 50 * time.Millisecond
	owner := w.connect()
	failures := 1
	held := mustAcquire(t, owner, opts)
	owner.intercept(func(op string, do func() error) error {
		if op == "watch" && failures > 0 {
			failures--
			return syscall.EAGAIN
		}
		return do()
	})
	w.watchesOf(header)[0].vanish(syscall.ENOTCONN)
	opts.DeadGrace = 500 * time.Millisecond
	_, err := Acquire(within(t, 3*time.Second), w.connect(), image, opts)
	if !errors.Is(err, syscall.EROFS) || len(w.blocklisted()) != 0 {
		t.Errorf("%v; blocklisted %v", err, w.blocklisted())
	}
	await(t, "held again", held.Valid)
}

func TestStrangersAreLeftAlone(t *testing.T) {
	w := newWorld(header)
	person := w.connect()
	lock := cls.Lock(cls.Request{Name: cls.RBDName, Type: cls.Exclusive, Cookie: "maintenance"})
	if err := rados.Tell(within(t, time.Second), person, header, lock); err != nil {
		t.Fatal(err)
	}
	_, err := Acquire(within(t, time.Second), w.connect(), image, quick())
	var foreign *ForeignError
	if !errors.As(err, &foreign) || !errors.Is(err, syscall.EBUSY) {
		t.Error(err)
	}
	if len(w.info(header).Lockers) != 1 || len(w.blocklisted()) != 0 || len(w.watchesOf(header)) != 0 {
		t.Errorf("%+v, %v, %d watches", w.info(header), w.blocklisted(), len(w.watchesOf(header)))
	}
}

func TestOwnStaleLockIsAdopted(t *testing.T) {
	w := newWorld(header)
	c := w.connect()
	first := mustAcquire(t, c, quick())
	if err := first.Abandon(within(t, time.Second)); err != nil {
		t.Fatal(err)
	}
	if len(w.info(header).Lockers) != 1 {
		t.Fatal("abandoned means still locked")
	}
	second := mustAcquire(t, c, quick())
	if len(w.blocklisted()) != 0 || first.Valid() || second.Verify(within(t, time.Second)) != nil {
		t.Errorf("%v, %v, %v", w.blocklisted(), first.State(), second.State())
	}
}

func TestWaitEndsWithTheContext(t *testing.T) {
	w := newWorld(header)
	opts := quick()
	opts.Policy = &diary{release: true} // it says so, but does not
	mustAcquire(t, w.connect(), opts)
	began := time.Now()
	_, err := Acquire(within(t, 50*time.Millisecond), w.connect(), image, quick())
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "waiting for client.1") {
		t.Error(err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("took %v", took)
	}
}

func TestFailedAcquireLeavesNothing(t *testing.T) {
	w := newWorld(header)
	c := w.connect()
	// The lock is taken, but the answer is lost.
	c.intercept(func(op string, do func() error) error {
		err := do()
		if op == "lock" {
			return errHang
		}
		return err
	})
	if _, err := Acquire(within(t, 50*time.Millisecond), c, image, quick()); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if len(w.info(header).Lockers) != 0 || len(w.watchesOf(header)) != 0 {
		t.Errorf("%+v, %d watches", w.info(header), len(w.watchesOf(header)))
	}
}

func TestSuspendedAndWonBack(t *testing.T) {
	for name, loseWatch := range map[string]func(*fakeWatch){
		"the OSD says so": func(w *fakeWatch) { w.vanish(syscall.ENOTCONN) },
		"nobody confirms": func(w *fakeWatch) { w.grow(25 * time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(header)
			c := w.connect()
			var l *Lock
			d := &diary{}
			d.onEntry = func(e string) {
				if e == "suspended" && (l.Valid() || l.State() != Suspended || l.Cause() == nil) {
					t.Errorf("hears %s, but state %v, cause %v", e, l.State(), l.Cause())
				}
				if e == "resumed" && !l.Valid() {
					t.Errorf("hears %s, but state %v", e, l.State())
				}
			}
			opts := quick()
			opts.Policy = d
			l = mustAcquire(t, c, opts)
			before := l.Cookie()
			loseWatch(w.watchesOf(header)[0])
			await(t, "resumed", func() bool { return strings.Contains(d.String(), "updated") })
			if got := d.String(); got != "suspended, resumed, updated" {
				t.Error(got)
			}
			if l.Cookie() == before || l.Verify(within(t, time.Second)) != nil || l.Cause() != nil {
				t.Errorf("cookie %q, then %q; %v", before, l.Cookie(), l.Cause())
			}
			select {
			case <-l.Lost():
				t.Error("lost")
			default:
			}
			// A second time, from the new watch.
			loseWatch(w.watchesOf(header)[0])
			await(t, "resumed twice", func() bool { return strings.Count(d.String(), "updated") == 2 })
			if err := l.Release(within(t, time.Second), nil); err != nil || len(w.info(header).Lockers) != 0 || len(w.watchesOf(header)) != 0 {
				t.Errorf("%v, %+v, %d watches", err, w.info(header), len(w.watchesOf(header)))
			}
		})
	}
}

func TestLost(t *testing.T) {
	for _, c := range []struct {
		name  string
		cause error // of the watch's end
		do    func(w *world, c *client)
		want  error
	}{
		{"blocklisted", rados.Blocklisted, func(*world, *client) {}, rados.Blocklisted},
		{"blocklisted, noticed later", syscall.ENOTCONN, func(w *world, c *client) {
			w.blocklist[c.addr.Blocklist()] = 0
		}, rados.Blocklisted},
		{"taken", syscall.ENOTCONN, func(w *world, c *client) {
			call := cls.Break(cls.RBDName, w.objects[header].lockerOf())
			w.objects[header].locks.Call(call.Method, call.In, cls.Caller{}, time.Now())
			call = cls.Lock(cls.Request{Name: cls.RBDName, Type: cls.Exclusive, Cookie: "auto 1", Tag: cls.RBDTag})
			w.objects[header].locks.Call(call.Method, call.In, cls.Caller{Entity: cls.ClientName(99)}, time.Now())
		}, ErrTaken},
		{"broken", syscall.ENOTCONN, func(w *world, c *client) {
			call := cls.Break(cls.RBDName, w.objects[header].lockerOf())
			w.objects[header].locks.Call(call.Method, call.In, cls.Caller{}, time.Now())
		}, ErrTaken},
		{"image removed", syscall.ENOTCONN, func(w *world, c *client) {
			w.objects = map[string]*object{}
		}, syscall.ENOENT},
		{"unreachable", syscall.ENOTCONN, func(w *world, c *client) {
			c.intercept(func(string, func() error) error { return errHang })
		}, context.DeadlineExceeded},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(header)
			cl := w.connect()
			d := &diary{}
			opts := quick()
			opts.Policy = d
			l := mustAcquire(t, cl, opts)
			watch := w.watchesOf(header)[0]
			watch.vanish(nil)
			w.mu.Lock()
			c.do(w, cl)
			w.mu.Unlock()
			watch.vanish(c.cause)
			select {
			case <-l.Lost():
			case <-time.After(3 * time.Second):
				t.Fatalf("not lost: %v", l.State())
			}
			if l.Valid() || l.State() != Lost || !errors.Is(l.Cause(), c.want) || !strings.Contains(l.Cause().Error(), header) {
				t.Errorf("%v: %v, want %v", l.State(), l.Cause(), c.want)
			}
			if d.String() != "suspended" {
				t.Error(d)
			}
			_ = l.Release(within(t, 100*time.Millisecond), func(context.Context) error {
				t.Error("nothing is released that is lost")
				return nil
			})
			if l.State() != Released {
				t.Error(l.State())
			}
		})
	}
}

func (o *object) lockerOf() cls.LockerID {
	q := cls.GetInfo(cls.RBDName)
	out, _, _ := o.locks.Call(q.Method, q.In, cls.Caller{}, time.Now())
	i, _ := q.Decode(out)
	return i.Lockers[0].LockerID
}

// TestCookieChangedUnheard loses the answer of set_cookie.
func TestCookieChangedUnheard(t *testing.T) {
	w := newWorld(header)
	c := w.connect()
	l := mustAcquire(t, c, quick())
	var lost atomic.Int32
	c.intercept(func(op string, do func() error) error {
		err := do()
		if op == "set_cookie" && lost.Load() < 2 {
			lost.Add(1)
			// It was applied, the answer was lost, and so is the watch by then.
			for _, x := range w.watchesOf(header) {
				x.vanish(syscall.ENOTCONN)
			}
			return syscall.ETIMEDOUT
		}
		return err
	})
	w.watchesOf(header)[0].vanish(syscall.ENOTCONN)
	await(t, "two answers lost and held again", func() bool { return lost.Load() == 2 && l.Valid() })
	if err := l.Verify(within(t, time.Second)); err != nil {
		t.Error(err)
	}
}

func TestReleaseWhileSuspended(t *testing.T) {
	w := newWorld(header)
	c := w.connect()
	opts := quick()
	opts.ReacquireTimeout = time.Hour
	l := mustAcquire(t, c, opts)
	c.intercept(func(op string, do func() error) error {
		if op == "watch" {
			return syscall.EAGAIN
		}
		return do()
	})
	w.watchesOf(header)[0].vanish(syscall.ENOTCONN)
	await(t, "suspended", func() bool { return l.State() == Suspended })
	if err := l.Release(within(t, time.Second), nil); err != nil || len(w.info(header).Lockers) != 0 {
		t.Errorf("%v, %+v", err, w.info(header))
	}
}

func TestAssertLocked(t *testing.T) {
	w := newWorld(header)
	c, other := w.connect(), w.connect()
	l := mustAcquire(t, c, quick())
	write := func(c *client, call class.Call) error {
		return rados.Tell(within(t, time.Second), c, header, call)
	}
	if err := write(c, l.AssertLocked()); err != nil {
		t.Error(err)
	}
	if err := write(other, l.AssertLocked()); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("somebody else: %v", err)
	}
	if err := write(other, cls.Break(cls.RBDName, cls.LockerID{Entity: cls.ClientName(c.id), Cookie: l.Cookie()})); err != nil {
		t.Fatal(err)
	}
	if err := write(c, l.AssertLocked()); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("broken: %v", err)
	}
	if err := l.Verify(within(t, time.Second)); !errors.Is(err, ErrTaken) {
		t.Errorf("broken: %v", err)
	}
}

// notified sends a notification as another client and returns the answers.
func notified(t testing.TB, c *client, p []byte) []rados.NotifyAck {
	t.Helper()
	r, err := c.Notify(within(t, time.Second), header, p, time.Second)
	if err != nil || len(r.Missed) > 0 {
		t.Fatalf("not acknowledged: %v, %v", r.Missed, err)
	}
	return r.Acks
}

func result(t testing.TB, acks []rados.NotifyAck) int32 {
	t.Helper()
	if len(acks) != 1 {
		t.Fatalf("%d answers", len(acks))
	}
	r, err := notify.DecodeResponse(acks[0].Reply)
	if err != nil {
		t.Fatalf("%x: %v", acks[0].Reply, err)
	}
	return r.Result
}

func TestEveryNotificationIsAcknowledged(t *testing.T) {
	w := newWorld(header)
	d := &diary{}
	var troubles []error
	opts := quick()
	opts.Policy = d
	opts.Trouble = func(err error) { troubles = append(troubles, err) }
	l := mustAcquire(t, w.connect(), opts)
	other := w.connect()
	ask := func(p notify.Payload) []rados.NotifyAck { return notified(t, other, notify.Encode(p)) }

	if r := result(t, ask(notify.RequestLock{Client: notify.ClientID{GlobalID: other.id}, Force: true})); r != -int32(syscall.EROFS) {
		t.Errorf("request of the lock: %d", r)
	}
	d.err = syscall.EPERM
	if r := result(t, ask(notify.RequestLock{})); r != -int32(syscall.EPERM) {
		t.Errorf("request of the lock, refused with EPERM: %d", r)
	}
	for _, p := range []notify.Payload{notify.Resize{Size: 1}, notify.SnapCreate{Name: "s"}, notify.Rename{Name: "x"}, notify.MetadataUpdate{Key: "k"}} {
		if r := result(t, ask(p)); r != -int32(syscall.EROFS) {
			t.Errorf("%v: %d", p.Op(), r)
		}
	}
	if r := result(t, ask(notify.Unknown{Operation: 77})); r != -int32(syscall.EOPNOTSUPP) {
		t.Errorf("unknown: %d", r)
	}
	for _, p := range []notify.Payload{notify.HeaderUpdate{}, notify.Quiesce{}} {
		if r := result(t, ask(p)); r != 0 {
			t.Errorf("%v: %d", p.Op(), r)
		}
	}
	if r := result(t, notified(t, other, nil)); r != 0 {
		t.Errorf("old header update: %d", r)
	}
	for _, p := range []notify.Payload{notify.AcquiredLock{}, notify.ReleasedLock{}, notify.AsyncProgress{}, notify.AsyncComplete{}, notify.Unquiesce{}} {
		if acks := ask(p); len(acks) != 1 || len(acks[0].Reply) != 0 {
			t.Errorf("%v: %v", p.Op(), acks)
		}
	}
	if r := result(t, notified(t, other, []byte{1, 2, 3})); r != -int32(syscall.EINVAL) {
		t.Errorf("damaged: %d", r)
	}
	if len(troubles) != 1 || !strings.Contains(troubles[0].Error(), header) || !strings.Contains(troubles[0].Error(), "offset") {
		t.Errorf("%v", troubles)
	}
	if got := d.String(); got != "requested true, requested false, updated, updated" {
		t.Error(got)
	}
	if !l.Valid() {
		t.Error(l.State())
	}
}

func TestPerformedOperations(t *testing.T) {
	w := newWorld(header)
	opts := quick()
	gate := make(chan struct{})
	var mu sync.Mutex
	count := 0
	opts.Perform = func(p notify.Payload) func(context.Context) error {
		if p.Op() != notify.OpSnapRemove {
			return nil
		}
		return func(ctx context.Context) error {
			select {
			case <-gate:
			case <-ctx.Done():
				return ctx.Err()
			}
			mu.Lock()
			defer mu.Unlock()
			count++
			return syscall.EBUSY
		}
	}
	l := mustAcquire(t, w.connect(), opts)
	other := w.connect()
	// The requester watches, to hear of the outcome.
	heard := make(chan notify.Payload, 20)
	watch, err := other.Watch(within(t, time.Second), header, 0, listener(heard))
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close(context.Background())
	answerOf := func(p notify.Payload) int32 {
		var answers []rados.NotifyAck
		for _, a := range notified(t, other, notify.Encode(p)) {
			if len(a.Reply) > 0 {
				answers = append(answers, a)
			}
		}
		return result(t, answers)
	}

	if r := answerOf(notify.SnapCreate{Name: "s"}); r != -int32(syscall.EROFS) {
		t.Errorf("what Perform does not want: %d", r)
	}
	id := notify.AsyncRequestID{Client: notify.ClientID{GlobalID: other.id, Handle: watch.Cookie()}, Request: 5}
	request := notify.SnapRemove{Name: "s", Request: id}
	if r := answerOf(request); r != 0 {
		t.Errorf("accepted: %d", r)
	}
	if r := answerOf(request); r != 0 {
		t.Errorf("sent again while it runs: %d", r)
	}
	gate <- struct{}{}
	await(t, "the outcome is announced", func() bool {
		select {
		case p := <-heard:
			return p == notify.AsyncComplete{Request: id, Result: -int32(syscall.EBUSY)}
		default:
			return false
		}
	})
	if r := answerOf(request); r != -int32(syscall.EBUSY) {
		t.Errorf("sent again afterwards: %d", r)
	}
	// Without an id, the answer waits for the outcome.
	go func() { gate <- struct{}{} }()
	if r := answerOf(notify.SnapRemove{Name: "s"}); r != -int32(syscall.EBUSY) {
		t.Errorf("without an id: %d", r)
	}
	// One that is under way when the lock is released is told to look for the next owner.
	late := make(chan int32)
	go func() { late <- answerOf(notify.SnapRemove{Name: "s"}) }()
	time.Sleep(20 * time.Millisecond)
	if err := l.Release(within(t, time.Second), nil); err != nil {
		t.Error(err)
	}
	if r := <-late; r != -int32(syscall.ERESTART) {
		t.Errorf("cut off: %d", r)
	}
	mu.Lock()
	defer mu.Unlock()
	if count != 2 {
		t.Errorf("performed %d times", count)
	}
}

// listener acknowledges everything and passes it on.
type listener chan notify.Payload

func (l listener) Notified(n rados.Notification) {
	n.Ack(nil)
	if m, err := notify.Decode(n.Payload); err == nil {
		l <- m.Payload
	}
}

func (listener) WatchLost(error) {}

func TestAnnouncements(t *testing.T) {
	w := newWorld(header)
	heard := make(chan notify.Payload, 20)
	other := w.connect()
	watch, err := other.Watch(within(t, time.Second), header, 0, listener(heard))
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close(context.Background())
	c := w.connect()
	l := mustAcquire(t, c, quick())
	id := func() notify.ClientID {
		h, _ := cls.ParseRBDCookie(l.Cookie())
		return notify.ClientID{GlobalID: c.id, Handle: h}
	}
	if got, want := <-heard, (notify.AcquiredLock{Client: id()}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	w.watchesOf(header)[1].vanish(syscall.ENOTCONN)
	if got := (<-heard).(notify.AcquiredLock); got.Client.GlobalID != c.id {
		t.Errorf("after it was won back: %+v", got)
	}
	await(t, "held", l.Valid)
	want := notify.ReleasedLock{Client: id()}
	if err := l.Release(within(t, time.Second), nil); err != nil {
		t.Fatal(err)
	}
	if got := <-heard; got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestObjectMapLock(t *testing.T) {
	const object = "rbd_object_map.1234"
	w := newWorld(object)
	dead, c := w.connect(), w.connect()
	ctx := within(t, time.Second)
	if err := LockObjectMap(ctx, c, "5678"); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("no object map: %v", err)
	}
	if err := LockObjectMap(ctx, dead, image); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := LockObjectMap(ctx, c, image); err != nil {
			t.Fatal(err)
		}
		i := w.info(object)
		if len(i.Lockers) != 1 || i.Lockers[0].LockerID != (cls.LockerID{Entity: cls.ClientName(c.id)}) || i.Tag != "" {
			t.Errorf("%+v", i)
		}
	}
	for range 2 {
		if err := UnlockObjectMap(ctx, c, image); err != nil || len(w.info(object).Lockers) != 0 {
			t.Errorf("%v, %+v", err, w.info(object))
		}
	}
}

// TestManyContenders has clients fight over the lock; never do two hold it.
func TestManyContenders(t *testing.T) {
	w := newWorld(header)
	var wg sync.WaitGroup
	var mu sync.Mutex
	holders, turns := 0, 0
	for range 4 {
		c := w.connect()
		wg.Go(func() {
			for range 5 {
				opts := quick()
				opts.Policy = &diary{release: true}
				l, err := Acquire(within(t, 20*time.Second), c, image, opts)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				holders++
				turns++
				if holders > 1 {
					t.Errorf("%d hold the lock", holders)
				}
				mu.Unlock()
				time.Sleep(2 * time.Millisecond)
				err = l.Release(context.Background(), func(context.Context) error {
					mu.Lock()
					defer mu.Unlock()
					holders--
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if turns != 20 || len(w.blocklisted()) != 0 {
		t.Errorf("%d turns, blocklisted %v", turns, w.blocklisted())
	}
}
