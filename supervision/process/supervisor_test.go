package process_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/supervision"
	"github.com/rbdwarden/rbdwarden/supervision/memory"
	"github.com/rbdwarden/rbdwarden/supervision/process"
	"github.com/rbdwarden/rbdwarden/supervision/worker"
)

// This test binary is also the workers, and a daemon, that it tests.
func TestMain(m *testing.M) {
	switch {
	case worker.Attached():
		os.Exit(testWorker())
	case os.Getenv("TEST_DAEMON") != "":
		testDaemon()
	}
	os.Exit(m.Run())
}

// behaviour is the "configuration" of a test worker.
type behaviour struct {
	// Crashes is how many processes of this worker do Crash; later ones are well.
	Crashes int
	Crash   string
}

// testWorker is a worker that does what its configuration says.
func testWorker() int {
	w, err := worker.Attach()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 99
	}
	var b behaviour
	if err := json.Unmarshal(w.Config(), &b); err != nil {
		return 98
	}
	classify := func(error) string { return "permanent" }
	if w.Restarts() < b.Crashes {
		switch b.Crash {
		case "panic":
			panic("boom")
		case "panic when ready":
			w.Ready()
			panic("boom")
		case "exit":
			fmt.Fprintln(os.Stderr, "last words")
			os.Exit(3)
		case "kill":
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		case "fail":
			return w.End(errors.New("bad key"), classify)
		case "transient":
			return w.End(errors.New("no monitor"), func(error) string { return "transient" })
		case "freeze":
			syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		case "dead heart":
			w.Serve(worker.Hooks{Alive: func() error { return errors.New("stuck") }})
			w.Ready()
			select {}
		case "never ready":
			select {}
		case "eat":
			w.Ready()
			eaten := bytes.Repeat([]byte{1}, 256<<20)
			time.Sleep(time.Minute)
			fmt.Fprint(os.Stderr, eaten[0])
		case "deaf":
			w.Ready()
			select {}
		}
	}
	w.Serve(worker.Hooks{
		Report: func(context.Context) ([]byte, error) {
			return json.Marshal(report.Worker{Index: 77, Member: "m" + strconv.Itoa(os.Getpid()), Pools: []report.Pool{{Name: "rbd"}}})
		},
		Call: func(_ context.Context, r *controlv1.CallRequest) (string, []byte, error) {
			switch r.Command {
			case "panic":
				panic("in a command")
			case "refuse":
				return "", nil, fmt.Errorf("no image %s: %w", r.Target, syscall.ENOENT)
			case "hang":
				select {}
			case "exit":
				os.Exit(5)
			case "ask":
				ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
				defer cancel()
				told, err := w.Ask(ctx, &controlv1.Ask{What: &controlv1.Ask_Command{Command: &controlv1.CommandRequest{Words: r.Target}}})
				return told.GetCommand().GetText(), nil, err
			}
			return "did " + r.Command, []byte(`{"to":"` + r.Arguments["to"] + `"}`), nil
		},
		ReopenLog: func() { fmt.Fprintln(os.Stderr, "log is open again") },
	})
	w.Ready()
	<-w.Stopping()
	if left := time.Until(w.Deadline()); left <= 0 || left > time.Minute {
		fmt.Fprintln(os.Stderr, "deadline in", left)
		return 97
	}
	return w.End(nil, classify)
}

func spec(b behaviour) process.Spec {
	config, err := json.Marshal(b)
	if err != nil {
		panic(err)
	}
	return process.Spec{
		Path: "/proc/self/exe", Args: []string{"rbd-mirror", "worker", "0"}, Config: config,
		Strategy: supervision.Strategy{Min: 20 * time.Millisecond, Max: 200 * time.Millisecond, Factor: 2, Intensity: 5,
			Window: time.Minute, ParkedRetry: time.Hour, Calm: time.Minute},
		StartTimeout: 20 * time.Second, StopTimeout: 20 * time.Second,
		HeartbeatInterval: 50 * time.Millisecond, HeartbeatTimeout: 20 * time.Second,
	}
}

