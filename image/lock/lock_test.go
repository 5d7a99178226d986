package lock

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rbdwarden/rbdwarden/ceph/class"
	cls "github.com/rbdwarden/rbdwarden/ceph/lock"
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
