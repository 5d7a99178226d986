//go:build live

package lock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	cls "github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/ceph/notify"
	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/librados"
)

// TestLiveAsUpstream has Ceph's own rbd-mirror hold the lock of an image that it
// replays into, sends it every notification, and compares its answers with ours.
// Then the two take the lock from each other.
func TestLiveAsUpstream(t *testing.T) {
	program, err := exec.LookPath("rbd-mirror")
	if err != nil {
		t.Skip("Ceph's rbd-mirror is not installed")
	}
	ctx := within(t, 4*time.Minute)
	pair, err := lab.StartPair(ctx, lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer pair.Stop()
	if err := pair.MirrorPool(ctx, "m", lab.PoolMode); err != nil {
		t.Fatal(err)
	}
	if _, err := pair.Primary.CLI(ctx, "rbd", "create", "-s", "16M", "--image-feature", "exclusive-lock,journaling", "m/i"); err != nil {
		t.Fatal(err)
	}
	mirror := startUpstream(t, program, pair.Secondary)

	// The least privileges that the manual gives the daemon.
	c, err := librados.Connect(ctx, librados.Config{ConfFile: pair.Secondary.Conf(), ClientName: lab.DaemonUser})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	pool, err := c.Open(ctx, "m", "")
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	id := awaitReplaying(t, ctx, pair.Secondary)
	lockers := func() []cls.Locker {
		i, err := rados.Ask(ctx, pool, Header(id).Object, cls.GetInfo(cls.RBDName))
		if err != nil {
			t.Fatal(err)
		}
		return i.Lockers
	}
	theirs := lockers()
	if len(theirs) != 1 {
		t.Fatalf("rbd-mirror holds no lock: %v", theirs)
	}

	upstream := answers(t, ctx, pool, id)
	_, err = Acquire(ctx, pool, id, Options{})
	var refused *RefusedError
	if !errors.As(err, &refused) || refused.Owner.LockerID != theirs[0].LockerID {
		t.Errorf("taken from rbd-mirror: %v", err)
	}

	// Killed without a word, it is fenced.
	_ = mirror.Process.Kill()
	_ = mirror.Wait()
	l, err := Acquire(ctx, pool, id, Options{KnownDead: func(string) bool { return true }})
	if err != nil {
		t.Fatal(err)
	}
	out, err := pair.Secondary.CLI(ctx, "ceph", "osd", "blocklist", "ls")
	if err != nil || !strings.Contains(out, theirs[0].Address.Blocklist()) {
		t.Errorf("not blocklisted: %s, %v", out, err)
	}
	ours := answers(t, ctx, pool, id)
	for op, want := range upstream {
		if got := ours[op]; got != want {
			t.Errorf("%s: we answer %q, rbd-mirror %q", op, got, want)
		}
	}

	// A new rbd-mirror is refused by us, and takes over when we are done.
	startUpstream(t, program, pair.Secondary)
	time.Sleep(10 * time.Second)
	if now := lockers(); len(now) != 1 || now[0].Entity != cls.ClientName(c.InstanceID()) || !l.Valid() {
		t.Errorf("rbd-mirror has taken our lock: %v, %v", now, l.Cause())
	}
	if err := l.Release(ctx, nil); err != nil {
		t.Error(err)
	}
	for len(lockers()) == 0 {
		if ctx.Err() != nil {
			t.Fatal("rbd-mirror does not take the lock that we released")
		}
		time.Sleep(time.Second)
	}
	if out, err := pair.Secondary.CLI(ctx, "ceph", "osd", "blocklist", "ls"); err != nil || strings.Count(out, "/") != 1 {
		t.Errorf("more than the killed one is blocklisted: %s, %v", out, err)
	}
}

func startUpstream(t *testing.T, program string, c *lab.Cluster) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(program, "-f", "--cluster", c.Name(), "-n", lab.DaemonUser, "--log-file", filepath.Join(c.LogDir(), "upstream.log"))
	cmd.Dir, cmd.Env = c.Dir(), c.Environ()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Kill)
		_ = cmd.Wait()
	})
	return cmd
}

// awaitReplaying waits until the secondary's image is replayed into, and gives its id.
func awaitReplaying(t *testing.T, ctx context.Context, c *lab.Cluster) string {
	t.Helper()
	for {
		out, err := c.CLI(ctx, "rbd", "mirror", "image", "status", "m/i")
		if err == nil && strings.Contains(out, "up+replaying") {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("not replaying: %s, %v", out, err)
		}
		time.Sleep(500 * time.Millisecond)
	}
	out, err := c.CLI(ctx, "rbd", "info", "m/i")
	if err != nil {
		t.Fatal(err)
	}
	_, id, _ := strings.Cut(out, "id: ")
	id, _, _ = strings.Cut(id, "\n")
	return id
}

// answers sends one notification of every kind to the only watcher of the header.
func answers(t *testing.T, ctx context.Context, pool rados.IOContext, id string) map[string]string {
	t.Helper()
	request := notify.AsyncRequestID{Client: notify.ClientID{GlobalID: 5, Handle: 6}}
	value := "v"
	all := map[string]string{}
	for n, p := range []notify.Payload{
		notify.AcquiredLock{Client: request.Client}, notify.ReleasedLock{Client: request.Client},
		notify.RequestLock{Client: request.Client}, notify.RequestLock{Client: request.Client, Force: true},
		notify.HeaderUpdate{}, notify.AsyncProgress{Request: request}, notify.AsyncComplete{Request: request},
		notify.Flatten{Request: request}, notify.Resize{Size: 8 << 20, Request: request, AllowShrink: true},
		notify.SnapCreate{Name: "s", Request: request}, notify.SnapCreate{Name: "s"}, notify.SnapRemove{Name: "s", Request: request},
		notify.SnapRename{SnapID: 4, Name: "s", Request: request}, notify.SnapProtect{Name: "s", Request: request},
		notify.SnapUnprotect{Name: "s", Request: request}, notify.RebuildObjectMap{Request: request},
		notify.Rename{Name: "x", Request: request}, notify.UpdateFeatures{Features: 8, Request: request},
		notify.Migrate{Request: request}, notify.Sparsify{Request: request, SparseSize: 4096},
		notify.MetadataUpdate{Key: "k", Value: &value, Request: request},
		notify.Unquiesce{Request: request}, notify.Unknown{Operation: 99}, notify.Quiesce{Request: request},
	} {
		request.Request++
		r, err := pool.Notify(ctx, Header(id).Object, notify.Encode(p), 5*time.Second)
		if err != nil {
			t.Fatalf("%v: %v", p.Op(), err)
		}
		what := fmt.Sprintf("%02d %v", n, p.Op())
		switch {
		case len(r.Acks) != 1 || len(r.Missed) != 0:
			all[what] = fmt.Sprintf("%d answers, %d missed", len(r.Acks), len(r.Missed))
		case len(r.Acks[0].Reply) == 0:
			all[what] = "empty"
		default:
			resp, err := notify.DecodeResponse(r.Acks[0].Reply)
			if err != nil {
				t.Fatalf("%v: %v", p.Op(), err)
			}
			all[what] = fmt.Sprintf("%d %v", resp.Result, syscall.Errno(-resp.Result))
		}
		t.Logf("%s: %s", what, all[what])
	}
	return all
}
