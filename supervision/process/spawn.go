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
	"github.com/rbdwarden/rbdwarden/supervision/memory"
)

// Descriptors that a worker inherits, and the variable of its environment that says
// that it is one.
const (
	LinkFD = 3
	LogFD  = 4
	// Marker is set in a worker's environment.
	Marker = "RBD_WARDEN_WORKER"
	// MemoryMarker, in the same place, is its memory limit in bytes; not set: none.
	MemoryMarker = "RBD_WARDEN_MEMORY_LIMIT"
)

// child is a running process.
type child struct {
	pid    int
	proc   *os.Process // knows when the pid is not the child's any more
	link   *link.Conn
	stderr *capture
	oom    oomCounts     // before it was started
	group  *memory.Group // nil if it has none
	begun  chan struct{} // closed when its configuration, which has to come first, was sent
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
	c := &child{link: ours, oom: s.probe.read(), begun: make(chan struct{}), heard: make(chan struct{})}
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
	if s.spec.MemoryLimit > 0 {
		cmd.Env = append(cmd.Env, MemoryMarker+"="+strconv.FormatInt(s.spec.MemoryLimit, 10))
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
	c.group = s.makeGroup()
	started := make(chan error, 1)
	entered := make(chan struct{}) // so that its end is not told before it is in its group
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		if err == nil {
			c.proc, c.pid = cmd.Process, cmd.Process.Pid
		}
		started <- err
		if err == nil {
			st := wait(cmd)
			<-entered
			exited(c, st)
		}
	}()
	if err := <-started; err != nil {
		_ = ours.Close()
		c.leaveGroup()
		return nil, fmt.Errorf("start %s: %w", s.spec.Path, err)
	}
	if c.group != nil {
		if err := c.group.Add(c.pid); err != nil {
			s.log.Info().Err(err).Int("pid", c.pid).Msg("the worker gets no memory cgroup; its resident memory is watched")
			c.leaveGroup()
		}
	}
	close(entered)
	return c, nil
}

// makeGroup makes the next worker's memory group; nil if there can be none. Each
// process gets one of its own, so that its counters are the process's.
func (s *Supervisor) makeGroup() *memory.Group {
	if s.spec.Groups == nil || s.spec.MemoryLimit <= 0 {
		return nil
	}
	s.spawned++
	g, err := s.spec.Groups.Group(fmt.Sprintf("worker-%d.%d", s.spec.Index, s.spawned), s.spec.MemoryLimit)
	if err != nil {
		s.log.Info().Err(err).Msg("the worker gets no memory cgroup; its resident memory is watched")
		return nil
	}
	return g
}

// leaveGroup removes the group of a process that never was in it.
func (c *child) leaveGroup() {
	if c.group != nil {
		_ = c.group.Close()
		c.group = nil
	}
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
		e.oom = s.killedBy(c)
	}
	if c.group != nil {
		_ = c.group.Close() // what cannot be removed the next daemon removes
	}
	return e
}

// killedBy tells which limit a child was killed for by the kernel; "" if it was not
// that. What the child's own group says is certain.
func (s *Supervisor) killedBy(c *child) string {
	after := s.probe.read()
	if c.group == nil {
		return c.oom.killedSince(after)
	}
	killed, own, err := c.group.KilledByOwnLimit()
	switch {
	case err != nil:
		s.log.Warn().Err(err).Msg("cannot read the counters of a dead worker's memory cgroup")
		return c.oom.killedSince(after)
	case !killed:
		return ""
	case own:
		return fmt.Sprintf("its own memory group (%d bytes)", c.group.Limit())
	}
	return c.oom.limitHitSince(after)
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
