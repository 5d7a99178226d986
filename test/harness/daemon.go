package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/lab"
)

// Upstream is the path of Ceph's own daemon.
const Upstream = "/usr/bin/rbd-mirror"

// daemons counts the daemons that were started, for the names of their logs.
var daemons atomic.Int64

// Daemon is a mirroring daemon under test.
type Daemon struct {
	// Output is the file with what the daemon wrote to standard output and error.
	Output string
	// Socket is the path given as --admin-socket.
	Socket string

	cmd      *exec.Cmd
	upstream bool
	exited   chan struct{} // closed once err is set
	err      error
}

// Ours is the path of the daemon under test, under its upstream name.
func Ours(t testing.TB) string {
	t.Helper()
	path := os.Getenv("WARDEN_TEST_DAEMON")
	if path == "" {
		path = filepath.Join(root(t), "bin", "rbd-mirror")
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("the daemon under test is missing, make build makes it: %v", err)
	}
	return path
}

// TestsUpstream says whether upstream's daemon stands in for ours: what only ours promises is not asked then.
func TestsUpstream() bool {
	return isUpstream(os.Getenv("WARDEN_TEST_DAEMON"))
}

// isUpstream says whether a path leads to upstream's daemon.
func isUpstream(path string) bool {
	path, err := filepath.EvalSymlinks(path)
	return err == nil && path == Upstream
}

// root is the top of the source tree.
func root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	for ; err == nil && dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
	}
	t.Fatalf("no go.mod above the working directory (%v)", err)
	return ""
}

// StartDaemon starts a daemon beside a cluster with the least privileges, with Ceph's flags and those given. The test
// ends it, if it still runs then.
func StartDaemon(t testing.TB, c *lab.Cluster, path string, flags ...string) *Daemon {
	t.Helper()
	return StartDaemonAs(t, c, path, lab.DaemonUser, flags...)
}

// StartDaemonAs is StartDaemon with a user of the caller's choice.
func StartDaemonAs(t testing.TB, c *lab.Cluster, path, user string, flags ...string) *Daemon {
	t.Helper()
	return startDaemon(t, nil, c, path, user, flags...)
}

// StartDaemonAt is StartDaemon on a host.
func StartDaemonAt(t testing.TB, h *Host, c *lab.Cluster, path string, flags ...string) *Daemon {
	t.Helper()
	return startDaemon(t, h, c, path, lab.DaemonUser, flags...)
}

func startDaemon(t testing.TB, h *Host, c *lab.Cluster, path, user string, flags ...string) *Daemon {
	t.Helper()
	name := fmt.Sprintf("daemon-%d-%s", daemons.Add(1), filepath.Base(filepath.Dir(path)))
	d := &Daemon{
		Output: filepath.Join(c.LogDir(), name+".out"),
		Socket: filepath.Join(c.RunDir(), name+".asok"),
		exited: make(chan struct{}),

		upstream: isUpstream(path),
	}
	args := append([]string{
		"-f", "--cluster", c.Name(), "-n", user, "--log-file", filepath.Join(c.LogDir(), name+".log"), "--admin-socket", d.Socket,
	}, flags...)
	output, err := os.Create(d.Output)
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	d.cmd = exec.Command(path, args...)
	d.cmd.Dir = c.Dir() // NAME.conf is found there
	d.cmd.Env = c.Environ()
	if h != nil {
		d.cmd.Env = append(d.cmd.Env, h.Environ...)
	}
	d.cmd.Stdout, d.cmd.Stderr = output, output
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := h.run(d.cmd.Start); err != nil {
		t.Fatal(err)
	}
	go func() {
		d.err = d.cmd.Wait()
		close(d.exited)
	}()
	t.Cleanup(d.end)
	return d
}

// Log is the file that the daemon logs to.
func (d *Daemon) Log() string { return strings.TrimSuffix(d.Output, ".out") + ".log" }

// PID is the daemon's process.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Exited is closed when the daemon has ended.
func (d *Daemon) Exited() <-chan struct{} { return d.exited }

// ExitError is how the daemon ended, once Exited is closed: nil for status 0.
func (d *Daemon) ExitError() error { return d.err }

// Tail is the end of what the daemon wrote, for messages.
func (d *Daemon) Tail() string {
	text, _ := os.ReadFile(d.Output)
	return string(text[max(0, len(text)-2048):])
}

