package process

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/supervision"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func at(seconds float64) time.Time { return t0.Add(time.Duration(seconds * float64(time.Second))) }

var testRules = rules{
	name: "worker 0",
	strategy: supervision.Strategy{Min: time.Second, Max: 4 * time.Second, Factor: 2, Intensity: 3,
		Window: time.Minute, ParkedRetry: 20 * time.Second, Calm: 30 * time.Second},
	startTimeout: 10 * time.Second, stopTimeout: 5 * time.Second, heartbeatTimeout: 3 * time.Second,
	memoryLimit: 1000, asleep: 4 * time.Second,
}

// Wait statuses as the kernel writes them.
func code(n int) syscall.WaitStatus              { return syscall.WaitStatus(n << 8) }
func signal(s syscall.Signal) syscall.WaitStatus { return syscall.WaitStatus(s) }

func exited(seconds float64, st syscall.WaitStatus) evExited {
	return evExited{now: at(seconds), end: ending{status: st}}
}

// text writes effects in one line.
func text(effects []effect) string {
	var out []string
	for _, f := range effects {
		switch f := f.(type) {
		case effSpawn:
			out = append(out, "spawn")
		case effAskStop:
			out = append(out, fmt.Sprint("ask within ", f.within))
		case effKill:
			out = append(out, "kill: "+f.why)
		case effEnded:
			out = append(out, fmt.Sprint("ended: ", f.err))
		case effDied:
			next := "never"
			if !f.next.IsZero() {
				next = f.next.Sub(t0).String()
			}
			out = append(out, fmt.Sprintf("died of %s, next %s", f.cause.String(), next))
		}
	}
	return strings.Join(out, "; ")
}

