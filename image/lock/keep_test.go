package lock

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	cls "github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/rados"
)

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
