package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Starve ends all TCP connections of a process, as if every peer had reset them, and lets it open no files and sockets any
// more: of all that it was connected to it can reach nothing again.
func Starve(t testing.TB, pid int) {
	t.Helper()
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: 3}, nil); err != nil {
		t.Fatal(err)
	}
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(process) }()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	ended := 0
	for _, link := range links {
		n, err := strconv.Atoi(filepath.Base(link))
		target, gone := os.Readlink(link)
		if err != nil || gone != nil || !strings.HasPrefix(target, "socket:") {
			continue
		}
		// Its descriptor, and so its connection, not a copy of it.
		fd, err := unix.PidfdGetfd(process, n, 0)
		if err != nil {
			continue // closed meanwhile
		}
		if peer, err := unix.Getpeername(fd); err == nil {
			if _, tcp := peer.(*unix.SockaddrInet4); tcp && unix.Shutdown(fd, unix.SHUT_RDWR) == nil {
				ended++
			}
		}
		_ = unix.Close(fd)
	}
	if ended == 0 {
		t.Fatalf("process %d has no connections", pid)
	}
	t.Logf("ended %d connections of process %d", ended, pid)
}
