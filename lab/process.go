package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Mark is the environment variable that every process of a cluster carries, with the cluster's directory as its value.
// A test that starts a daemon of its own beside the cluster sets it too, so that Stop leaves nothing behind.
const Mark = "RBD_WARDEN_LAB"

// environ is this process's environment for a child that belongs to the cluster in dir. What would redirect Ceph's
// programs to another cluster is left out.
func environ(dir string) []string {
	var env []string
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		switch name {
		case "CEPH_ARGS", "CEPH_CONF", "CEPH_KEYRING", "CEPH_LIB", Mark:
		default:
			env = append(env, entry)
		}
	}
	return append(env, Mark+"="+dir)
}

// processes lists the live processes, other than this one, that belong to the cluster in dir.
func processes(dir string) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err == nil && pid != os.Getpid() && belongs(pid, dir) && alive(pid) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// belongs says whether a process is of the cluster in dir: it carries the mark, or it is a Ceph daemon that was started
// with the cluster's ceph.conf. A process that is gone, or that we may not look into, is not ours.
func belongs(pid int, dir string) bool {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	if env, err := os.ReadFile(filepath.Join(proc, "environ")); err == nil && hasField(env, Mark+"="+dir) {
		return true
	}
	args, err := os.ReadFile(filepath.Join(proc, "cmdline"))
	if err != nil {
		return false
	}
	program, _, _ := bytes.Cut(args, []byte{0})
	switch filepath.Base(string(program)) {
	case "ceph-mon", "ceph-mgr", "ceph-osd":
		return hasField(args, filepath.Join(dir, confName))
	}
	return false
}

// hasField says whether a NUL-separated list holds the field.
func hasField(list []byte, field string) bool {
	for part := range bytes.SplitSeq(list, []byte{0}) {
		if string(part) == field {
			return true
		}
	}
	return false
}

// alive says whether a process still runs. A zombie does not: only its exit status is left.
func alive(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	// The state follows the program's name, which is in parentheses and may itself hold any character.
	at := bytes.LastIndexByte(stat, ')')
	return at < 0 || at+2 >= len(stat) || (stat[at+2] != 'Z' && stat[at+2] != 'X')
}

// signalOwned sends a signal to a process if, and only if, it belongs to the cluster in dir. os.FindProcess holds a
// pidfd, so the process that was verified is the one that gets the signal, also when its number is reused meanwhile.
func signalOwned(pid int, dir string, signal syscall.Signal) error {
	process, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	defer process.Release()
	if !belongs(pid, dir) {
		return nil
	}
	if err := process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %d: %w", pid, err)
	}
	return nil
}

// killAll ends every process of the cluster in dir and waits until they are gone.
func killAll(ctx context.Context, dir string) error {
	for {
		pids, err := processes(dir)
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			if err := signalOwned(pid, dir, syscall.SIGKILL); err != nil {
				return err
			}
		}
		// Looked for anew each time: a process may have started another between the listing and its own end.
		select {
		case <-ctx.Done():
			return fmt.Errorf("processes %v do not end: %w", pids, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}