// running is a Supervisor under test.
type running struct {
	*process.Supervisor
	t    *testing.T
	log  *lockedBuffer
	done chan error
}

func supervise(t *testing.T, s process.Spec) *running {
	t.Helper()
	log := &lockedBuffer{}
	r := &running{Supervisor: process.New(s, zerolog.New(log)), t: t, log: log, done: make(chan error, 1)}
	go func() { r.done <- r.Run(context.Background()) }()
	t.Cleanup(func() {
		r.Hurry()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	return r
}

// until waits until the report satisfies want.
func (r *running) until(what string, want func(report.Worker) bool) report.Worker {
	r.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		w := r.Report(ctx)
		cancel()
		if want(w) {
			return w
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("never %s: %+v, last cause %v", what, w, w.LastCause)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// ended waits for the end of supervision.
func (r *running) ended() error {
	r.t.Helper()
	select {
	case err := <-r.done:
		r.done <- err
		return err
	case <-time.After(20 * time.Second):
		r.t.Fatal("supervision does not end")
		return nil
	}
}

func isReady(w report.Worker) bool { return w.State == report.WorkerReady }

func TestReadyReportCallStop(t *testing.T) {
	r := supervise(t, spec(behaviour{}))
	w := r.until("ready with a report", func(w report.Worker) bool { return isReady(w) && w.Member != "" })
	if w.Member != "m"+strconv.Itoa(w.PID) || w.Index != 0 || len(w.Pools) != 1 || w.LastTold.IsZero() || w.LastHeard.IsZero() {
		t.Errorf("report %+v", w)
	}
	<-r.Ready()
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", w.PID))
	if err != nil || string(comm) != "rbd-mirror\n" {
		t.Errorf("ps shows %q, %v", comm, err)
	}
	score, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", w.PID))
	if err != nil || strings.TrimSpace(string(score)) != strconv.Itoa(process.WorkerOOMScore) {
		t.Errorf("out-of-memory score %q, %v", score, err)
	}

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, c := range []struct {
		command string
		code    int32
		text    string
	}{
		{"image move", 0, "did image move"},
		{"refuse", int32(syscall.ENOENT), "no image rbd/x: no such file or directory"},
		{"panic", int32(syscall.EFAULT), "panic: in a command"},
	} {
		reply, err := r.Call(ctx, &controlv1.CallRequest{Command: c.command, Target: "rbd/x", Arguments: map[string]string{"to": "b"}})
		if err != nil || reply.Code != c.code || reply.Text != c.text {
			t.Errorf("%s: %v, %v", c.command, reply, err)
		}
		if c.code == 0 && string(reply.GetJson()) != `{"to":"b"}` {
			t.Errorf("%s: %s", c.command, reply.GetJson())
		}
	}
	short, cancelShort := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancelShort()
	if _, err := r.Call(short, &controlv1.CallRequest{Command: "hang"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a command that hangs: %v", err)
	}
	r.ReopenLog()
	r.log.waitFor(t, "log is open again")

	r.Stop()
	if err := r.ended(); err != nil {
		t.Error(err)
	}
	w = r.until("stopped", func(w report.Worker) bool { return w.State == report.WorkerStopped })
	if w.LastCause != nil || w.PID != 0 || w.Restarts != 0 {
		t.Errorf("a clean stop left %+v", w)
	}
	if _, err := r.Call(ctx, &controlv1.CallRequest{Command: "x"}); !errors.Is(err, syscall.EHOSTDOWN) {
		t.Errorf("a command without a worker: %v", err)
	}
}

// TestAWorkerAsksItsDaemon: it gets what it asked for, whatever other asks come to.
func TestAWorkerAsksItsDaemon(t *testing.T) {
	sp := spec(behaviour{})
	hang := make(chan struct{})
	defer close(hang)
	sp.Asked = func(ctx context.Context, ask *controlv1.Ask) *controlv1.Told {
		switch words := ask.GetCommand().GetWords(); words {
		case "panic":
			panic("of an answer")
		case "hang":
			<-hang
		case "refuse":
			return &controlv1.Told{Error: "no"}
		default:
			if d, ok := ctx.Deadline(); !ok || time.Until(d) > 200*time.Millisecond {
				t.Errorf("the deadline is %v, %v", d, ok)
			}
			return &controlv1.Told{What: &controlv1.Told_Command{Command: &controlv1.CommandReply{Text: "re: " + words}}}
		}
		return &controlv1.Told{}
	}
	r := supervise(t, sp)
	r.until("ready", isReady)
	ask := func(words string) string {
		reply, err := r.Call(t.Context(), &controlv1.CallRequest{Command: "ask", Target: words})
		if err != nil {
			return err.Error()
		}
		return reply.GetText()
	}
	for range 2 {
		for words, want := range map[string]string{
			"x": "re: x", "refuse": "no", "panic": "panic: of an answer", "hang": "the daemon did not answer: context deadline exceeded",
		} {
			if got := ask(words); got != want {
				t.Errorf("%s: %q", words, got)
			}
		}
	}
	for range 20 { // those that hang are bounded, and told so
		go ask("hang")
	}
	for deadline := time.Now().Add(10 * time.Second); ask("x") != "the daemon has too much to answer"; {
		if time.Now().After(deadline) {
			t.Fatal("asks are not bounded")
		}
	}
}

func TestDeathsAreAnsweredAndExplained(t *testing.T) {
	for _, c := range []struct {
		crash  string
		change func(*process.Spec)
		why    report.Why
		text   string
	}{
		{"panic", nil, report.WhyPanic, "panic: boom"},
		{"panic when ready", nil, report.WhyPanic, "panic: boom"},
		{"exit", nil, report.WhyExit, "last words"},
		{"kill", nil, report.WhySignal, ""},
		{"transient", nil, report.WhyError, "no monitor"},
		{"freeze", func(s *process.Spec) { s.HeartbeatTimeout = 500 * time.Millisecond }, report.WhySilent, "silent for"},
		{"dead heart", func(s *process.Spec) { s.HeartbeatTimeout = 500 * time.Millisecond }, report.WhySilent, "silent for"},
		{"never ready", func(s *process.Spec) { s.StartTimeout = 500 * time.Millisecond }, report.WhyUnready, "not ready after"},
		{"eat", func(s *process.Spec) { s.MemoryLimit = 200 << 20 }, report.WhyMemory, "limit 209715200"},
	} {
		t.Run(c.crash, func(t *testing.T) {
			s := spec(behaviour{Crashes: 2, Crash: c.crash})
			if c.change != nil {
				c.change(&s)
			}
			r := supervise(t, s)
			w := r.until("ready again", func(w report.Worker) bool { return isReady(w) && w.Restarts == 2 })
			if w.LastCause == nil || w.LastCause.Why != c.why || !strings.Contains(w.LastCause.Text, c.text) || w.LastCause.What != "worker 0" {
				t.Errorf("cause %+v, want %s with %q", w.LastCause, c.why, c.text)
			}
			if time.Since(w.LastCause.When) > time.Minute {
				t.Errorf("it died at %v", w.LastCause.When)
			}
		})
	}
}

// A worker that passes the limit of its own memory group is killed by the kernel, and
// the cause says so; a kill -9 of a worker in such a group is none. The daemon is not
// in the group.
func TestOOMKillsAreToldFromOthers(t *testing.T) {
	root, err := memory.Open()
	if err != nil {
		t.Skip(err)
	}
	defer root.Close()
	for crash, want := range map[string]string{
		"eat":  "OOM kill by the limit of its own memory group (167772160 bytes)",
		"kill": "signal: 9 (killed)",
	} {
		s := spec(behaviour{Crashes: 2, Crash: crash})
		s.Groups, s.MemoryLimit = root, 160<<20
		r := supervise(t, s)
		w := r.until("ready again", func(w report.Worker) bool { return isReady(w) && w.Restarts == 2 })
		if got := w.LastCause.String(); got != want {
			t.Errorf("%s: cause %q, want %q", crash, got, want)
		}
		if w.Memory.Group == "" || w.Memory.Limit != 160<<20 || w.Memory.Peak == 0 || w.Memory.Peak > 160<<20 {
			t.Errorf("%s: memory %+v", crash, w.Memory)
		}
		procs, err := os.ReadFile(filepath.Join(w.Memory.Group, "cgroup.procs"))
		if err != nil || strings.TrimSpace(string(procs)) != strconv.Itoa(w.PID) {
			t.Errorf("%s: processes %q in the group of worker %d, %v", crash, procs, w.PID, err)
		}
		r.Stop()
		if err := r.ended(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(w.Memory.Group); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the group is left behind: %v", crash, err)
		}
	}
}

func TestTooManyDeathsPark(t *testing.T) {
	r := supervise(t, spec(behaviour{Crashes: 6, Crash: "exit"}))
	w := r.until("parked", func(w report.Worker) bool { return w.State == report.WorkerParked })
	if w.Restarts != 5 || time.Until(w.NextStart) < 20*time.Minute {
		t.Errorf("%d restarts, next start %v", w.Restarts, w.NextStart)
	}
	if _, err := r.Call(context.Background(), &controlv1.CallRequest{Command: "x"}); !errors.Is(err, syscall.EHOSTDOWN) {
		t.Errorf("a command to a parked worker: %v", err)
	}
	r.Restart()
	r.until("ready after a person asked", isReady)
}

func TestRestartByAPerson(t *testing.T) {
	r := supervise(t, spec(behaviour{}))
	first := r.until("ready", isReady)
	r.Restart()
	w := r.until("ready anew", func(w report.Worker) bool { return isReady(w) && w.PID != first.PID })
	if w.Restarts != 1 || w.LastCause.Why != report.WhyAsked {
		t.Errorf("%d restarts, cause %v", w.Restarts, w.LastCause)
	}
}

func TestFirstFailures(t *testing.T) {
	r := supervise(t, spec(behaviour{Crashes: 9, Crash: "fail"}))
	var failed *process.StartError
	if err := r.ended(); !errors.As(err, &failed) || failed.Cause.Class != "permanent" || failed.Cause.Code != worker.ExitPermanent {
		t.Errorf("got %v", err)
	}

	s := spec(behaviour{Crashes: 9, Crash: "transient"})
	s.Patience = process.EndOnAny
	r = supervise(t, s)
	if err := r.ended(); !errors.As(err, &failed) || failed.Cause.Code != worker.ExitTransient {
		t.Errorf("got %v", err)
	}

	s = spec(behaviour{})
	s.Path = "/nonexistent"
	s.Patience = process.EndOnAny
	if err := supervise(t, s).ended(); !errors.As(err, &failed) || failed.Cause.Why != report.WhySpawn {
		t.Errorf("got %v", err)
	}
}

func TestAWorkerThatDoesNotStopIsKilled(t *testing.T) {
	s := spec(behaviour{Crashes: 1, Crash: "deaf"})
	s.StopTimeout = 200 * time.Millisecond
	r := supervise(t, s)
	w := r.until("ready", isReady)
	begin := time.Now()
	r.Stop()
	if err := r.ended(); err != nil {
		t.Error(err)
	}
	if d := time.Since(begin); d < s.StopTimeout || d > 10*time.Second {
		t.Errorf("it took %v", d)
	}
	gone(t, w.PID)

	s.StopTimeout = time.Hour
	r = supervise(t, s)
	w = r.until("ready", isReady)
	r.Stop()
	r.Hurry()
	if err := r.ended(); err != nil {
		t.Error(err)
	}
	gone(t, w.PID)
}

func TestCallFailsWhenTheWorkerDies(t *testing.T) {
	r := supervise(t, spec(behaviour{}))
	r.until("ready", isReady)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	reply, err := r.Call(ctx, &controlv1.CallRequest{Command: "exit"})
	if err != nil || reply.Code != int32(syscall.ECONNRESET) {
		t.Errorf("got %v, %v", reply, err)
	}
	r.until("ready again", func(w report.Worker) bool { return isReady(w) && w.Restarts == 1 })
}

// testDaemon supervises a worker, tells its report and waits to be killed.
func testDaemon() {
	b, deaths := behaviour{}, 0
	switch os.Getenv("TEST_DAEMON") {
	case "deaf":
		b = behaviour{Crashes: 1, Crash: "deaf"}
	case "starved":
		procs := filepath.Join(os.Getenv("TEST_CGROUP"), "cgroup.procs")
		if err := os.WriteFile(procs, []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		b, deaths = behaviour{Crashes: 1, Crash: "eat"}, 1
	}
	s := process.New(spec(b), zerolog.Nop())
	go s.Run(context.Background())
	for {
		if w := s.Report(context.Background()); isReady(w) && w.Restarts >= deaths {
			json.NewEncoder(os.Stdout).Encode(w)
			select {}
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// startDaemon starts a testDaemon and waits for its report.
func startDaemon(t *testing.T, env ...string) (*exec.Cmd, report.Worker) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	late := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
	defer late.Stop()
	line, err := bufio.NewReader(out).ReadString('\n')
	var w report.Worker
	if err := errors.Join(err, json.Unmarshal([]byte(line), &w)); err != nil {
		t.Fatalf("the daemon told %q: %v", line, err)
	}
	return cmd, w
}

// memoryCgroup makes a cgroup with a limit, where that is possible.
func memoryCgroup(t *testing.T, limit int) string {
	t.Helper()
	name := "rbd-warden-test-" + strconv.Itoa(os.Getpid())
	for _, c := range [][2]string{{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"}, {"/sys/fs/cgroup", "memory.max"}} {
		dir := filepath.Join(c[0], name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			continue
		}
		t.Cleanup(func() {
			for range 100 { // until the last process has left
				if os.Remove(dir) == nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
			t.Error("cannot remove", dir)
		})
		if err := os.WriteFile(filepath.Join(dir, c[1]), []byte(strconv.Itoa(limit)), 0); err == nil {
			return dir
		}
	}
	t.Skip("no cgroup with a memory limit can be made here")
	return ""
}

// The kernel takes the worker and not the daemon, which knows what happened.
func TestOutOfMemory(t *testing.T) {
	dir := memoryCgroup(t, 150<<20)
	_, w := startDaemon(t, "TEST_DAEMON=starved", "TEST_CGROUP="+dir)
	if w.LastCause == nil || w.LastCause.Why != report.WhyOOM || w.LastCause.Limit != dir || w.Restarts != 1 {
		t.Errorf("%d restarts, cause %+v", w.Restarts, w.LastCause)
	}
}

// A worker whose daemon is gone would be restarted, stopped and seen by nobody.
func TestAWorkerDiesWithItsDaemon(t *testing.T) {
	for _, kind := range []string{"well", "deaf"} {
		cmd, w := startDaemon(t, "TEST_DAEMON="+kind)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		gone(t, w.PID)
		if d := time.Since(begin); d > time.Second {
			t.Errorf("%s: the worker outlived its daemon by %v", kind, d)
		}
	}
}

// gone waits until a process is gone or a zombie that somebody else has to reap.
func gone(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d lives: %s", pid, stat)
		}
	}
}

// lockedBuffer is a log that can be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lockedBuffer) waitFor(t *testing.T, s string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(l.String(), s); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the log never says %q", s)
		}
	}
}
