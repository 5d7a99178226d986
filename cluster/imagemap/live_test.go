//go:build live

package imagemap

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/librados"
)

// TestLiveMap writes and reads a map on the cluster whose ceph.conf WARDEN_TEST_CONF is,
// in a pool and in a namespace: the assertion of the lock, the comparison of the epoch
// and the entries are one operation of a real OSD, which refuses all of it, or none.
func TestLiveMap(t *testing.T) {
	conf := os.Getenv("WARDEN_TEST_CONF")
	if conf == "" {
		t.Fatal("WARDEN_TEST_CONF is not set")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	connect := func() rados.Cluster {
		c, err := librados.Connect(ctx, librados.Config{ConfFile: conf})
		must(t, err)
		t.Cleanup(c.Close)
		return c
	}
	old, now := connect(), connect()
	pool := fmt.Sprint("imagemap-test-", old.InstanceID())
	_, _, err := old.MonCommand(ctx, map[string]any{"prefix": "osd pool create", "pool": pool, "pg_num": 8}, nil)
	must(t, err)
	for _, namespace := range []string{"", "ns"} {
		open := func(c rados.Cluster) rados.IOContext {
			must(t, c.WaitForLatestMap(ctx))
			io, err := c.Open(ctx, pool, namespace)
			must(t, err)
			t.Cleanup(io.Close)
			return io
		}
		liveMap(t, open(old), open(now))
	}
}

func liveMap(t *testing.T, old, now rados.IOContext) {
	ctx := context.Background()
	v := NewView(now)
	equal(t, "before anything", refresh(t, v), []string(nil))
	if _, err := Begin(ctx, old, assertion()); !errors.Is(err, ErrNotLeader) {
		t.Errorf("a term without the object: %v", err)
	}
	lock(t, old)
	must(t, rados.Tell(ctx, old, Object, mirror.InstancesAdd("4711")))
	term := begin(t, old)
	must(t, term.Write(ctx, map[string]Entry{"g": entry("4711"), "h": entry("12")}, nil))
	equal(t, "first", refresh(t, v), []string{"g", "h"})
	must(t, term.Write(ctx, nil, []string{"h"}))
	equal(t, "removed", refresh(t, v), []string{"h"})
	assertUpstream(t, now, "4711")
	equal(t, "the term's map", term.Map(), read(t, now))

	// A write of an older state of the map.
	term.m.Epoch--
	if err := term.Write(ctx, map[string]Entry{"g": entry("late")}, nil); !errors.Is(err, ErrStale) {
		t.Errorf("a late write: %v", err)
	}
	must(t, term.Reload(ctx))

	// More than one operation's worth, and more than a reply of an OSD holds.
	set := map[string]Entry{}
	for n := range 2*page + 1 {
		set[fmt.Sprint("many", n)] = entry("1")
	}
	must(t, term.Write(ctx, set, nil))
	if got := len(refresh(t, v)); got != len(set) {
		t.Errorf("told of %d changes", got)
	}
	equal(t, "many", v.Map(), read(t, now))

	// The lock goes to another client.
	unlock(t, old)
	lock(t, now)
	if err := term.Write(ctx, map[string]Entry{"g": entry("2")}, nil); !errors.Is(err, ErrNotLeader) {
		t.Errorf("a stale leader's write: %v", err)
	}
	equal(t, "after it", refresh(t, v), []string(nil))
	next := begin(t, now)
	must(t, next.Write(ctx, map[string]Entry{"g": entry("2")}, nil))
	equal(t, "the new leader's write", refresh(t, v), []string{"g"})
	equal(t, "the view", v.Map(), next.Map())
}
