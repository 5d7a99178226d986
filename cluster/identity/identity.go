// Package identity tells whether a process of this host that once took a lock is
// dead, without waiting for the cluster to notice.
//
// When a process is killed, the OSDs keep its watches for another 30 seconds, and for
// as long its locks look as if their owner lived. But who starts on the same host can
// see that the process is gone. So every lock of ours carries its owner's identity in
// the lock's description:
//
//	rbd-warden boot=<kernel boot id> pidns=<inode of the pid namespace> pid=<pid> start=<clock ticks after boot>
//
// Only a process of the same boot and the same pid namespace may judge; a pid that
// was given out again has another start time. Everybody else waits for the watch to
// expire, as with locks of other programs.
package identity

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Identity names one process, for all hosts and times.
type Identity struct {
	Boot  string // /proc/sys/kernel/random/boot_id
	PIDNS string // /proc/self/ns/pid, as in "pid:[4026531836]"
	PID   int
	Start uint64 // field 22 of /proc/<pid>/stat, clock ticks after boot
}

// Self is the identity of this process.
func Self() (Identity, error) { return of(os.Getpid()) }

func of(pid int) (Identity, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Identity{}, err
	}
	ns, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return Identity{}, err
	}
	start, err := startTime(pid)
	if err != nil {
		return Identity{}, err
	}
	return Identity{Boot: strings.TrimSpace(string(boot)), PIDNS: ns, PID: pid, Start: start}, nil
}

// startTime reads field 22 of /proc/<pid>/stat. The second field, the command, may
// contain blanks and parentheses, so fields are counted behind the last ")".
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	s := string(b)
	fields := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	const start = 22 - 3 // the first field behind the command is number 3
	if len(fields) <= start {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields behind the command", pid, len(fields))
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return 0, fmt.Errorf("process %d: %w", pid, os.ErrProcessDone)
	}
	return strconv.ParseUint(fields[start], 10, 64)
}

const prefix = "rbd-warden "

// String is the form that goes into a lock's description.
func (i Identity) String() string {
	return fmt.Sprintf("%sboot=%s pidns=%s pid=%d start=%d", prefix, i.Boot, i.PIDNS, i.PID, i.Start)
}

// Parse reads what String wrote; false for anything else.
func Parse(description string) (Identity, bool) {
	rest, ok := strings.CutPrefix(description, prefix)
	if !ok {
		return Identity{}, false
	}
	var i Identity
	n, err := fmt.Sscanf(rest, "boot=%s pidns=%s pid=%d start=%d", &i.Boot, &i.PIDNS, &i.PID, &i.Start)
	return i, err == nil && n == 4
}

// KnownDead tells whether the process that a lock's description names certainly does
// not run any more. False when that cannot be known from here.
func (i Identity) KnownDead(description string) bool {
	other, ok := i.judgeable(description)
	if !ok {
		return false
	}
	start, err := startTime(other.PID)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, os.ErrProcessDone), errors.Is(err, syscall.ESRCH):
		return true
	case err != nil:
		return false
	}
	return start != other.Start
}

// judgeable reads a description of a process that can be seen from here.
func (i Identity) judgeable(description string) (other Identity, ok bool) {
	other, ok = Parse(description)
	return other, ok && other.Boot == i.Boot && other.PIDNS == i.PIDNS && other.PID > 0
}
