package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// hogArg makes a test binary a hog: see Exhaust.
const hogArg = "harness-hog"

// Exhaust has a worker killed by the kernel's out-of-memory killer, for the limit of its own memory cgroup: processes of
// ours join the cgroup and take all that is left. There are several, so that none is as big as to be chosen itself: the
// worker has asked the kernel to be the first. It answers when the worker is dead, and an error if it is not: it is so
// young that it has not asked yet. Only root may do that, and only where the daemon has given the worker a cgroup.
func Exhaust(pid int, within time.Duration) error {
	group, err := memoryGroup(pid)
	if err != nil {
		return err
	}
	failed := make(chan error, hogs)
	for range hogs {
		go func() {
			out, err := exec.Command("/proc/self/exe", hogArg, group, strconv.Itoa(pid), within.String()).CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%w: %s", err, out)
			}
			failed <- err
		}()
	}
	for range hogs {
		err = errors.Join(err, <-failed)
	}
	if !Running(pid) {
		return nil // a hog may have been killed with it
	}
	return err
}

// memoryGroup is the directory of a worker's own memory cgroup.
func memoryGroup(pid int) (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		// hierarchy-ID:controllers:path; the unified hierarchy is "0::path".
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 || !strings.Contains(parts[2], "/rbd-warden.") {
			continue
		}
		if parts[1] == "memory" {
			return filepath.Join("/sys/fs/cgroup/memory", parts[2]), nil
		}
		return filepath.Join("/sys/fs/cgroup", parts[2]), nil
	}
	return "", errors.New("the worker has no memory cgroup of its own")
}

// hog is the process that Exhaust starts: it takes memory in a cgroup until another process is dead.
func hog(group, victim, within string) error {
	pid, err := strconv.Atoi(victim)
	if err != nil {
		return err
	}
	patience, err := time.ParseDuration(within)
	if err != nil {
		return err
	}
	limit, err := limitOf(group)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
		return err
	}
	defer func() {
		// Out of it again at once: the daemon removes the cgroup, and cannot while somebody is in it. So does our end.
		_ = os.WriteFile(filepath.Join(filepath.Dir(group), "..", "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0)
	}()
	taken := 0
	chosen := false
	for deadline := time.Now().Add(patience); Running(pid); {
		if !chosen && killedOf(group) > 0 { // the worker, which needs a moment to be gone, or one of us
			chosen, deadline = true, time.Now().Add(min(patience, 10*time.Second))
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("process %d lives although %d bytes were taken", pid, taken)
		}
		if chosen || taken >= limit/(hogs-1) {
			time.Sleep(time.Millisecond)
			continue
		}
		if _, err := unix.Mmap(-1, 0, hogBlock, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_POPULATE); err != nil {
			return err
		}
		taken += hogBlock
	}
	return nil
}

const (
	// hogBlock is how much a hog takes at a time, in bytes.
	hogBlock = 4 << 20
	// hogs is how many there are. Each takes a little more than its part of the cgroup's limit and no more.
	hogs = 6
)

// limitOf reads the limit of a memory cgroup, in bytes.
func limitOf(group string) (int, error) {
	text, err := os.ReadFile(filepath.Join(group, "memory.max"))
	if errors.Is(err, os.ErrNotExist) { // version 1
		text, err = os.ReadFile(filepath.Join(group, "memory.limit_in_bytes"))
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// killedOf counts the processes of a memory cgroup that the kernel has killed for want of memory.
func killedOf(group string) (n int) {
	for _, file := range []string{"memory.events", "memory.oom_control"} { // version 2, version 1
		text, _ := os.ReadFile(filepath.Join(group, file))
		for line := range strings.Lines(string(text)) {
			if _, err := fmt.Sscanf(line, "oom_kill %d", &n); err == nil {
				return n
			}
		}
	}
	return 0
}
