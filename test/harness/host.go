package harness

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// Host is a host of its own, as far as programs that are started on it can tell: it has a name and a boot id of its own,
// and if NewRemoteHost made it a network. Processes and files are this machine's. So who runs on it cannot see at once that a
// process of another host is gone, and has to find out as it would elsewhere.
type Host struct {
	Name string
	// Environ is added to the environment of daemons that are started there.
	Environ []string

	do chan func()
}

// NewHost makes a host, until the test ends. Only root may; the test fails for others, for to leave it out would be to
// say nothing.
func NewHost(t testing.TB, name string) *Host {
	t.Helper()
	return newHost(t, name, 0)
}

func newHost(t testing.TB, name string, more int) *Host {
	t.Helper()
	h := &Host{Name: name, do: make(chan func())}
	boot := filepath.Join(t.TempDir(), "boot_id")
	if err := os.WriteFile(boot, []byte(bootID()+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	made := make(chan error)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and with it the namespaces.
		runtime.LockOSThread()
		made <- leaveMachine(name, boot, more)
		for do := range h.do {
			do()
		}
	}()
	t.Cleanup(func() { close(h.do) })
	if err := <-made; err != nil {
		t.Fatalf("cannot make a host of its own, which takes root (CAP_SYS_ADMIN): %v", err)
	}
	return h
}

// leaveMachine gives the calling thread namespaces of its own.
func leaveMachine(name, boot string, more int) error {
	if err := unix.Unshare(unix.CLONE_NEWUTS | unix.CLONE_NEWNS | more); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	return unix.Mount(boot, "/proc/sys/kernel/random/boot_id", "", unix.MS_BIND, "")
}

// run does something on the host: what is started then belongs to it.
func (h *Host) run(do func() error) error {
	if h == nil {
		return do()
	}
	done := make(chan error)
	h.do <- func() { done <- do() }
	return <-done
}

// bootID is a kernel's boot id as no other kernel has it.
func bootID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:])
}