func TestMachine(t *testing.T) {
	type step struct {
		event event
		want  string
		state report.WorkerState
	}
	const (
		waiting, starting, ready      = report.WorkerWaiting, report.WorkerStarting, report.WorkerReady
		stopping, stopped, parkedHere = report.WorkerStopping, report.WorkerStopped, report.WorkerParked
	)
	up := []step{
		{evTick{at(0)}, "spawn", waiting},
		{evSpawned{now: at(0), pid: 42}, "", starting},
		{evReady{at(1)}, "", ready},
	}
	for _, c := range []struct {
		name  string
		rules func(*rules)
		from  []step
		steps []step
	}{
		{"no second start while one is under way", nil, nil, []step{
			{evTick{at(0)}, "spawn", waiting}, {evTick{at(1)}, "", waiting}, {evSpawned{now: at(1), pid: 42}, "", starting},
		}},
		{"a clean stop", nil, up, []step{
			{evStop{at(2)}, "ask within 5s", stopping},
			{evStop{at(3)}, "", stopping},
			{exited(3, code(0)), "died of asked, next never; ended: <nil>", stopped},
		}},
		{"a worker that does not stop", nil, up, []step{
			{evStop{at(2)}, "ask within 5s", stopping},
			{evTick{at(5)}, "", stopping},
			{evTick{at(7.5)}, "kill: did not stop within 5s", stopping},
			{evTick{at(8)}, "", stopping},
			{exited(8, signal(syscall.SIGKILL)), "died of asked: did not stop within 5s, next never; ended: <nil>", stopped},
		}},
		{"a hurried stop", nil, up, []step{
			{evStop{at(2)}, "ask within 5s", stopping},
			{evHurry{at(3)}, "kill: it was told to stop at once", stopping},
			{exited(3, signal(syscall.SIGKILL)), "died of asked: it was told to stop at once, next never; ended: <nil>", stopped},
		}},
		{"stop without a process", nil, nil, []step{{evStop{at(0)}, "ended: <nil>", stopped}}},
		{"hurry without a process", nil, nil, []step{{evHurry{at(0)}, "ended: <nil>", stopped}}},
		{"a crash is answered by a start after a delay", nil, up, []step{
			{exited(2, code(2)), "died of exit code 2, next 2.5s", waiting},
			{evTick{at(2.4)}, "", waiting},
			{evTick{at(2.5)}, "spawn", waiting},
			{evSpawned{now: at(2.5), pid: 43}, "", starting},
		}},
		{"an end without an error is one nevertheless", nil, up, []step{
			{exited(2, code(0)), "died of finished: it ended by itself, next 2.5s", waiting},
		}},
		{"too many crashes park, and a person unparks", nil, up, []step{
			{exited(2, code(1)), "died of exit code 1, next 2.5s", waiting},
			{evTick{at(3)}, "spawn", waiting}, {evUnspawned{at(3), errors.New("no memory"), 0}, "died of spawn: no memory, next 4s", waiting},
			{evTick{at(4)}, "spawn", waiting}, {evUnspawned{at(4), errors.New("no memory"), 0}, "died of spawn: no memory, next 6s", waiting},
			{evTick{at(6)}, "spawn", waiting}, {evUnspawned{at(6), errors.New("no memory"), 0}, "died of spawn: no memory, next 16s", parkedHere},
			{evTick{at(7)}, "", parkedHere},
			{evRestart{at(8)}, "", waiting}, {evTick{at(8)}, "spawn", waiting},
		}},
		{"silence kills", nil, up, []step{
			{evHeard{at(2)}, "", ready}, {evTick{at(3)}, "", ready}, {evTick{at(5)}, "", ready},
			{evTick{at(5.5)}, "kill: silent for 3.5s", stopping},
			{exited(6, signal(syscall.SIGKILL)), "died of silent: silent for 3.5s, next 6.5s", waiting},
		}},
		{"silence while we slept proves nothing", nil, up, []step{
			{evTick{at(1)}, "", ready}, {evTick{at(60)}, "", ready}, {evTick{at(62)}, "", ready},
			{evTick{at(64)}, "kill: silent for 4s", stopping},
		}},
		{"a worker that never gets ready", nil, up[:2], []step{
			{evHeard{at(9)}, "", starting}, {evTick{at(3)}, "", starting}, {evTick{at(6)}, "", starting}, {evTick{at(9)}, "", starting},
			{evHeard{at(10)}, "", starting},
			{evTick{at(10.1)}, "kill: not ready after 10s", stopping},
			{exited(11, signal(syscall.SIGKILL)), "died of unready: not ready after 10s, next 11.5s", waiting},
		}},
		{"memory", nil, up, []step{
			{evMemory{1000}, "", ready}, {evTick{at(1)}, "", ready}, {evMemory{1001}, "", ready},
			{evTick{at(2)}, "kill: 1001 bytes resident, limit 1000", stopping},
			{exited(2, signal(syscall.SIGKILL)), "died of memory: 1001 bytes resident, limit 1000, next 2.5s", waiting},
		}},
		{"an asked restart is no death", nil, up, []step{
			{evRestart{at(2)}, "ask within 5s", stopping},
			{evRestart{at(2)}, "", stopping},
			{exited(3, code(0)), "died of asked, next 3s", waiting},
			{evTick{at(3)}, "spawn", waiting},
		}},
		{"a stop during a restart is final", nil, up, []step{
			{evRestart{at(2)}, "ask within 5s", stopping},
			{evStop{at(2)}, "", stopping},
			{exited(3, code(0)), "died of asked, next never; ended: <nil>", stopped},
		}},
		{"a first worker that another could not better", nil, up[:2], []step{
			{evFailed{"permanent", "bad key"}, "", starting},
			{exited(1, code(1)), "died of permanent error: bad key, next never; ended: worker 0: permanent error: bad key", stopped},
		}},
		{"the same after it has been ready", nil, up, []step{
			{evFailed{"permanent", "bad key"}, "", ready},
			{exited(1, code(1)), "died of permanent error: bad key, next 1.5s", waiting},
		}},
		{"a first worker whose cluster is away", nil, up[:2], []step{
			{evFailed{"transient", "no monitor"}, "", starting},
			{exited(1, code(75)), "died of transient error: no monitor, next 1.5s", waiting},
		}},
		{"the same while somebody waits", func(r *rules) { r.patience = EndOnAny }, up[:2], []step{
			{evFailed{"transient", "no monitor"}, "", starting},
			{exited(1, code(75)), "died of transient error: no monitor, next never; ended: worker 0: transient error: no monitor", stopped},
		}},
		{"what one process said is not held against the next", nil, up, []step{
			{evFailed{"transient", "x"}, "", ready},
			{exited(2, code(75)), "died of transient error: x, next 2.5s", waiting},
			{evTick{at(3)}, "spawn", waiting}, {evSpawned{now: at(3), pid: 43}, "", starting},
			{exited(4, code(3)), "died of exit code 3, next 5s", waiting},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := testRules
			if c.rules != nil {
				c.rules(&r)
			}
			m := newMachine(r, t0)
			for i, s := range append(append([]step{}, c.from...), c.steps...) {
				got := text(m.step(s.event))
				if got != s.want || m.state != s.state {
					t.Fatalf("step %d, %#v:\n got %s, %s\nwant %s, %s", i, s.event, m.state, got, s.state, s.want)
				}
			}
		})
	}
}

