package process

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/supervision/link"
)

// Descriptors that a worker inherits, and the variable of its environment that says
// that it is one.
const (
	LinkFD = 3
	LogFD  = 4
	// Marker is set in a worker's environment.
	Marker = "RBD_WARDEN_WORKER"
)

// child is a running process.
type child struct {
	pid    int
	proc   *os.Process // knows when the pid is not the child's any more
	link   *link.Conn
	stderr *capture
	oom    oomCounts     // before it was started
	heard  chan struct{} // closed when all that it said was listened to
}

// spawn starts a worker. exited is called once, from a goroutine, when it is dead.
//
// The process dies with us: the kernel sends it a SIGKILL when the thread that
// started it ends. That is why a goroutine bound to one thread starts it and then
// stays until it is dead: Go's other threads may end at any time.
func (s *Supervisor) spawn(exited func(*child, syscall.WaitStatus)) (*child, error) {
	ours, theirs, err := link.Pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	out, in, err := os.Pipe()
	if err != nil {
		_ = ours.Close()
		return nil, err
	}
	defer in.Close()
	c := &child{link: ours, oom: s.probe.read(), heard: make(chan struct{})}
	cmd := &exec.Cmd{
		Path: s.spec.Path, Args: s.spec.Args,
		Env:    append(os.Environ(), Marker+"="+strconv.Itoa(s.spec.Index)),
		Stdout: in, Stderr: in,
		ExtraFiles: []*os.File{theirs},
		SysProcAttr: &syscall.SysProcAttr{
			Pdeathsig: syscall.SIGKILL,
			// Out of our process group: ^C on a terminal is for the daemon alone.
			Setpgid: true,
		},
	}
	cmd.Env = append(cmd.Env, s.spec.Env...)
	if s.spec.LogTo != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, s.spec.LogTo)
	}
	c.stderr = newCapture(out, func(line string) {
		s.log.Warn().Str("stderr", line).Msg("worker wrote")
	})
	go func() {
		<-c.stderr.done
		out.Close()
	}()
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		if err == nil {
			c.proc, c.pid = cmd.Process, cmd.Process.Pid
		}
		started <- err
		if err == nil {
			exited(c, wait(cmd))
		}
	}()
	if err := <-started; err != nil {
		_ = ours.Close()
		return nil, fmt.Errorf("start %s: %w", s.spec.Path, err)
	}
	return c, nil
}

// wait waits until the process is dead.
func wait(cmd *exec.Cmd) syscall.WaitStatus {
	_ = cmd.Wait() // its error says the same as the status
	st, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	return st
}

// ending gathers what is known about a dead child. Its last words, on the link and on
// stderr, may still be on their way to us, so it waits for them, though not for ever: a
// process that it started may hold either open.
func (s *Supervisor) ending(c *child, st syscall.WaitStatus) ending {
	enough, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, said := range []<-chan struct{}{c.heard, c.stderr.done} {
		select {
		case <-said:
		case <-enough.Done():
		}
	}
	e := ending{status: st}
	e.crash, e.tail = c.stderr.kept()
	if st.Signal() == syscall.SIGKILL {
		e.oom = c.oom.killedSince(s.probe.read())
	}
	return e
}

// resident is the resident memory of a process in bytes, 0 if it cannot be told.
func resident(pid int) int64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	var size, pages int64
	if _, err := fmt.Sscan(string(data), &size, &pages); err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
