package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/config"
	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/supervision/worker"
)

// This test binary is also the program, with work that needs no cluster.
func TestMain(m *testing.M) {
	if os.Getenv("TEST_PROGRAM") != "" {
		work = pretend
		os.Exit(run(os.Args))
	}
	os.Exit(m.Run())
}

// pretend does what --test-work says, instead of mirroring.
func pretend(ctx context.Context, cfg config.Config, log zerolog.Logger, s seams) error {
	switch cfg.Overrides["test_work"] {
	case "refuse":
		return fmt.Errorf("the cluster refuses: %w", syscall.EACCES)
	case "away":
		return fmt.Errorf("no monitor: %w", syscall.ETIMEDOUT)
	case "escalate":
		return pretendToBeAtFault(s)
	}
	o, err := cfg.LoadOwn()
	if err != nil {
		return err
	}
	notes := []string{
		fmt.Sprint("halts ", cfg.Halts), fmt.Sprintf("osd %v mon %v connect %v", o.Warden.OSDTimeout, o.Warden.MonTimeout, o.Warden.ConnectTimeout),
		fmt.Sprint("level ", cfg.Process.LogLevel),
	}
	images := newPretenders(cfg.Halts, report.Image{GlobalID: "g", Name: "vm-1", EntriesBehind: 7, LagSeconds: 1.5})
	s.Serve(worker.Hooks{
		Report: func(context.Context) ([]byte, error) {
			w := report.Worker{Notes: notes}
			if s.Index == 0 {
				w.Pools = images.pools()
			}
			return json.Marshal(w)
		},
		Call: func(_ context.Context, r *controlv1.CallRequest) (string, []byte, error) {
			if strings.HasPrefix(r.Command, libradosCommand) {
				return "", nil, fmt.Errorf("no cluster: %w", syscall.ENOTSUP)
			}
			return "", nil, nil
		},
		Command: func(ctx context.Context, r *controlv1.CommandRequest) *controlv1.CommandReply {
			if s.Index != 0 {
				return &controlv1.CommandReply{} // it runs nothing
			}
			return images.squad().Do(ctx, r)
		},
	})
	s.Tell(&controlv1.Traces{Lines: []*controlv1.TraceLine{{Pool: "rbd", GlobalId: "g", Id: 1, StepJson: []byte(`{"message":"Start","from":"STOPPED","to":"REPLAYING"}`)}}})
	log.Info().Msg("pretending")
	s.Ready()
	<-ctx.Done()
	return ctx.Err()
}

// place is a directory with everything that a daemon under test touches.
type place struct {
	t   *testing.T
	dir string
}

func newPlace(t *testing.T, conf string) place {
	t.Helper()
	dir, err := os.MkdirTemp("", "warden") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := place{t, dir}
	conf = "[global]\nrun dir = " + dir + "\nlog file = " + dir + "/log\npid file = " + dir + "/pid\n" +
		"[client]\nrbd warden restart min = 0.05\nrbd warden heartbeat interval = 0.1\n" + conf
	if err := os.WriteFile(p.path("ceph.conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p place) path(name string) string { return filepath.Join(p.dir, name) }

// command is the program under a name.
func (p place) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = name
	cmd.Env = append(os.Environ(), "TEST_PROGRAM=1", "CEPH_CONF="+p.path("ceph.conf"), "CEPH_ARGS=")
	return cmd
}

// output runs a command to its end.
func (p place) output(name string, args ...string) (string, int) {
	p.t.Helper()
	out, err := p.command(name, args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	if exit != nil {
		return string(out), exit.ExitCode()
	}
	return string(out), 0
}

// ps asks the daemons until the only one satisfies want.
func (p place) ps(what string, want func(report.Daemon, report.Worker) bool) (report.Daemon, report.Worker) {
	p.t.Helper()
	var last string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		var code int
		last, code = p.output("rbd-warden", "ps", "--json")
		var daemons []report.Daemon
		if code != 0 || json.Unmarshal([]byte(last), &daemons) != nil || len(daemons) != 1 {
			continue
		}
		if d := daemons[0]; want(d, d.Workers[0]) {
			return d, d.Workers[0]
		}
	}
	p.t.Fatalf("never %s: %s", what, last)
	panic("not reached")
}

func isReady(_ report.Daemon, w report.Worker) bool { return w.State == report.WorkerReady }

// foreground starts a daemon in the foreground.
func (p place) foreground(args ...string) (*exec.Cmd, *syncBuffer) {
	p.t.Helper()
	cmd, out := p.command("rbd-mirror", args...), &syncBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if p.t.Failed() {
			p.t.Log(out.String())
		}
	})
	return cmd, out
}

func (p place) leftBehind() []string {
	socks, _ := filepath.Glob(p.path("*.sock"))
	if _, err := os.Stat(p.path("pid")); err == nil {
		socks = append(socks, "pid")
	}
	return socks
}

