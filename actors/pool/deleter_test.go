package pool

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/report"
)

func TestDueCopies(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	at := func(s int) time.Time { return now.Add(time.Duration(s) * time.Second) }
	copies := map[string]rbd.TrashSpec{
		"late": {DefermentEnds: at(60)}, "soon": {DefermentEnds: at(20)}, "now": {DefermentEnds: at(0)},
		"old": {DefermentEnds: at(-9)}, "failed": {DefermentEnds: at(-9)},
	}
	due, wake := dueCopies(copies, map[string]time.Time{"failed": at(5), "gone": at(1)}, now)
	if want := []string{"old", "now"}; !reflect.DeepEqual(due, want) || !wake.Equal(at(5)) {
		t.Errorf("due %q, next %v", due, wake.Sub(now))
	}
	if due, wake := dueCopies(nil, nil, now); due != nil || !wake.IsZero() {
		t.Errorf("nothing in the trash: %q, %v", due, wake)
	}
}

// Each image goes when its time has come, what fails is tried again, a panic harms
// nobody else, and a fenced client says so.
func TestDeleter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		at := func(s int) time.Time { return began.Add(time.Duration(s) * time.Second) }
		var mu sync.Mutex
		trash := map[string]rbd.TrashSpec{
			"now": {}, "in-a-minute": {DefermentEnds: at(60)}, "busy": {}, "parent": {}, "panics": {}, "fenced": {DefermentEnds: at(100)},
		}
		gone, tries, fenced := map[string]time.Duration{}, map[string]int{}, 0
		slot := make(chan struct{}, 1)
		d := NewDeleter(Deleter{
			List: func(context.Context) (map[string]rbd.TrashSpec, error) {
				mu.Lock()
				defer mu.Unlock()
				return maps.Clone(trash), nil
			},
			Remove: func(_ context.Context, id string) error {
				mu.Lock()
				defer mu.Unlock()
				tries[id]++
				switch {
				case id == "busy" && tries[id] < 4:
					return syscall.EBUSY
				case id == "parent" && tries[id] < 4:
					return &image.ChildrenError{Snapshot: "s", Children: []string{"child"}}
				case id == "panics" && tries[id] < 2:
					panic("oops")
				case id == "fenced":
					return rados.Blocklisted
				}
				delete(trash, id)
				gone[id] = time.Since(began)
				return nil
			},
			Slot: func(context.Context) (func(), error) { slot <- struct{}{}; return func() { <-slot }, nil }, Refresh: 30 * time.Second, Retry: 40 * time.Second,
			Fenced: func(err error) {
				if !errors.Is(err, rados.Blocklisted) {
					t.Errorf("fenced by %v", err)
				}
				mu.Lock()
				fenced++
				mu.Unlock()
			},
			Log: zerolog.Nop(),
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { d.Run(ctx); close(done) }()
		time.Sleep(9 * time.Second)
		// What waits is told with what became of it so far.
		if got, want := d.Queue(), []report.Deletion{
			{ImageID: "busy", Due: at(10), Retries: 2, Error: "device or resource busy", Errno: 16},
			{ImageID: "parent", Due: at(10), Retries: 2, Error: (&image.ChildrenError{Snapshot: "s", Children: []string{"child"}}).Error(), Errno: 16},
			{ImageID: "panics", Due: at(40), Retries: 1, Errno: 5},
			{ImageID: "in-a-minute", Due: at(60)}, {ImageID: "fenced", Due: at(100)},
		}; !cmp.Equal(got, want, cmpopts.IgnoreFields(report.Deletion{}, "Error")) || got[1].Error != want[1].Error || got[2].Error == "" {
			t.Error(cmp.Diff(want, got))
		}
		time.Sleep(time.Second)
		mu.Lock()
		trash["kicked"] = rbd.TrashSpec{DefermentEnds: at(10)}
		mu.Unlock()
		d.Kick()
		time.Sleep(100 * time.Second)
		if q := d.Queue(); len(q) != 1 || q[0].ImageID != "fenced" || q[0].Retries != 1 {
			t.Errorf("in the end %+v are to be deleted", q)
		}
		cancel()
		<-done
		if q := d.Queue(); len(q) > 0 {
			t.Errorf("one that has ended tells of %+v", q)
		}
		want := map[string]time.Duration{
			"now": 0, "kicked": 10 * time.Second, "busy": 15 * time.Second, "parent": 15 * time.Second, "panics": 40 * time.Second, "in-a-minute": time.Minute,
		}
		if !maps.Equal(gone, want) {
			t.Errorf("gone at %v, want %v", gone, want)
		}
		if fenced != 1 {
			t.Errorf("told of the fence %d times", fenced)
		}
	})
}
