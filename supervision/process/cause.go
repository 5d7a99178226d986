package process

import (
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/supervision"
)

// Classes that a worker gives to its end, beside those of errors.
const (
	ClassEscalated = "escalated" // what failed pointed at the worker itself
	ClassPanic     = "panic"     // an actor that nobody in the worker starts again has panicked
)

// ending is what is known about the end of a process.
type ending struct {
	status syscall.WaitStatus
	crash  string // from the crash on, of what it wrote to stderr; "" if it shows none
	tail   string // the last of what it wrote to stderr
	oom    string // the limit of an out-of-memory kill that happened, "" if none did
}

// explain makes a cause of an end, from what the process said, what we did to it,
// how it ended, and what it wrote.
func (m *machine) explain(e evExited) supervision.Cause {
	c := supervision.Cause{What: m.name, When: e.now}
	st := e.end.status
	switch {
	case st.Exited() && st.ExitStatus() == 0:
		c.Why, c.Text = report.WhyFinished, "it ended by itself"
		if m.killed != nil || m.final {
			c.Why, c.Text = report.WhyAsked, ""
		}
	case m.killed != nil && st.Signal() == syscall.SIGKILL:
		c.Why, c.Text, c.Signal = m.killed.Why, m.killed.Text, signalName(st.Signal())
	case m.failed != nil:
		c.Why, c.Class, c.Text = report.WhyError, m.failed.class, m.failed.text
		switch c.Class {
		case ClassEscalated:
			c.Why, c.Class = report.WhyEscalated, ""
		case ClassPanic:
			c.Why, c.Class = report.WhyPanic, ""
		}
		c.Code = st.ExitStatus()
	case st.Signal() == syscall.SIGKILL && e.end.oom != "":
		c.Why, c.Limit, c.Signal = report.WhyOOM, e.end.oom, signalName(st.Signal())
	case st.Signal() > 0: // -1 if it was none
		c.Why, c.Signal, c.Text = report.WhySignal, signalName(st.Signal()), e.end.text()
		switch {
		case isAssertion(e.end.crash):
			c.Why = report.WhyAssert
		case st.Signal() == syscall.SIGABRT && c.Text == "":
			c.Text = "C++ abort, without a word on stderr"
		}
	case goSignal(e.end.crash) != 0:
		// Go's runtime takes a signal that it has no use for, tells of it, and exits.
		c.Why, c.Signal, c.Text = report.WhySignal, signalName(goSignal(e.end.crash)), e.end.text()
	default:
		c.Why, c.Code, c.Text = report.WhyExit, st.ExitStatus(), e.end.text()
		switch {
		case isPanic(e.end.crash):
			c.Why = report.WhyPanic
		case isAssertion(e.end.crash): // in a thread of Go's: its runtime turned the abort into an exit
			c.Why = report.WhyAssert
		}
	}
	return c
}

func (e ending) text() string {
	if e.crash != "" {
		return e.crash
	}
	return lastLines(e.tail, 5)
}

// goSignal is the signal that Go's runtime says it was ended by; 0 if it says nothing of one.
// What it wrote begins with the signal's name, as in "SIGABRT: abort".
func goSignal(crash string) syscall.Signal {
	name, _, found := strings.Cut(crash, ": ")
	if !found {
		return 0
	}
	return unix.SignalNum(name)
}

func signalName(s syscall.Signal) string {
	return fmt.Sprintf("%d (%s)", int(s), s)
}

// isCrashStart tells whether a line of stderr begins the account of a crash.
func isCrashStart(line string) bool {
	return isPanic(line) || isAssertion(line) || strings.HasPrefix(line, "SIG") ||
		strings.HasPrefix(line, "*** Caught signal")
}

func isPanic(s string) bool {
	return strings.HasPrefix(s, "panic: ") || strings.HasPrefix(s, "fatal error: ") ||
		strings.HasPrefix(s, "runtime: ")
}

// isAssertion knows failed assertions of Ceph, of libc and of the C++ runtime.
func isAssertion(s string) bool {
	first, _, _ := strings.Cut(s, "\n")
	return strings.Contains(first, "FAILED ceph_assert") || strings.Contains(first, ": In function '") ||
		strings.Contains(first, "ceph_abort") || strings.Contains(first, "Assertion `") ||
		strings.HasPrefix(first, "terminate called")
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
