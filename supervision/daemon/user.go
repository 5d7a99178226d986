package daemon

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Become changes the process's user and group, by name or number. An empty group is
// the user's own; both empty, nothing is done. Who is not root keeps what it is, with
// a warning, as Ceph's daemons do.
func Become(name, group string) (warning string, err error) {
	if name == "" && group == "" {
		return "", nil
	}
	if os.Getuid() != 0 {
		return fmt.Sprintf("ignoring --setuser %q and --setgroup %q since I am not root", name, group), nil
	}
	uid, gid, home, err := lookup(name, group)
	if err != nil {
		return "", err
	}
	if gid != 0 {
		// Root's further groups go too: they could hold more rights than the user.
		if err := syscall.Setgroups([]int{gid}); err != nil {
			return "", fmt.Errorf("unable to set groups to %d: %w", gid, err)
		}
		if err := syscall.Setgid(gid); err != nil {
			return "", fmt.Errorf("unable to setgid %d: %w", gid, err)
		}
	}
	if uid != 0 {
		if err := syscall.Setuid(uid); err != nil {
			return "", fmt.Errorf("unable to setuid %d: %w", uid, err)
		}
		if home != "" {
			if err := os.Setenv("HOME", home); err != nil {
				return "", err
			}
		}
		// The kernel takes core dumps and /proc/self away from who changed user.
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
			return fmt.Sprintf("unable to set dumpable flag: %v", err), nil
		}
	}
	return "", nil
}

// WillBecome tells what Become will change the process's user and group to.
func WillBecome(name, group string) (uid, gid int, changes bool) {
	if os.Getuid() != 0 {
		return 0, 0, false
	}
	uid, gid, _, err := lookup(name, group)
	return uid, gid, err == nil && uid != 0
}

// lookup finds the numbers of a user and a group. 0 means: no change.
func lookup(name, group string) (uid, gid int, home string, err error) {
	if name != "" {
		u, err := user.Lookup(name)
		if n, bad := strconv.Atoi(name); err != nil && bad == nil {
			if u, err = user.LookupId(name); err != nil {
				u, err = &user.User{Uid: strconv.Itoa(n), Gid: "0"}, nil
			}
		}
		if err != nil {
			return 0, 0, "", fmt.Errorf("unable to look up user %q: %w", name, err)
		}
		uid, _ = strconv.Atoi(u.Uid)
		gid, _ = strconv.Atoi(u.Gid)
		home = u.HomeDir
	}
	if group != "" {
		g, err := user.LookupGroup(group)
		if n, bad := strconv.Atoi(group); err != nil && bad == nil {
			g, err = &user.Group{Gid: strconv.Itoa(n)}, nil
		}
		if err != nil {
			return 0, 0, "", fmt.Errorf("unable to look up group %q: %w", group, err)
		}
		gid, _ = strconv.Atoi(g.Gid)
	}
	return uid, gid, home, nil
}
