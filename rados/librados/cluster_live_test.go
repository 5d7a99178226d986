//go:build live

package librados

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rbdwarden/rbdwarden/rados"
)

func TestLiveClusterFacts(t *testing.T) {
	c := connectTest(t)
	out, _, err := c.MonCommand(t.Context(), map[string]any{"prefix": "fsid", "format": "json"}, nil)
	if err != nil || !strings.Contains(string(out), c.FSID()) || len(c.FSID()) != 36 {
		t.Errorf("fsid %q, the monitors say %q, %v", c.FSID(), out, err)
	}
	if c.InstanceID() == 0 || !strings.Contains(c.Addresses(), "/") {
		t.Errorf("instance %d at %q", c.InstanceID(), c.Addresses())
	}
	if v, err := c.Option("rados_osd_op_timeout"); err != nil || v == "0" || v == "" {
		t.Errorf("operations may wait for %q s, %v", v, err)
	}
	if _, err := c.Option("no_such_option"); err == nil {
		t.Error("an option that does not exist has a value")
	}
	_, status, err := c.MonCommand(t.Context(), map[string]any{"prefix": "no such command"}, nil)
	if !errors.Is(err, syscall.EINVAL) || status == "" {
		t.Errorf("command that does not exist: %q, %v", status, err)
	}
	key := "test/" + t.Name()
	if _, _, err := c.MonCommand(t.Context(), map[string]any{"prefix": "config-key set", "key": key}, []byte("value")); err != nil {
		t.Fatal(err)
	}
	if out, _, err := c.MonCommand(t.Context(), map[string]any{"prefix": "config-key get", "key": key}, nil); err != nil || string(out) != "value" {
		t.Errorf("input came back as %q, %v", out, err)
	}
}

func TestLivePools(t *testing.T) {
	c := connectTest(t)
	io := openTest(t, c)
	pools, err := c.Pools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, p := range pools {
		found = found || p == io.Pool()
	}
	if !found {
		t.Errorf("pools %v, want %v among them", pools, io.Pool())
	}
	same, err := c.OpenID(t.Context(), io.Pool().ID, "")
	if err != nil || same.Pool() != io.Pool() {
		t.Fatalf("by id: %v, %v", same, err)
	}
	same.Close()
	same.Close()
	if err := same.Write(t.Context(), "o", new(rados.WriteOp).Create(false)); !errors.Is(err, syscall.ENOTCONN) {
		t.Errorf("write after close: %v", err)
	}
	if _, err := c.Open(t.Context(), "no-such-pool", ""); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("no pool by name: %v", err)
	}
	if _, err := c.OpenID(t.Context(), 1<<40, ""); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("no pool by id: %v", err)
	}
}

func TestLiveService(t *testing.T) {
	c := connectTest(t)
	if err := c.RegisterService(t.Context(), "rbd-mirror", "librados-test", map[string]string{"id": "x", "empty": ""}); err != nil {
		t.Fatal(err)
	}
	if err := c.UpdateService(t.Context(), map[string]string{"json": `{"a":1}`}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the service in the service map", func() error {
		out, _, err := c.MonCommand(t.Context(), map[string]any{"prefix": "service dump", "format": "json"}, nil)
		if err != nil {
			return err
		}
		var dump struct {
			Services map[string]struct {
				Daemons map[string]json.RawMessage `json:"daemons"`
			} `json:"services"`
		}
		if err := json.Unmarshal(out, &dump); err != nil {
			return err
		}
		if !bytes.Contains(dump.Services["rbd-mirror"].Daemons["librados-test"], []byte(`"id":"x"`)) {
			return errors.New(string(out))
		}
		return nil
	})
	if err := c.UpdateService(t.Context(), map[string]string{"a": "b\x00c"}); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("NUL in a value: %v", err)
	}
}