// Stop asks the daemon to end, as systemd does, and fails the test unless it ends with status 0 in the time given and
// takes its worker processes along. It answers how long that took.
func (d *Daemon) Stop(t testing.TB, within time.Duration) time.Duration {
	t.Helper()
	began, workers := time.Now(), d.descendants()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	select {
	case <-d.exited:
	case <-time.After(within):
		t.Fatalf("the daemon runs on %v after SIGTERM\n%s", within, d.Tail())
	}
	if d.err != nil && !d.upstream { // which ends with status 1 at times
		t.Errorf("the daemon ended with %v\n%s", d.err, d.Tail())
	}
	for _, pid := range workers {
		if Running(pid) {
			t.Errorf("worker process %d outlives the daemon", pid)
		}
	}
	return time.Since(began)
}

// end ends the daemon in good order if it lets itself, so that the next test's clusters do not show it as lost.
func (d *Daemon) end() {
	d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.exited:
	case <-time.After(10 * time.Second):
	}
	d.Kill()
}

// Kill ends the daemon and its worker processes at once, as a power cut would, and waits for their end.
func (d *Daemon) Kill() {
	if d.ended() {
		return
	}
	workers := d.descendants()
	syscall.Kill(-d.PID(), syscall.SIGKILL)
	for _, pid := range workers {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	<-d.exited
	for _, pid := range workers {
		for Running(pid) {
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// KillProcess ends the daemon process only, and fails the test unless its workers end with it at once.
func (d *Daemon) KillProcess(t testing.TB) {
	t.Helper()
	if d.ended() {
		return
	}
	workers := d.descendants()
	syscall.Kill(d.PID(), syscall.SIGKILL)
	<-d.exited
	for _, pid := range workers {
		AwaitEnd(t, pid, 5*time.Second)
	}
}

// KillWorkers ends the daemon's worker processes only and answers how many there were.
func (d *Daemon) KillWorkers() int {
	workers := d.descendants()
	for _, pid := range workers {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	return len(workers)
}

// Signal sends a signal to the daemon and its workers, or to the workers only: SIGSTOP pauses them, SIGCONT lets them go
// on. It answers how many processes there were; none are left where the daemon has ended.
func (d *Daemon) Signal(signal syscall.Signal, workersOnly bool) int {
	if d.ended() {
		return 0
	}
	processes := d.descendants()
	if !workersOnly {
		processes = append([]int{d.PID()}, processes...)
	}
	for _, pid := range processes {
		syscall.Kill(pid, signal)
	}
	return len(processes)
}

// ended says whether the daemon has ended. Its number may be another process's then.
func (d *Daemon) ended() bool {
	select {
	case <-d.exited:
		return true
	default:
		return false
	}
}

// descendants lists the live processes below the daemon.
func (d *Daemon) descendants() []int {
	if d.ended() {
		return nil
	}
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		if pid, state, parent, ok := parseStat(path); ok && state != 'Z' {
			children[parent] = append(children[parent], pid)
		}
	}
	var below []int
	for next := children[d.PID()]; len(next) > 0; next = next[1:] {
		below = append(below, next[0])
		next = append(next, children[next[0]]...)
	}
	return below
}

// Running says whether a process has not ended.
func Running(pid int) bool {
	_, state, _, ok := parseStat(fmt.Sprintf("/proc/%d/stat", pid))
	return ok && state != 'Z'
}

// parseStat reads the first fields of /proc/PID/stat: pid (program) state parent.
func parseStat(path string) (pid int, state byte, parent int, ok bool) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, 0, false
	}
	front, back, found := strings.Cut(string(text), " (")
	at := strings.LastIndex(back, ") ")
	if !found || at < 0 {
		return 0, 0, 0, false
	}
	fields := strings.Fields(back[at+2:])
	if len(fields) < 2 {
		return 0, 0, 0, false
	}
	pid, _ = strconv.Atoi(front)
	parent, _ = strconv.Atoi(fields[1])
	return pid, fields[0][0], parent, true
}

// At says that the daemon's admin socket is elsewhere than it was told first.
func (d *Daemon) At(socket string) *Daemon {
	d.Socket = socket
	return d
}

// EndByPIDFile ends the daemon that a script started with a pid file in a directory and left running, if that process still
// is one whose command line names the directory.
func EndByPIDFile(t testing.TB, file, dir string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		return
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return
	}
	if args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err != nil || !strings.Contains(string(args), dir) {
		return
	}
	syscall.Kill(pid, syscall.SIGTERM)
	Eventually(t, time.Minute, func() string {
		if Running(pid) {
			return fmt.Sprintf("daemon %d does not end", pid)
		}
		return ""
	})
}
