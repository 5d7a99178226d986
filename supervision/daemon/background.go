// Package daemon has what makes a process a Unix daemon: the way into the
// background, the pid file, the change of user, and systemd's readiness protocol.
package daemon

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
)

// readyFD is the descriptor over which a process in the background says that it is
// ready. marker in its environment says that it has one.
const (
	readyFD = 3
	marker  = "RBD_WARDEN_BACKGROUND"
)

// ExitError says that the process that was to go to the background ended instead.
// What it had to say is on stderr already.
type ExitError struct{ Code int }

func (e *ExitError) Error() string { return fmt.Sprintf("exit code %d", e.Code) }

// Background starts this program again in the background, in a session of its own,
// with the same arguments, and waits until it says that it is ready (nil) or ends (an
// *ExitError). As long as it waits, the child's stdout and stderr are ours. A signal
// that would end us is passed on to the child.
//
// A Go program cannot fork, hence the second start of the program file. It is the
// same file even if a package upgrade has replaced it meanwhile.
func Background(args []string) error {
	ready, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	out, in, err := os.Pipe()
	if err != nil {
		theirs.Close()
		return err
	}
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: args, Env: append(os.Environ(), marker+"=1"),
		Stdin: os.Stdin, Stdout: in, Stderr: in,
		ExtraFiles:  []*os.File{theirs},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	err = cmd.Start()
	in.Close()
	theirs.Close()
	if err != nil {
		out.Close()
		return fmt.Errorf("start in the background: %w", err)
	}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_, _ = io.Copy(os.Stderr, out) // until the child has let go of stderr
	}()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s) // it may have ended
		}
	}()

	line, _ := bufio.NewReader(ready).ReadString('\n')
	if strings.TrimSpace(line) == "ready" {
		<-copied
		return cmd.Process.Release()
	}
	err = cmd.Wait()
	<-copied
	var exit *exec.ExitError
	switch {
	case err == nil: // it was asked to stop before it was ready
		return &ExitError{0}
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return &ExitError{exit.ExitCode()}
	case errors.As(err, &exit):
		fmt.Fprintln(os.Stderr, "ended in the background:", exit)
		return &ExitError{1}
	}
	return err
}

// InBackground tells whether Background started this process.
func InBackground() bool { return os.Getenv(marker) != "" }

// Detach lets go of the process that started this one in the background: stdin,
// stdout and stderr become /dev/null, and Background returns there.
func Detach() error {
	if !InBackground() {
		return nil
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for fd := range 3 {
		if err := syscall.Dup3(int(null.Fd()), fd, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	if err := os.Unsetenv(marker); err != nil {
		return err
	}
	ready := os.NewFile(readyFD, "ready")
	defer ready.Close()
	if _, err := ready.WriteString("ready\n"); err != nil && !errors.Is(err, syscall.EPIPE) {
		return err
	}
	return nil
}