func TestLiveConnectErrors(t *testing.T) {
	conf := confFile(t)
	dir := t.TempDir()
	secret := "AQBzNy9m7lmjHBAAeIzNyNYvBBFvBaTfvyDzbw=="
	wrong := filepath.Join(dir, "keyring")
	if err := os.WriteFile(wrong, []byte("[client.admin]\n\tkey = "+secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		cfg  Config
		want []syscall.Errno
	}{
		{"no file", Config{ConfFile: filepath.Join(dir, "none.conf")}, []syscall.Errno{syscall.ENOENT}},
		{"no file by name", Config{Cluster: "no-such-cluster"}, []syscall.Errno{syscall.ENOENT}},
		{"no keyring", Config{ConfFile: conf, Overrides: map[string]string{"keyring": filepath.Join(dir, "none")}}, []syscall.Errno{syscall.ENOENT, syscall.EACCES}},
		{"wrong key", Config{ConfFile: conf, Overrides: map[string]string{"keyring": wrong}}, []syscall.Errno{syscall.EACCES, syscall.EPERM}},
		{"wrong peer key", Config{ConfFile: conf, Key: secret, Peer: true}, []syscall.Errno{syscall.EACCES, syscall.EPERM}},
		{"bad key", Config{ConfFile: conf, Key: "secret, not base64!"}, []syscall.Errno{syscall.EINVAL, syscall.EACCES, syscall.ENOENT}},
		{"unknown client", Config{ConfFile: conf, ClientName: "nobody", Key: secret}, []syscall.Errno{syscall.EACCES, syscall.EPERM, syscall.ENOENT}},
		{"no monitor", Config{ConfFile: conf, MonHost: "127.0.0.1:1", Timeouts: Timeouts{Mount: 2 * time.Second}}, []syscall.Errno{syscall.ETIMEDOUT}},
		{"unknown option", Config{ConfFile: conf, Overrides: map[string]string{"no_such_option": "1"}}, []syscall.Errno{syscall.ENOENT}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			start := time.Now()
			c, err := Connect(ctxFor(t, 20*time.Second), tc.cfg)
			if err == nil {
				c.Close()
				t.Fatal("connected")
			}
			var ce *ConnectError
			ok := false
			for _, e := range tc.want {
				ok = ok || errors.Is(err, e)
			}
			if !ok || !errors.As(err, &ce) {
				t.Errorf("error %v, want one of %v", err, tc.want)
			}
			if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "base64!") {
				t.Errorf("a key in %v", err)
			}
			if d := time.Since(start); d > 10*time.Second {
				t.Errorf("took %v", d)
			}
			t.Log(err)
		})
	}
}

