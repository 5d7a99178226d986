//go:build live

package librados

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/rados"
)

// recorder is a handler that keeps what it hears and answers with reply.
type recorder struct {
	mu    sync.Mutex
	heard []string
	from  []uint64
	lost  []error
	reply func(payload string) ([]byte, bool)
	gone  chan struct{}
}

func (r *recorder) Notified(n rados.Notification) {
	r.mu.Lock()
	r.heard = append(r.heard, string(n.Payload))
	r.from = append(r.from, n.NotifierID)
	r.mu.Unlock()
	if r.reply == nil {
		n.Ack(nil)
		return
	}
	if b, ok := r.reply(string(n.Payload)); ok {
		n.Ack(b)
		n.Ack([]byte("the second answer does not count"))
	}
}

func (r *recorder) WatchLost(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost = append(r.lost, err)
	if r.gone != nil {
		close(r.gone)
	}
}

func watchTest(t *testing.T, io rados.IOContext, object string, h rados.WatchHandler) rados.Watch {
	t.Helper()
	w, err := io.Watch(ctxFor(t, 10*time.Second), object, 0, h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close(ctxFor(t, 10*time.Second)) })
	return w
}

func TestLiveWatchNotify(t *testing.T) {
	c, other := connectTest(t), connectTest(t)
	io := openTest(t, c)
	mustWrite(t, io, "o", new(rados.WriteOp).Create(true))
	far, err := other.Open(t.Context(), testPool, io.Namespace())
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()

	silent := &recorder{reply: func(string) ([]byte, bool) { return nil, false }}
	answers := &recorder{reply: func(p string) ([]byte, bool) { return []byte("re: " + p), true }}
	wa := watchTest(t, io, "o", answers)
	ws := watchTest(t, io, "o", silent)

	var list rados.ReadOp
	watchers := list.ListWatchers()
	mustRead(t, far, "o", &list)
	var cookies []uint64
	for _, w := range watchers.Watchers {
		cookies = append(cookies, w.Cookie)
		if w.ClientID != c.InstanceID() || w.Address == "" {
			t.Errorf("watcher %+v, want client %d", w, c.InstanceID())
		}
	}
	if len(cookies) != 2 || !slices.Contains(cookies, wa.Cookie()) || !slices.Contains(cookies, ws.Cookie()) {
		t.Errorf("the OSD lists cookies %v, want %d and %d", cookies, wa.Cookie(), ws.Cookie())
	}

	reply, err := far.Notify(ctxFor(t, 20*time.Second), "o", []byte("hello"), 500*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if len(reply.Acks) != 1 || string(reply.Acks[0].Reply) != "re: hello" || reply.Acks[0].Watcher.Cookie != wa.Cookie() || reply.Acks[0].Watcher.ClientID != c.InstanceID() {
		t.Errorf("acks %+v", reply.Acks)
	}
	if len(reply.Missed) != 1 || reply.Missed[0].Cookie != ws.Cookie() {
		t.Errorf("missed %+v", reply.Missed)
	}
	if answers.from[0] != other.InstanceID() {
		t.Errorf("notified by %d, want %d", answers.from[0], other.InstanceID())
	}
	if age, err := wa.Check(); err != nil || age > 10*time.Second {
		t.Errorf("check: %v, %v", age, err)
	}

	if err := ws.Close(ctxFor(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	reply, err = far.Notify(ctxFor(t, 20*time.Second), "o", nil, 5*time.Second)
	if err != nil || len(reply.Acks) != 1 || len(reply.Missed) != 0 {
		t.Errorf("after one watch was closed: %+v, %v", reply, err)
	}
	if _, err := ws.Check(); err == nil {
		t.Error("a closed watch passes its check")
	}
	if len(silent.lost)+len(answers.lost) != 0 {
		t.Error("a watch that was closed counts as lost")
	}
}

func TestLiveWatchNoObject(t *testing.T) {
	io := openTest(t, connectTest(t))
	if _, err := io.Watch(ctxFor(t, 10*time.Second), "none", 0, &recorder{}); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("watch of no object: %v", err)
	}
	if _, err := io.Notify(ctxFor(t, 10*time.Second), "none", nil, time.Second); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("notification of no object: %v", err)
	}
	mustWrite(t, io, "o", new(rados.WriteOp).Create(true))
	if r, err := io.Notify(ctxFor(t, 10*time.Second), "o", nil, time.Second); err != nil || len(r.Acks)+len(r.Missed) != 0 {
		t.Errorf("notification without watchers: %+v, %v", r, err)
	}
}

// A slow handler delays only itself: notifications of other objects go on.
func TestLiveSlowHandler(t *testing.T) {
	io := openTest(t, connectTest(t))
	for _, o := range []string{"slow", "fast"} {
		mustWrite(t, io, o, new(rados.WriteOp).Create(true))
	}
	release := make(chan struct{})
	slow := &recorder{reply: func(string) ([]byte, bool) { <-release; return nil, true }}
	watchTest(t, io, "slow", slow)
	watchTest(t, io, "fast", &recorder{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if r, err := io.Notify(t.Context(), "slow", nil, 20*time.Second); err != nil || len(r.Acks) != 1 {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		if r, err := io.Notify(ctx, "fast", nil, 10*time.Second); err != nil || len(r.Acks) != 1 {
			t.Errorf("%+v, %v", r, err)
		}
		cancel()
	}
	close(release)
	wg.Wait()
	if len(slow.heard) != 8 {
		t.Errorf("the slow handler heard %d notifications, want 8", len(slow.heard))
	}
}

func TestLiveWatchLost(t *testing.T) {
	io := openTest(t, connectTest(t))
	mustWrite(t, io, "o", new(rados.WriteOp).Create(true))
	h := &recorder{gone: make(chan struct{})}
	w := watchTest(t, io, "o", h)
	mustWrite(t, io, "o", new(rados.WriteOp).Remove())
	select {
	case <-h.gone:
	case <-time.After(20 * time.Second):
		t.Fatal("the watch's end was not reported")
	}
	if len(h.lost) != 1 || !errors.Is(h.lost[0], syscall.ENOTCONN) {
		t.Errorf("lost with %v, want ENOTCONN once", h.lost)
	}
	if _, err := w.Check(); !errors.Is(err, syscall.ENOTCONN) {
		t.Errorf("check: %v", err)
	}
	if err := w.Close(ctxFor(t, 10*time.Second)); err != nil {
		t.Errorf("close of a lost watch: %v", err)
	}
}

func TestLiveBlocklist(t *testing.T) {
	judge, victim := connectTest(t), connectTest(t)
	io := openTest(t, judge)
	mustWrite(t, io, "o", new(rados.WriteOp).Create(true))
	theirs, err := victim.Open(t.Context(), testPool, io.Namespace())
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	h := &recorder{gone: make(chan struct{})}
	watchTest(t, theirs, "o", h)
	var list rados.ReadOp
	watchers := list.ListWatchers()
	mustRead(t, io, "o", &list)

	for name, address := range map[string]string{"own address": victim.Addresses(), "listed watcher": watchers.Watchers[0].Address} {
		if err := judge.Blocklist(ctxFor(t, 20*time.Second), address, time.Minute); err != nil {
			t.Fatalf("%s %q: %v", name, address, err)
		}
		out, _, err := judge.MonCommand(t.Context(), map[string]any{"prefix": "osd blocklist ls", "format": "json"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s %q: %s", name, address, out)
	}
	err = theirs.Write(ctxFor(t, 20*time.Second), "o", new(rados.WriteOp).WriteFull([]byte("harm")))
	if !errors.Is(err, rados.Blocklisted) || rados.Classify(err) != rados.Fenced {
		t.Errorf("a blocklisted client's write: %v", err)
	}
	select {
	case <-h.gone:
		if !errors.Is(h.lost[0], rados.Blocklisted) && !errors.Is(h.lost[0], syscall.ENOTCONN) {
			t.Errorf("watch lost with %v", h.lost[0])
		}
		t.Logf("watch lost: %v", h.lost[0])
	case <-time.After(40 * time.Second):
		t.Error("the blocklisted client's watch was not reported lost")
	}
	if got := readAt(t, io, "o", 0); got != "" {
		t.Errorf("the object holds %q", got)
	}
}

// Watches that come and go while notifications fly leave nothing behind.
func TestLiveWatchChurn(t *testing.T) {
	io := openTest(t, connectTest(t))
	mustWrite(t, io, "o", new(rados.WriteOp).Create(true))
	before := Underway()
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := io.Notify(context.Background(), "o", []byte("x"), time.Second); err != nil {
				t.Error(err)
				return
			}
		}
	})
	var watchers sync.WaitGroup
	for g := range 4 {
		watchers.Go(func() {
			for i := range 15 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+(i*g)%5)*time.Millisecond)
				w, err := io.Watch(ctx, "o", 0, &recorder{})
				cancel()
				if err != nil {
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Error(err)
					}
					continue
				}
				if err := w.Close(context.Background()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	watchers.Wait()
	close(stop)
	wg.Wait()
	waitFor(t, "the watches to be gone", func() error {
		var list rados.ReadOp
		left := list.ListWatchers()
		if err := io.Read(t.Context(), "o", &list); err != nil {
			return err
		}
		if n := len(left.Watchers); n != 0 {
			return fmt.Errorf("%d watchers", n)
		}
		if n := Underway(); n != before {
			return fmt.Errorf("%d operations under way, want %d", n, before)
		}
		return nil
	})
}

func waitFor(t testing.TB, what string, check func() error) {
	t.Helper()
	var err error
	for range 100 {
		if err = check(); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("waiting for %s: %v", what, err)
}
