//go:build live

package lock

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/librados"
)

// The live tests share one cluster, with one pool.
var site *lab.Cluster

const livePool = "p"

func init() {
	instead = func(m *testing.M) {
		if len(os.Args) == 4 && os.Args[1] == "hold" {
			hold(os.Args[2], os.Args[3])
			return
		}
		os.Exit(withSite(m.Run))
	}
}

func withSite(run func() int) int {
	var err error
	if site, err = lab.Start(context.Background(), lab.Options{}); err == nil {
		defer site.Stop()
		err = site.CreatePool(context.Background(), livePool)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return run()
}

// liveIO opens the pool over a connection of its own.
func liveIO(t testing.TB) rados.IOContext {
	t.Helper()
	c, err := librados.Connect(within(t, 30*time.Second), librados.Config{ConfFile: site.Conf()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	io, err := c.Open(within(t, 30*time.Second), livePool, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(io.Close)
	return io
}

// createImage gives a new image's id.
func createImage(t testing.TB, name string) string {
	t.Helper()
	mustCLI(t, "rbd", "create", "-s", "64M", "--image-feature", "layering,exclusive-lock,object-map,fast-diff,deep-flatten,journaling", livePool+"/"+name)
	out := mustCLI(t, "rbd", "info", livePool+"/"+name)
	_, id, _ := strings.Cut(out, "id: ")
	id, _, _ = strings.Cut(id, "\n")
	if id == "" {
		t.Fatalf("no id in %q", out)
	}
	return id
}

func mustCLI(t testing.TB, argv ...string) string {
	t.Helper()
	out, err := site.CLI(within(t, time.Minute), argv[0], argv[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// blocklistOf is what "ceph osd blocklist ls" prints.
func blocklistOf(t testing.TB) string {
	t.Helper()
	return mustCLI(t, "ceph", "osd", "blocklist", "ls")
}

func liveAcquire(t testing.TB, io rados.IOContext, id string, opts Options) *Lock {
	t.Helper()
	l, err := Acquire(within(t, 90*time.Second), io, id, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Release(within(t, 10*time.Second), nil) })
	return l
}

// holder is another process that holds an image's lock and writes.
type holder struct {
	cmd   *exec.Cmd
	lines chan string
}

// startHolder starts this program anew as a holder, and waits until it holds.
func startHolder(t testing.TB, id string) *holder {
	t.Helper()
	h := &holder{cmd: exec.Command(os.Args[0], "hold", site.Conf(), id), lines: make(chan string, 1000)}
	h.cmd.Env = site.Environ()
	h.cmd.Stderr = os.Stderr
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = h.cmd.Process.Kill()
		_ = h.cmd.Wait()
	})
	go func() {
		defer close(h.lines)
		s := bufio.NewScanner(out)
		for s.Scan() {
			h.lines <- s.Text()
		}
	}()
	h.await(t, "held")
	return h
}

func (h *holder) await(t testing.TB, word string) string {
	t.Helper()
	late := time.After(60 * time.Second)
	for {
		select {
		case line, ok := <-h.lines:
			if !ok {
				t.Fatalf("the holder ended before it said %q", word)
			}
			t.Log("holder: " + line)
			if strings.HasPrefix(line, word) {
				return line
			}
		case <-late:
			t.Fatalf("the holder never said %q", word)
		}
	}
}

// hold is the holder's program: it writes to a data object, whatever its Lock says,
// until a write fails; that is how a process behaves that was paused just before
// its write.
func hold(conf, id string) {
	fail := func(err error) {
		if err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
	}
	ctx := context.Background()
	c, err := librados.Connect(ctx, librados.Config{ConfFile: conf})
	fail(err)
	pool, err := c.Open(ctx, livePool, "")
	fail(err)
	policy := &diary{onEntry: func(e string) { fmt.Println(e) }}
	l, err := Acquire(ctx, pool, id, Options{WatchTimeout: liveWatchTimeout, Policy: policy, Description: "holder"})
	fail(err)
	for n := 0; ; n++ {
		if n == 1 {
			fmt.Println("held and written to as", fmt.Sprintf("client.%d", c.InstanceID()), l.Cookie())
		}
		var op rados.WriteOp
		op.Write(0, fmt.Appendf(nil, "%08d", n))
		if err := pool.Write(ctx, "data."+id, &op); err != nil {
			fmt.Println("refused:", errors.Is(err, rados.Blocklisted), err)
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	select {
	case <-l.Lost():
		fmt.Println("lost:", errors.Is(l.Cause(), rados.Blocklisted), l.Valid(), l.Cause())
	case <-time.After(30 * time.Second):
		fmt.Println("not lost:", l.State())
	}
	fmt.Println("released:", l.Release(ctx, nil))
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// liveWatchTimeout is long enough for librados' pings, every five seconds.
const liveWatchTimeout = 12 * time.Second

func (h *holder) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := h.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}