// A peer is reached with an address and a key alone, whatever this host's files say.
func TestLiveConnectPeer(t *testing.T) {
	local := connectTest(t)
	monHost, err := local.Option("mon_host")
	if err != nil {
		t.Fatal(err)
	}
	out, _, err := local.MonCommand(t.Context(), map[string]any{"prefix": "auth get-key", "entity": "client.admin"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("CEPH_ARGS", "--mon_host 127.0.0.1:1")
	t.Setenv("CEPH_CONF", "")
	c, err := Connect(ctxFor(t, 20*time.Second), Config{Cluster: "peer-site", MonHost: monHost, Key: strings.TrimSpace(string(out)), Peer: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.FSID() != local.FSID() {
		t.Errorf("reached %s, want %s", c.FSID(), local.FSID())
	}
}

func TestLiveConnectCancelled(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := Connect(ctx, Config{ConfFile: confFile(t), MonHost: "127.0.0.1:1", Timeouts: Timeouts{Mount: 2 * time.Second}})
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
	time.Sleep(3 * time.Second) // let librados give up before the process' leaks are looked at
}

// Closing the connection ends what is under way, in whatever order things are closed.
func TestLiveCloseUnderWay(t *testing.T) {
	for range 5 {
		c := connectTest(t)
		io := openTest(t, c)
		mustWrite(t, io, "watched", new(rados.WriteOp).Create(true))
		if _, err := io.Watch(t.Context(), "watched", 0, &recorder{}); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		data := make([]byte, 256<<10)
		for g := range 8 {
			wg.Go(func() {
				for {
					if err := io.Write(context.Background(), string(rune('a'+g)), new(rados.WriteOp).WriteFull(data)); err != nil {
						if !errors.Is(err, syscall.ENOTCONN) {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		wg.Go(func() {
			for {
				if _, _, err := c.MonCommand(context.Background(), map[string]any{"prefix": "fsid"}, nil); err != nil {
					return
				}
			}
		})
		time.Sleep(50 * time.Millisecond)
		start := time.Now()
		c.Close()
		wg.Wait()
		io.Close()
		if d := time.Since(start); d > closeGrace {
			t.Errorf("took %v", d)
		}
	}
	if n := Underway(); n != 0 {
		t.Errorf("%d operations are still under way", n)
	}
}

// osdPid is the pid of the test cluster's OSD, by the lab's layout.
func osdPid(t *testing.T) string {
	t.Helper()
	dir := filepath.Dir(confFile(t))
	b, err := os.ReadFile(filepath.Join(dir, "run", "osd.0.pid"))
	if err != nil {
		t.Skip("not a cluster of the lab: ", err)
	}
	return strings.TrimSpace(string(b))
}

// While the OSD hangs, a call returns with its context, or at the latest with
// librados' timeout, and holds no OS thread; afterwards everything goes on.
func TestLiveHungCluster(t *testing.T) {
	pid := osdPid(t)
	c := connectTest(t, func(c *Config) { c.Timeouts.OSD = 3 * time.Second })
	io := openTest(t, c)
	mustWrite(t, io, "o", new(rados.WriteOp).Create(true))
	threads := func() int {
		d, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		return len(d)
	}
	before := threads()
	signal := func(s string) {
		if out, err := exec.Command("kill", "-"+s, pid).CombinedOutput(); err != nil {
			t.Fatal(string(out), err)
		}
	}
	signal("STOP")
	defer signal("CONT")
	start := time.Now()
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
			defer cancel()
			var err error
			if i%2 == 0 {
				err = io.Write(ctx, "o", new(rados.WriteOp).WriteFull(make([]byte, 64<<10)))
			} else {
				var op rados.ReadOp
				op.Read(0, 1<<20)
				err = io.Read(ctx, "o", &op)
			}
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("with a hung OSD: %v", err)
			}
		})
	}
	time.Sleep(200 * time.Millisecond)
	if now := threads(); now > before+20 {
		t.Errorf("%d threads, %d before", now, before)
	}
	wg.Wait()
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("contexts of 500 ms ended the calls after %v", d)
	}
	start = time.Now()
	err := io.Write(t.Context(), "o", new(rados.WriteOp).WriteFull(nil))
	if d := time.Since(start); !errors.Is(err, syscall.ETIMEDOUT) || d < 2*time.Second || d > 10*time.Second {
		t.Errorf("without a deadline of its own a call ended with %v after %v", err, d)
	}
	if n := Underway(); n != 0 {
		t.Errorf("%d operations are still under way", n)
	}
	// An unresponsive cluster does not delay closing for long either.
	closing := connectTest(t, func(c *Config) { c.Timeouts.OSD = 3 * time.Second })
	io2, err := closing.Open(t.Context(), testPool, io.Namespace())
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- io2.Write(context.Background(), "o", new(rados.WriteOp).Create(false)) }()
	time.Sleep(100 * time.Millisecond)
	start = time.Now()
	closing.Close()
	if err := <-ended; !errors.Is(err, syscall.ENOTCONN) || time.Since(start) > closeGrace+time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
	signal("CONT")
	mustWrite(t, io, "o", new(rados.WriteOp).WriteFull([]byte("alive")))
	if got := readAt(t, io, "o", 0); got != "alive" {
		t.Errorf("after the hang the object holds %q", got)
	}
}

// Connections come and go without leaving goroutines.
func TestLiveNoLeak(t *testing.T) {
	opt := goleak.IgnoreCurrent()
	for range 3 {
		c, err := Connect(t.Context(), Config{ConfFile: confFile(t)})
		if err != nil {
			t.Fatal(err)
		}
		io, err := c.Open(t.Context(), testPool, "")
		if err != nil {
			t.Fatal(err)
		}
		mustWrite(t, io, "leak", new(rados.WriteOp).Create(false))
		w, err := io.Watch(t.Context(), "leak", 0, &recorder{})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Close(t.Context()); err != nil {
			t.Error(err)
		}
		io.Close()
		c.Close()
	}
	goleak.VerifyNone(t, opt)
	if n := Underway(); n != 0 {
		t.Errorf("%d operations are still under way", n)
	}
}
