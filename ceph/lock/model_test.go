package lock

import (
	"errors"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/class"
)

// TestModel walks the class's rules; the live test of image/lock runs the same
// steps on an OSD.
func TestModel(t *testing.T) {
	a := Caller{ClientName(1), addr("v2:10.0.0.1:0/1")}
	b := Caller{ClientName(2), addr("v2:10.0.0.2:0/2")}
	exclusive := func(cookie, tag string, flags Flags) class.Call {
		return Lock(Request{Name: "l", Type: Exclusive, Cookie: cookie, Tag: tag, Flags: flags})
	}
	shared := func(cookie, tag string) class.Call {
		return Lock(Request{Name: "l", Type: Shared, Cookie: cookie, Tag: tag})
	}
	for _, script := range []struct {
		name  string
		steps []step
	}{
		{"exclusive", []step{
			{0, a, exclusive("c", "t", 0), 0},
			{0, a, exclusive("c", "t", 0), syscall.EEXIST},
			{0, a, exclusive("c", "t", MayRenew), 0},
			{0, a, exclusive("d", "t", 0), syscall.EBUSY},
			{0, a, exclusive("c", "u", MayRenew), syscall.EBUSY},
			{0, b, exclusive("c", "t", 0), syscall.EBUSY},
			{0, b, exclusive("c", "t", MustRenew), syscall.ENOENT},
			{0, b, shared("c", "t"), syscall.EBUSY},
			{0, a, Assert("l", Exclusive, "c", "t"), 0},
			{0, a, Assert("l", Exclusive, "d", "t"), syscall.EBUSY},
			{0, a, Assert("l", Exclusive, "c", "u"), syscall.EBUSY},
			{0, a, Assert("l", Shared, "c", "t"), syscall.EBUSY},
			{0, b, Assert("l", Exclusive, "c", "t"), syscall.EBUSY},
			{0, b, Unlock("l", "c"), syscall.ENOENT},
			{0, a, Unlock("l", "c"), 0},
			{0, a, Unlock("l", "c"), syscall.ENOENT},
			{0, b, exclusive("c", "another", 0), 0},
		}},
		{"cookie", []step{
			{0, a, exclusive("c", "t", 0), 0},
			{0, b, SetCookie("l", Exclusive, "c", "t", "d"), syscall.EBUSY},
			{0, a, SetCookie("l", Exclusive, "c", "t", "c"), syscall.EBUSY},
			{0, a, SetCookie("l", Exclusive, "c", "t", "d"), 0},
			{0, a, Assert("l", Exclusive, "c", "t"), syscall.EBUSY},
			{0, a, Assert("l", Exclusive, "d", "t"), 0},
		}},
		{"break", []step{
			{0, a, exclusive("c", "t", 0), 0},
			{0, b, Break("l", LockerID{a.Entity, "x"}), syscall.ENOENT},
			{0, b, Break("l", LockerID{b.Entity, "c"}), syscall.ENOENT},
			{0, b, Break("l", LockerID{a.Entity, "c"}), 0},
			{0, a, Assert("l", Exclusive, "c", "t"), syscall.EBUSY},
			{0, b, exclusive("c", "t", 0), 0},
		}},
		{"shared", []step{
			{0, a, shared("c", "t"), 0},
			{0, a, shared("d", "t"), 0},
			{0, b, shared("c", "t"), 0},
			{0, b, shared("e", "u"), syscall.EBUSY},
			{0, b, exclusive("e", "t", 0), syscall.EBUSY},
		}},
		{"expiry", []step{
			{0, a, Lock(Request{Name: "l", Type: Exclusive, Duration: 10 * time.Second}), 0},
			{5 * time.Second, b, exclusive("", "", 0), syscall.EBUSY},
			{6 * time.Second, a, Lock(Request{Name: "l", Type: Exclusive, Duration: 10 * time.Second, Flags: MustRenew}), 0},
			{15 * time.Second, b, exclusive("", "", 0), syscall.EBUSY},
			{17 * time.Second, b, exclusive("", "", 0), 0},
		}},
		{"arguments", []step{
			{0, a, Lock(Request{Type: Exclusive}), syscall.EINVAL},
			{0, a, Lock(Request{Name: "l"}), syscall.EINVAL},
			{0, a, Lock(Request{Name: "l", Type: Exclusive, Flags: MayRenew | MustRenew}), syscall.EINVAL},
			{0, a, class.Call{Method: "lock", In: []byte{1}}, syscall.EINVAL},
			{0, a, Assert("", Exclusive, "", ""), syscall.EINVAL},
			{0, a, class.Call{Method: "what"}, syscall.EOPNOTSUPP},
		}},
	} {
		t.Run(script.name, func(t *testing.T) {
			var o Object
			for i, s := range script.steps {
				_, _, err := o.Call(s.call.Method, s.call.In, s.who, time.Unix(1000, 0).Add(s.at))
				if (s.want == 0) != (err == nil) || err != nil && !errors.Is(err, s.want) {
					t.Fatalf("step %d, %s by %s: %v, want %v", i, s.call.Method, s.who.Entity, err, s.want)
				}
			}
		})
	}
}

type step struct {
	at   time.Duration
	who  Caller
	call class.Call
	want syscall.Errno // 0: success
}

func TestModelAnswers(t *testing.T) {
	var o Object
	who := Caller{ClientName(1), addr("v2:10.0.0.1:0/1")}
	now := time.Unix(1000, 0)
	for _, name := range []string{"z", "a"} {
		call := Lock(Request{Name: name, Type: ExclusiveEphemeral, Cookie: "c", Description: "d"})
		if _, _, err := o.Call(call.Method, call.In, who, now); err != nil {
			t.Fatal(err)
		}
	}
	q := GetInfo("a")
	out, _, err := o.Call(q.Method, q.In, who, now)
	if err != nil {
		t.Fatal(err)
	}
	i, err := q.Decode(out)
	if err != nil || len(i.Lockers) != 1 || i.Lockers[0].Address.String() != "v1:10.0.0.1:0/1" || i.Lockers[0].Description != "d" {
		t.Errorf("%+v, %v", i, err)
	}
	l := List()
	out, _, _ = o.Call(l.Method, l.In, who, now)
	if names, err := l.Decode(out); err != nil || !slices.Equal(names, []string{"a", "z"}) {
		t.Errorf("%v, %v", names, err)
	}
	u := Unlock("a", "c")
	if _, remove, err := o.Call(u.Method, u.In, who, now); !remove || err != nil {
		t.Errorf("an ephemeral lock takes its object along: %v, %v", remove, err)
	}
	q = GetInfo("never was")
	out, _, _ = o.Call(q.Method, q.In, who, now)
	if i, err := q.Decode(out); err != nil || len(i.Lockers) != 0 {
		t.Errorf("%+v, %v", i, err)
	}
}
