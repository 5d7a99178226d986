package lock

import (
	"context"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	cls "github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/ceph/notify"
	"github.com/rbdwarden/rbdwarden/rados"
)

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
