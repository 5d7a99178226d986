package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

// CommandError tells of a program that failed.
type CommandError struct {
	// Argv is the command line.
	Argv []string
	// Stderr is what the program said, trimmed.
	Stderr string
	// Err is the cause: an *exec.ExitError, or why the program did not start or was stopped.
	Err error
}

func (e *CommandError) Error() string {
	return fmt.Sprintf("%s: %v: %s", strings.Join(e.Argv, " "), e.Err, e.Stderr)
}

// Unwrap answers the cause.
func (e *CommandError) Unwrap() error { return e.Err }

// ExitCode is the program's exit status, or -1 where it did not exit by itself.
func (e *CommandError) ExitCode() int {
	var exit *exec.ExitError
	if errors.As(e.Err, &exit) {
		return exit.ExitCode()
	}
	return -1
}

// CLI runs one of Ceph's client programs (ceph, rbd, rados, ...) against the cluster as its administrator and answers
// its standard output. A failure is a *CommandError.
func (c *Cluster) CLI(ctx context.Context, tool string, args ...string) (string, error) {
	return c.run(ctx, append([]string{tool, "-c", c.Conf()}, args...)...)
}

// CLIInput is CLI with something to read on standard input.
func (c *Cluster) CLIInput(ctx context.Context, input io.Reader, tool string, args ...string) (string, error) {
	return c.runInput(ctx, input, append([]string{tool, "-c", c.Conf()}, args...)...)
}

// Command prepares a client program as CLI does and leaves it to the caller to start it and to use its output.
func (c *Cluster) Command(ctx context.Context, tool string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, tool, append([]string{"-c", c.Conf()}, args...)...)
	cmd.Env = c.Environ()
	return cmd
}

// run runs a program as one of the cluster's processes.
func (c *Cluster) run(ctx context.Context, argv ...string) (string, error) {
	return c.runInput(ctx, nil, argv...)
}

func (c *Cluster) runInput(ctx context.Context, input io.Reader, argv ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Environ(), input, &stdout, &stderr
	// A daemon that goes into the background may keep the pipes a moment longer than the program that we wait for.
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return stdout.String(), &CommandError{Argv: argv, Stderr: strings.TrimSpace(stderr.String()), Err: err}
	}
	return stdout.String(), nil
}
