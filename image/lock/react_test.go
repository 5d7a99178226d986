package lock

import (
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rbdwarden/rbdwarden/ceph/notify"
)

func TestReact(t *testing.T) {
	self, other := notify.ClientID{GlobalID: 1, Handle: 10}, notify.ClientID{GlobalID: 2, Handle: 20}
	answer := func(e syscall.Errno) reaction {
		return reaction{answer: &notify.Response{Result: -int32(e)}}
	}
	all := []State{Acquiring, Held, Suspended, ReleasingLock, Released, Lost}
	requests := []notify.Payload{
		notify.Flatten{}, notify.Resize{}, notify.SnapCreate{}, notify.SnapRemove{}, notify.SnapRename{},
		notify.SnapProtect{}, notify.SnapUnprotect{}, notify.RebuildObjectMap{}, notify.Rename{},
		notify.UpdateFeatures{}, notify.Migrate{}, notify.Sparsify{}, notify.MetadataUpdate{},
	}
	for _, c := range []struct {
		name     string
		payloads []notify.Payload
		want     map[State]reaction // what is not there is an empty acknowledgement
	}{
		{"request of the lock", []notify.Payload{notify.RequestLock{Client: other}, notify.RequestLock{Client: other, Force: true}}, map[State]reaction{
			Held: {askPolicy: true}, Suspended: {askPolicy: true}, ReleasingLock: answer(0),
		}},
		{"our own request", []notify.Payload{notify.RequestLock{Client: self}}, nil},
		{"operation", requests, map[State]reaction{Held: {offer: true}}},
		{"unknown", []notify.Payload{notify.Unknown{Operation: 99}}, map[State]reaction{Held: answer(syscall.EOPNOTSUPP)}},
		{"progress", []notify.Payload{notify.AsyncProgress{}, notify.AsyncComplete{}}, nil},
	} {
		for _, p := range c.payloads {
			for _, s := range all {
				if diff := cmp.Diff(c.want[s], react(s, self, p), cmp.AllowUnexported(reaction{})); diff != "" {
					t.Errorf("%s: %v when %v: %s", c.name, p.Op(), s, diff)
				}
			}
		}
	}
	for _, s := range all {
		for p, want := range map[notify.Payload]reaction{
			notify.AcquiredLock{Client: other}: {wake: true},
			notify.ReleasedLock{Client: other}: {wake: true},
			notify.HeaderUpdate{}:              {answer: &notify.Response{}, refresh: true},
			notify.Quiesce{}:                   {answer: &notify.Response{}},
			notify.Unquiesce{}:                 {},
		} {
			if diff := cmp.Diff(want, react(s, self, p), cmp.AllowUnexported(reaction{})); diff != "" {
				t.Errorf("%v when %v: %s", p.Op(), s, diff)
			}
		}
	}
}

func TestRememberedRequests(t *testing.T) {
	var r requests
	id := func(n int) notify.AsyncRequestID { return notify.AsyncRequestID{Request: uint64(n)} }
	if _, known := r.known(id(1)); known {
		t.Error("nothing is known at first")
	}
	r.start(id(1))
	if result, known := r.known(id(1)); !known || result != 0 {
		t.Errorf("running: %d, %v", result, known)
	}
	r.finish(id(1), -5)
	if result, known := r.known(id(1)); !known || result != -5 {
		t.Errorf("finished: %d, %v", result, known)
	}
	for n := 2; n <= rememberedRequests+1; n++ {
		r.finish(id(n), int32(n))
	}
	if _, known := r.known(id(1)); known {
		t.Error("the oldest is forgotten")
	}
	if result, known := r.known(id(2)); !known || result != 2 || len(r.finished) != rememberedRequests {
		t.Errorf("the second oldest: %d, %v; %d in all", result, known, len(r.finished))
	}
}
