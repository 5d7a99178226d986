package identity

import (
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// AwaitDeath calls gone once, in a goroutine, when the process that a lock's description
// names has ended, and at once if it has already, unless stop was called before. It rests on
// a pidfd: nothing is looked at while the process lives. gone is a hint to ask KnownDead.
//
// waits is false where this kernel has no pidfd for that process; then KnownDead has to be asked
// again and again. A process that cannot be judged from here is waited for in vain.
func (i Identity) AwaitDeath(description string, gone func()) (stop func(), waits bool) {
	other, ok := i.judgeable(description)
	if !ok {
		return func() {}, true
	}
	fd, err := unix.PidfdOpen(other.PID, unix.PIDFD_NONBLOCK)
	if err != nil && !errors.Is(err, syscall.ESRCH) {
		return nil, false
	}
	if err != nil {
		go gone()
		return func() {}, true
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	conn, err := f.SyscallConn()
	// What polls it must not block, or each one would take an OS thread and Close would wait for
	// it: only files that the runtime can poll take a deadline.
	if err != nil || f.SetReadDeadline(time.Time{}) != nil {
		_ = f.Close() // nothing was written
		return nil, false
	}
	if i.KnownDead(description) { // the pid was given out again before there was a pidfd
		_ = f.Close()
		go gone()
		return func() {}, true
	}
	go func() {
		if conn.Read(func(fd uintptr) bool { return exited(int(fd)) }) == nil {
			gone()
		}
	}()
	return func() { _ = f.Close() }, true
}

// exited tells whether a pidfd's process has ended.
func exited(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1
}
