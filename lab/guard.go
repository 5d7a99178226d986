package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
)

// guard is the near end of a process that stops a cluster when this process dies.
type guard struct {
	lifeline io.WriteCloser
	process  *exec.Cmd
}

// startGuard starts this program anew with the arguments and the directory behind them. The guard lives in a session
// of its own, so that a terminal's Ctrl-C or a kill of our process group does not take it along.
func startGuard(args []string, dir string) (*guard, error) {
	cmd := exec.Command("/proc/self/exe", append(append([]string{}, args...), dir)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	lifeline, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	return &guard{lifeline: lifeline, process: cmd}, nil
}

// dismiss lets the guard go; it finds the directory gone and ends.
func (g *guard) dismiss() {
	g.lifeline.Close()
	_ = g.process.Wait() // it is our child: without this it stays a zombie
}

// Guard waits until standard input ends, which it does when the process at its other end dies, and then stops the
// cluster in dir if it is still there. It is what a program calls when it is started with Options.Guard's arguments.
func Guard(dir string) error {
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	c, err := Open(dir)
	if err != nil {
		return err
	}
	return c.Stop()
}
