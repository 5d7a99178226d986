package memory

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	"golang.org/x/sys/unix"
)

// mountpoint is where cgroups are found.
const mountpoint = "/sys/fs/cgroup"

// ErrUnavailable says that no memory cgroup can be made here: the file system of
// cgroups is read-only or not ours to write, or, in version 2, nothing was delegated
// ("Delegate=memory" of systemd). Resident memory is watched instead.
var ErrUnavailable = errors.New("no memory cgroups for workers")

// Root is a cgroup below the one in which this process was started. Workers get groups
// below it:
//
//	version 1   <own>/rbd-warden.PID.START/{worker-0, worker-1 ...}, the daemon stays in <own>
//	version 2   <own>/rbd-warden.PID.START/{daemon, worker-0, worker-1 ...}
//
// PID and START (clock ticks after boot) are the daemon's, so that the next daemon can
// tell what a dead one has left. In version 2 only leaves may have processes, so the
// daemon goes into one itself.
type Root struct {
	mount string // of the hierarchy that has the memory controller
	path  string // below mount
	v2    bool
}

const (
	rootPrefix = "rbd-warden."
	daemonLeaf = "daemon"
)

// Open makes the groups' root, first removing those of dead daemons. The error wraps
// ErrUnavailable; then nothing has changed.
func Open() (*Root, error) {
	r, err := open()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return r, nil
}

func open() (*Root, error) {
	started, ok := startTime(os.Getpid())
	if !ok {
		return nil, errors.New("/proc/self/stat cannot be read")
	}
	name := fmt.Sprintf("%s%d.%d", rootPrefix, os.Getpid(), started)
	switch mode := cgroups.Mode(); mode {
	case cgroups.Legacy, cgroups.Hybrid:
		own, err := cgroup1.NestedPath("")(cgroup1.Memory)
		if err != nil {
			return nil, err
		}
		r := &Root{mount: filepath.Join(mountpoint, string(cgroup1.Memory)), path: filepath.Join(own, name)}
		sweep(filepath.Join(r.mount, own), alive)
		return r, os.Mkdir(r.dir(), 0o755)
	case cgroups.Unified:
		own, err := cgroup2.NestedGroupPath("")
		if err != nil {
			return nil, err
		}
		r := &Root{mount: mountpoint, path: filepath.Join(own, name), v2: true}
		if err := delegated(filepath.Join(mountpoint, own), os.Getpid()); err != nil {
			return nil, err
		}
		sweep(filepath.Join(mountpoint, own), alive)
		return r, r.enter(own)
	default:
		return nil, errors.New("cgroups are not mounted")
	}
}

func (r *Root) dir() string { return filepath.Join(r.mount, r.path) }

// delegated tells why a cgroup of version 2 cannot be divided by us: the controller is
// not there, somebody else's processes are in it, or systemd may undo it at any time.
func delegated(dir string, self int) error {
	if _, err := os.Stat(filepath.Join(dir, "cgroup.type")); err != nil {
		return errors.New("this process is in the root cgroup")
	}
	controllers, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	if !bytes.Contains(append(controllers, ' '), []byte("memory")) {
		return fmt.Errorf("%s has no memory controller", dir)
	}
	procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return err
	}
	if got := strings.Fields(string(procs)); len(got) != 1 || got[0] != strconv.Itoa(self) {
		return fmt.Errorf("%s has other processes than this one", dir)
	}
	if _, err := os.Stat("/run/systemd/system"); err == nil && !hasDelegateMark(dir) {
		return fmt.Errorf("systemd has not delegated %s (Delegate=memory)", dir)
	}
	return nil
}

// hasDelegateMark looks for what systemd leaves on the cgroups that it has delegated
// (systemd's CGROUP_DELEGATION.md).
func hasDelegateMark(dir string) bool {
	for _, name := range []string{"user.delegate", "trusted.delegate"} {
		var value [8]byte
		if n, err := unix.Getxattr(dir, name, value[:]); err == nil && string(value[:n]) == "1" {
			return true
		}
	}
	return false
}

// enter moves this process out of own into the daemon's leaf, so that own can hand the
// memory controller down. What fails is undone.
func (r *Root) enter(own string) error {
	leaf := filepath.Join(r.dir(), daemonLeaf)
	if err := os.MkdirAll(leaf, 0o755); err != nil {
		return err
	}
	self := []byte(strconv.Itoa(os.Getpid()))
	err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), self, 0)
	for _, dir := range []string{filepath.Join(r.mount, own), r.dir()} {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+memory"), 0)
		}
	}
	if err != nil {
		_ = os.WriteFile(filepath.Join(r.mount, own, "cgroup.procs"), self, 0) // it may never have left
		_ = os.Remove(leaf)
		_ = os.Remove(r.dir())
	}
	return err
}

// GiveTo lets a user make groups, before this process becomes that user.
func (r *Root) GiveTo(uid, gid int) error {
	names := []string{".", "cgroup.procs"}
	if r.v2 {
		names = append(names, "cgroup.subtree_control", daemonLeaf, daemonLeaf+"/cgroup.procs")
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, os.Chown(filepath.Join(r.dir(), name), uid, gid))
	}
	return errors.Join(errs...)
}

// Close removes the root, whose groups must be closed. In version 2, and where the user
// was changed, the next daemon does it.
func (r *Root) Close() {
	_ = os.Remove(r.dir())
}

// sweep removes what dead daemons have left below a cgroup. A cgroup with processes
// cannot be removed, so the worst that it can do is nothing.
func sweep(dir string, alive func(pid int, start uint64) bool) {
	found, _ := filepath.Glob(filepath.Join(dir, rootPrefix+"*"))
	for _, old := range found {
		pid, start, _ := strings.Cut(strings.TrimPrefix(filepath.Base(old), rootPrefix), ".")
		p, err := strconv.Atoi(pid)
		s, err2 := strconv.ParseUint(start, 10, 64)
		if err != nil || err2 != nil || alive(p, s) {
			continue
		}
		groups, _ := os.ReadDir(old)
		for _, g := range groups {
			if g.IsDir() {
				_ = os.Remove(filepath.Join(old, g.Name()))
			}
		}
		_ = os.Remove(old)
	}
}

func alive(pid int, start uint64) bool {
	now, ok := startTime(pid)
	return ok && now == start
}

// startTime reads field 22 of /proc/<pid>/stat, in clock ticks after boot. The second
// field, the command, may have anything in it, up to the last parenthesis.
func startTime(pid int) (uint64, bool) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 20 {
		return 0, false
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	return start, err == nil
}
