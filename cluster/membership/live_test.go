//go:build live

package membership

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/librados"
)

// liveMember is a member with a client of its own.
type liveMember struct {
	*Group
	io    rados.IOContext
	stop  context.CancelFunc
	ended chan struct{}
	lost  atomic.Pointer[error]
	heard atomic.Int32
}

// TestLiveMembers has members on the cluster whose ceph.conf WARDEN_TEST_CONF is: they see
// each other come, change and leave; one whose heartbeats stop is seen dead and is fenced; one
// that lives and is fenced all the same can write no more, and is lost.
func TestLiveMembers(t *testing.T) {
	conf := os.Getenv("WARDEN_TEST_CONF")
	if conf == "" {
		t.Fatal("WARDEN_TEST_CONF is not set")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	// A pool of its own for each run: the fenced of an earlier one would still be remembered.
	pool := fmt.Sprintf("membership-test-%d", time.Now().UnixNano())
	made := false
	var gone [3]atomic.Bool
	start := func(n int) *liveMember {
		c, err := librados.Connect(ctx, librados.Config{ConfFile: conf})
		must(err)
		t.Cleanup(c.Close)
		if !made {
			_, _, err := c.MonCommand(ctx, map[string]any{"prefix": "osd pool create", "pool": pool, "pg_num": 8}, nil)
			must(err)
			made = true
		}
		must(c.WaitForLatestMap(ctx))
		io, err := c.Open(ctx, pool, "")
		must(err)
		t.Cleanup(io.Close)
		m := &liveMember{io: io, ended: make(chan struct{})}
		m.Group = New(io, Options{
			Self: Member{Identity: fmt.Sprint(n), Index: n}, BlocklistExpire: time.Minute,
			KnownDead: func(identity string) bool { // the first member knows of the others
				return n == 0 && identity < "3" && gone[identity[0]-'0'].Load()
			},
			Notified: func([]byte) { m.heard.Add(1) },
			Lost:     func(err error) { m.lost.Store(&err) },
			Log:      zerolog.Nop(),
		})
		runCtx, stop := context.WithCancel(ctx)
		m.stop = stop
		go func() {
			defer close(m.ended)
			_ = m.Run(runCtx)
		}()
		t.Cleanup(func() { stop(); <-m.ended })
		return m
	}
	until := func(what string, cond func() bool) {
		t.Helper()
		from := time.Now()
		for !cond() {
			if time.Since(from) > 30*time.Second {
				t.Fatalf("not within 30 s: %s", what)
			}
			time.Sleep(5 * time.Millisecond)
		}
		t.Logf("%s: after %v", what, time.Since(from).Round(time.Millisecond))
	}
	a, b, c := start(0), start(1), start(2)
	until("all see all", func() bool {
		return len(a.View().Members) == 3 && len(b.View().Members) == 3 && len(c.View().Members) == 3
	})
	b.SetDraining(true)
	until("a sees that b is draining", func() bool { m, _ := a.View().Find(b.ID()); return m.Draining })
	must(a.Notify(ctx, []byte("map")))
	if a.heard.Load() != 1 || b.heard.Load() != 1 || c.heard.Load() != 1 {
		t.Errorf("heard %d, %d, %d times", a.heard.Load(), b.heard.Load(), c.heard.Load())
	}

	c.stop()
	<-c.ended
	until("c has left", func() bool { return len(a.View().Members) == 2 && len(b.View().Members) == 2 })
	if dead := a.View().Dead; len(dead) > 0 {
		t.Errorf("dead after a clean leave: %v", dead)
	}

	// A heartbeat that nobody renews, as of a process that was killed.
	var op rados.WriteOp
	op.SetOmap(map[string][]byte{
		beatPrefix + "1":   bytesOf(beat{1, 1}),
		memberPrefix + "1": bytesOf(record{1, Member{ID: "1", Identity: "9"}}),
	})
	must(a.io.Write(ctx, Object, &op))
	until("the silent one is seen dead", func() bool { return a.View().KnownDead("9") })
	must(a.Fence(ctx, "1"))
	until("what it left is gone", func() bool { return !a.View().KnownDead("9") })

	gone[1].Store(true)
	until("b is taken for dead", func() bool { return a.View().KnownDead("1") })
	// b lives, and its heartbeats get through until it is blocklisted: so ask again if one
	// came in between.
	until("b is fenced", func() bool { _ = a.Fence(ctx, b.ID()); return a.Fenced("1") })
	if err := b.io.Write(ctx, "data", new(rados.WriteOp).WriteFull([]byte("late"))); err == nil || rados.Classify(err) != rados.Fenced {
		t.Errorf("a late write of b: %v", err)
	}
	until("b is lost", func() bool { return b.lost.Load() != nil && !b.Valid() })
	if err := *b.lost.Load(); rados.Classify(err) != rados.Fenced {
		t.Errorf("b is lost because: %v", err)
	}
	until("a is alone", func() bool { return len(a.View().Members) == 1 && a.Valid() })
}