func TestExplain(t *testing.T) {
	assert := "/build/src/x.cc: In function 'void f()' thread 7f\n/build/src/x.cc: 12: FAILED ceph_assert(a == b)"
	for _, c := range []struct {
		name   string
		end    ending
		failed *evFailed
		want   supervision.Cause
	}{
		{"panic", ending{status: code(2), crash: "panic: boom\n\ngoroutine 1 [running]:", tail: "x"}, nil,
			supervision.Cause{Why: report.WhyPanic, Code: 2, Text: "panic: boom\n\ngoroutine 1 [running]:"}},
		{"assertion", ending{status: signal(syscall.SIGABRT | 0x80), crash: assert}, nil,
			supervision.Cause{Why: report.WhyAssert, Signal: "6 (aborted)", Text: assert}},
		{"segmentation fault", ending{status: signal(syscall.SIGSEGV), tail: "1\n2\n3\n4\n5\n6\n"}, nil,
			supervision.Cause{Why: report.WhySignal, Signal: "11 (segmentation fault)", Text: "2\n3\n4\n5\n6"}},
		{"killed by somebody", ending{status: signal(syscall.SIGKILL)}, nil,
			supervision.Cause{Why: report.WhySignal, Signal: "9 (killed)"}},
		{"killed for memory", ending{status: signal(syscall.SIGKILL), oom: "/a"}, nil,
			supervision.Cause{Why: report.WhyOOM, Signal: "9 (killed)", Limit: "/a"}},
		{"another signal during an out-of-memory kill", ending{status: signal(syscall.SIGTERM), oom: "/a"}, nil,
			supervision.Cause{Why: report.WhySignal, Signal: "15 (terminated)"}},
		{"an abort without words", ending{status: signal(syscall.SIGABRT)}, nil,
			supervision.Cause{Why: report.WhySignal, Signal: "6 (aborted)", Text: "C++ abort, without a word on stderr"}},
		{"an abort that Go's runtime took", ending{status: code(2), crash: "SIGABRT: abort\nPC=0x1 m=0 sigcode=0"}, nil,
			supervision.Cause{Why: report.WhySignal, Signal: "6 (aborted)", Text: "SIGABRT: abort\nPC=0x1 m=0 sigcode=0"}},
		{"an assertion in a thread of Go's", ending{status: code(2), crash: assert + "\nSIGABRT: abort"}, nil,
			supervision.Cause{Why: report.WhyAssert, Code: 2, Text: assert + "\nSIGABRT: abort"}},
		{"it found itself at fault", ending{status: code(75)}, &evFailed{ClassEscalated, "the connection is broken"},
			supervision.Cause{Why: report.WhyEscalated, Code: 75, Text: "the connection is broken"}},
		{"its root actor panicked", ending{status: code(1)}, &evFailed{ClassPanic, "boom"},
			supervision.Cause{Why: report.WhyPanic, Code: 1, Text: "boom"}},
		{"an error that it told", ending{status: code(77), tail: "noise"}, &evFailed{"fenced", "lost"},
			supervision.Cause{Why: report.WhyError, Class: "fenced", Code: 77, Text: "lost"}},
	} {
		m := newMachine(testRules, t0)
		m.failed = c.failed
		c.want.What, c.want.When = "worker 0", at(9)
		if got := m.explain(evExited{now: at(9), end: c.end}); got != c.want {
			t.Errorf("%s:\n got %+v\nwant %+v", c.name, got, c.want)
		}
	}
}