func TestForeground(t *testing.T) {
	p := newPlace(t, "")
	cmd, out := p.foreground("-d", "--id", "rbd-mirror.a")
	// Its memory is known from the first heartbeat on.
	d, w := p.ps("ready and measured", func(d report.Daemon, w report.Worker) bool { return isReady(d, w) && w.RSS > 0 })
	if d.PID != cmd.Process.Pid || d.Entity != "client.rbd-mirror.a" || d.Cluster != "ceph" {
		t.Errorf("report %+v", d)
	}
	if pid, err := os.ReadFile(p.path("pid")); err != nil || string(pid) != strconv.Itoa(d.PID)+"\n" {
		t.Errorf("pid file %q, %v", pid, err)
	}
	for _, pid := range []int{d.PID, w.PID} {
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err != nil || string(comm) != "rbd-mirror\n" {
			t.Errorf("ps shows process %d as %q, %v", pid, comm, err)
		}
	}
	socks, err := filepath.Glob(p.path("*.sock"))
	if err != nil || len(socks) != 1 {
		t.Fatalf("sockets %v, %v", socks, err)
	}
	if info, err := os.Stat(socks[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("control socket: %v, %v", info.Mode(), err)
	}

	if err := syscall.Kill(w.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_, again := p.ps("ready again", func(_ report.Daemon, w report.Worker) bool { return isReady(d, w) && w.Restarts == 1 })
	if again.PID == w.PID || again.LastCause.Why != report.WhySignal {
		t.Errorf("after a kill: %+v", again)
	}
	text, code := p.output("rbd-warden", "ps")
	for _, want := range []string{"daemon " + strconv.Itoa(d.PID), "worker 0: ready", "1 restarts", "last end", "signal: 9 (killed)",
		"pool rbd from site-a: OK", "vm-1", "replaying", "1.5s"} {
		if code != 0 || !strings.Contains(text, want) {
			t.Errorf("ps does not say %q (exit code %d):\n%s", want, code, text)
		}
	}

	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	if left := p.leftBehind(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := os.Stat(p.path("log")); err == nil {
		t.Error("-d wrote a log file")
	}
	if !strings.Contains(out.String(), "pretending") || !strings.Contains(out.String(), "daemon stopped") {
		t.Errorf("stderr: %s", out)
	}
	if text, code := p.output("rbd-warden", "ps"); code == 0 || !strings.Contains(text, "no daemon listens") {
		t.Errorf("ps without a daemon: %d, %s", code, text)
	}
}

func TestBackground(t *testing.T) {
	p := newPlace(t, "rbd warden workers = 2\n")
	if out, code := p.output("rbd-mirror", "--id", "x"); code != 0 || out != "" {
		t.Fatalf("exit code %d: %s", code, out)
	}
	d, w := p.ps("ready", isReady)
	defer syscall.Kill(d.PID, syscall.SIGKILL)
	if len(d.Workers) != 2 || d.Workers[1].State != report.WorkerReady || d.Workers[1].PID == w.PID {
		t.Errorf("workers %+v", d.Workers)
	}
	if out, code := p.output("rbd-mirror", "--id", "x"); code != 1 || !strings.Contains(out, "another daemon holds the pid file") {
		t.Errorf("a second daemon: exit code %d: %s", code, out)
	}

	// The log is rotated.
	if err := os.Rename(p.path("log"), p.path("log.1")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(d.PID, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
		code int
	}{
		{[]string{"image", "pause", "rbd/vm-1"}, "image rbd/vm-1: was replaying, paused\n", 0},
		{[]string{"image", "pause", "rbd/g"}, "image rbd/vm-1: is paused already\n", 0},
		{[]string{"image", "resume", "rbd/vm-1"}, "image rbd/vm-1: was paused, replaying\n", 0},
		{[]string{"image", "stop", "rbd/vm-1", "--json"}, `"text":"was replaying, stopped"`, 0},
		{[]string{"image", "pause", "rbd/vm-1"}, "holds no lock that a pause could keep", 1},
		{[]string{"pool", "start", "rbd"}, "image rbd/vm-1: was stopped, replaying\n", 0},
		{[]string{"image", "pause", "rbd/none"}, "no image rbd/none is mirrored by this daemon, which knows of vm-1 there", 1},
		{[]string{"pool", "stop", "other/ns"}, "pool other/ns is not mirrored by this daemon, which knows of rbd", 1},
		{[]string{"image", "pause"}, "accepts 1 arg", 1},
		{[]string{"image", "pause", "rbd"}, "is not POOL[/NAMESPACE]/IMAGE", 1},
		{[]string{"image", "trace", "rbd/vm-1"}, " STOPPED → REPLAYING\n", 0},
		{[]string{"image", "trace", "rbd/none"}, "no image rbd/none", 1},
		{[]string{"worker", "restart", "7"}, "there is no worker 7", 1},
		{[]string{"worker", "restart", "1"}, "worker 1: was ready, pid", 0},
	} {
		if out, code := p.output("rbd-warden", c.args...); code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%v: exit code %d, %q, want %d, %q", c.args, code, out, c.code, c.want)
		}
	}
	p.ps("worker 1 is anew", func(d report.Daemon, _ report.Worker) bool {
		return d.Workers[1].Restarts == 1 && d.Workers[1].State == report.WorkerReady
	})
	if err := syscall.Kill(d.PID, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); syscall.Kill(d.PID, 0) == nil && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	log, err := os.ReadFile(p.path("log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"message":"pretending"`, `"message":"daemon stopped"`} {
		if !strings.Contains(string(log), want) {
			t.Errorf("the new log has no %s:\n%s", want, log)
		}
	}
	// Every process writes to the new file.
	if n := strings.Count(string(log), `"message":"worker stopped"`); n != 3 { // one was asked to restart
		t.Errorf("%d workers told their end in the new log, want 3:\n%s", n, log)
	}
	for line := range strings.Lines(string(log)) {
		if !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %s", line)
		}
	}
	if left := p.leftBehind(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestFailedStarts(t *testing.T) {
	p := newPlace(t, "")
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"rbd-mirror", nil, 1, "-h or --help for usage"},
		{"rbd-mirror", []string{"-h"}, 0, "usage: rbd-mirror [options...]"},
		{"rbd-mirror", []string{"--version"}, 0, "rbd-warden version"},
		{"rbd-warden", []string{"--version"}, 0, "rbd-warden version"},
		{"rbd-warden", []string{"version", "--json"}, 0, `"version":`},
		{"rbd-warden", []string{"options"}, 0, "rbd_mirror_journal_commit_age"},
		{"rbd-warden", []string{"options", "--json"}, 0, `"name": "rbd_warden_workers"`},
		{"rbd-warden", []string{"nonsense"}, 1, "unknown command"},
		{"rbd-mirror", []string{"--conf"}, 1, "requires an argument"},
		{"rbd-mirror", []string{"-c", "/nonexistent"}, 1, "unable to open config file"},
		{"rbd-mirror", []string{"--name", "x"}, 1, "not of the form"},
		{"rbd-mirror", []string{"--setuser", "nosuchuser", "-f"}, 1, "nosuchuser"},
		{"rbd-mirror", []string{"--test-work=refuse"}, 1, "the cluster refuses: permission denied"},
		{"rbd-mirror", []string{"--test-work=refuse", "-f"}, 1, "the cluster refuses: permission denied"},
		{"rbd-warden", []string{"daemon", "--test-work=away"}, 1, "no monitor: connection timed out"},
	} {
		if out, code := p.output(c.name, c.args...); code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%s %v: exit code %d, %q, want %d, %q", c.name, c.args, code, out, c.code, c.want)
		}
	}
	if left := p.leftBehind(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A cluster that is away is no reason to end in the foreground: nobody would try again.
func TestForegroundWaitsForTheCluster(t *testing.T) {
	p := newPlace(t, "rbd warden restart max = 0.1\n")
	cmd, _ := p.foreground("-f", "--test-work=away")
	_, w := p.ps("tried again", func(_ report.Daemon, w report.Worker) bool { return w.Restarts >= 2 })
	if w.LastCause.Why != report.WhyError || w.LastCause.Class != "transient" || w.LastCause.Code != worker.ExitTransient {
		t.Errorf("cause %+v", w.LastCause)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestStaleSocketsAreRemoved(t *testing.T) {
	p := newPlace(t, "")
	cmd, _ := p.foreground("-d")
	p.ps("ready", isReady)
	cmd.Process.Kill()
	cmd.Wait()
	if left := p.leftBehind(); len(left) != 2 {
		t.Fatalf("a killed daemon left %v", left)
	}
	cmd, _ = p.foreground("-d")
	p.ps("ready", isReady)
	if left := p.leftBehind(); len(left) != 2 {
		t.Errorf("there is %v", left)
	}
	cmd.Process.Signal(syscall.SIGINT)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// The key of the cluster shows nowhere.
func TestSecretsStaySecret(t *testing.T) {
	p := newPlace(t, "")
	cmd := p.command("rbd-mirror", "-d", "-K", "-", "--debug-rbd-mirror", "20")
	out := &syncBuffer{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("AQSECRET==\n"), out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	_, w := p.ps("ready", isReady)
	for _, name := range []string{"cmdline", "environ"} {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", w.PID, name))
		if err != nil || bytes.Contains(data, []byte("AQSECRET")) {
			t.Errorf("%s of the worker: %q, %v", name, data, err)
		}
	}
	cmd.Process.Signal(syscall.SIGTERM)
	cmd.Wait()
	if strings.Contains(out.String(), "AQSECRET") || !strings.Contains(out.String(), "(hidden)") {
		t.Errorf("the log: %s", out)
	}
}

// syncBuffer can be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
