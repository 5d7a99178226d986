// Package worker is the worker's side of process supervision: it takes the
// configuration from the daemon, says that it is alive, and sees to it that a worker
// without a daemon is gone at once, because nobody would restart, stop or see it.
//
// A worker process calls Attach first of all. Then:
//
//	w, err := worker.Attach()     // in a process that the daemon started
//	w.Serve(worker.Hooks{...})    // answer reports, commands, log rotation
//	... connect ...
//	w.Ready()                     // it does its work now
//	<-w.Stopping()                // release what it owns, then return
//	os.Exit(w.End(err, classify)) // say why, and with which code
package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/rhythm"
	"github.com/rbdwarden/rbdwarden/supervision"
	"github.com/rbdwarden/rbdwarden/supervision/link"
	"github.com/rbdwarden/rbdwarden/supervision/process"
)

// Exit codes of a worker. Any other comes from the Go runtime (2) or is a bug.
const (
	ExitOK        = 0
	ExitPermanent = 1  // another try would fail in the same way
	ExitTransient = 75 // EX_TEMPFAIL of sysexits.h: another try may succeed
	ExitFenced    = 77 // EX_NOPERM: it was fenced; a new one gets a new identity
	ExitOrphan    = 79 // its daemon is gone
)

// Attached tells whether this process was started as a worker.
func Attached() bool { return os.Getenv(process.Marker) != "" }

// Hooks are what the daemon can ask of a worker. They are called from goroutines
// of their own, possibly several at a time. A nil hook is answered with ENOTSUP, or
// ignored.
type Hooks struct {
	// Report makes the worker's report.Worker as JSON.
	Report func(ctx context.Context) ([]byte, error)
	// Call does a command and answers for people and for programs. An error's
	// syscall.Errno becomes the code.
	Call func(ctx context.Context, r *controlv1.CallRequest) (text string, json []byte, err error)
	// Command gives a command to images. One that comes before there is this hook waits for
	// it: what the daemon told a worker counts.
	Command func(ctx context.Context, r *controlv1.CommandRequest) *controlv1.CommandReply
	// ReopenLog opens the log file again.
	ReopenLog func()
	// Alive says that the worker works, before each heartbeat. If it does not
	// return, or returns an error, there is no heartbeat; enough of that and the
	// daemon kills the worker. nil: to be scheduled is to be alive.
	Alive func() error
}

// Worker is a process's tie to its daemon.
type Worker struct {
	conn     *link.Conn
	start    *controlv1.Start
	stopping chan struct{}
	stopOnce sync.Once
	deadline atomic.Int64 // of the stop, UnixNano; 0: none yet
	hooks    atomic.Pointer[Hooks]
	ctx      context.Context
	asks     asks
}

// Attach takes up the link to the daemon and waits for the configuration. From then
// on heartbeats go out, and the process exits when the daemon is gone.
func Attach() (*Worker, error) {
	if !Attached() {
		return nil, errors.New("this process was not started by the daemon of rbd-warden")
	}
	_ = os.Unsetenv(process.Marker) // whatever we start is no worker
	process.SetName(filepath.Base(os.Args[0]))
	// Rather we than the daemon, or than whatever else runs on this host.
	_ = process.SetOOMScore(process.WorkerOOMScore) // it works without, too
	conn, err := link.Open(process.LinkFD)
	if err != nil {
		return nil, err
	}
	conn.Patient() // a daemon that is stopped is not gone, and our images need it for nothing
	m := &controlv1.ToWorker{}
	if err := conn.Receive(m); err != nil {
		return nil, fmt.Errorf("receive configuration: %w", err)
	}
	start := m.GetStart()
	if start == nil {
		return nil, errors.New("the daemon's first message was no configuration")
	}
	w := &Worker{conn: conn, start: start, stopping: make(chan struct{}), ctx: context.Background()}
	w.hooks.Store(&Hooks{})
	go w.listen()
	go w.beat(max(time.Duration(start.HeartbeatIntervalNanos), 10*time.Millisecond))
	return w, nil
}

// Config is the configuration as the daemon sent it.
func (w *Worker) Config() []byte { return w.start.ConfigJson }

// Index is this worker's number, from 0.
func (w *Worker) Index() int { return int(w.start.Index) }

// Restarts counts the workers of this number before this one.
func (w *Worker) Restarts() int { return int(w.start.Restarts) }

// LastCause is what the worker of this number before this one died of; nil for the
// first, and where the daemon's words cannot be read.
func (w *Worker) LastCause() *report.Cause {
	var c report.Cause
	if len(w.start.LastCauseJson) == 0 || json.Unmarshal(w.start.LastCauseJson, &c) != nil {
		return nil
	}
	return &c
}

// Book is what became of images and pools in the workers before this one. It is empty where
// the daemon's words cannot be read.
func (w *Worker) Book() supervision.Book {
	var b supervision.Book
	if len(w.start.BookJson) == 0 || json.Unmarshal(w.start.BookJson, &b) != nil {
		return supervision.Book{}
	}
	return b
}

// Ended tells the daemon that something in this worker has ended. When it returns, the daemon
// will hear of it whatever becomes of this process.
func (w *Worker) Ended(e supervision.End) {
	data, err := json.Marshal(e.Cause)
	if err != nil {
		panic(err) // a Cause always encodes
	}
	w.send(&controlv1.FromWorker{Message: &controlv1.FromWorker_Ended{Ended: &controlv1.Ended{
		Level: e.Level, Name: e.Name, CauseJson: data, Again: e.Again,
	}}})
}

// MemoryLimit is the limit of this worker's memory in bytes; 0: none.
func (w *Worker) MemoryLimit() int64 {
	limit, err := strconv.ParseInt(os.Getenv(process.MemoryMarker), 10, 64)
	if err != nil {
		return 0
	}
	return limit
}

// LogFile is where to write log lines if the log goes to the daemon's stderr.
func (w *Worker) LogFile() *os.File { return os.NewFile(process.LogFD, "log") }

// Serve installs the hooks; it may be called again to replace them.
func (w *Worker) Serve(h Hooks) { w.hooks.Store(&h) }

// Ready tells the daemon that the worker does its work.
func (w *Worker) Ready() {
	w.send(&controlv1.FromWorker{Message: &controlv1.FromWorker_Ready{Ready: &controlv1.Ready{}}})
}

// Stopping is closed when the worker shall stop.
func (w *Worker) Stopping() <-chan struct{} { return w.stopping }

// Stop makes Stopping known from within, for example after a SIGTERM of its own.
func (w *Worker) Stop() { w.stopOnce.Do(func() { close(w.stopping) }) }

// Deadline is when the daemon will kill a stopping worker; zero while it need not
// stop.
func (w *Worker) Deadline() time.Time {
	if n := w.deadline.Load(); n != 0 {
		return time.Unix(0, n)
	}
	return time.Time{}
}

// End tells the daemon how the worker ended and returns its exit code. classify
// gives an error's class.
func (w *Worker) End(err error, classify func(error) string) int {
	if err == nil {
		return ExitOK
	}
	class := classify(err)
	w.send(&controlv1.FromWorker{Message: &controlv1.FromWorker_Failed{
		Failed: &controlv1.Failed{Class: class, Text: err.Error()},
	}})
	switch class {
	case "transient", process.ClassEscalated:
		return ExitTransient
	case "fenced":
		return ExitFenced
	}
	return ExitPermanent
}

// send sends to the daemon. A link that cannot be written to will end for the
// listener too, so there is nothing to do about an error.
func (w *Worker) send(m *controlv1.FromWorker) { _ = w.conn.Send(m) }

// listen takes the daemon's messages. Its end is the worker's end.
func (w *Worker) listen() {
	for {
		m := &controlv1.ToWorker{}
		if err := w.conn.Receive(m); err != nil {
			os.Exit(ExitOrphan)
		}
		switch m := m.Message.(type) {
		case *controlv1.ToWorker_Stop:
			w.deadline.Store(time.Now().UnixNano() + m.Stop.DeadlineNanos)
			w.Stop()
		case *controlv1.ToWorker_ReopenLog:
			if f := w.hooks.Load().ReopenLog; f != nil {
				go f()
			}
		case *controlv1.ToWorker_Call:
			go w.call(m.Call)
		case *controlv1.ToWorker_Told:
			w.asks.told(m.Told)
		}
	}
}

func (w *Worker) beat(interval time.Duration) {
	for ; ; time.Sleep(rhythm.Within(interval)) {
		if alive := w.hooks.Load().Alive; alive != nil && alive() != nil {
			continue
		}
		w.send(&controlv1.FromWorker{Message: &controlv1.FromWorker_Heartbeat{Heartbeat: &controlv1.Heartbeat{}}})
	}
}

// call does one command and answers it, whatever happens in it.
func (w *Worker) call(c *controlv1.WorkerCall) {
	reply := &controlv1.WorkerReply{Id: c.GetId()}
	if c.GetCommand() != nil {
		reply.Command = w.command(c.GetCommand())
	} else {
		reply.Reply = w.answer(c.GetRequest())
	}
	w.send(&controlv1.FromWorker{Message: &controlv1.FromWorker_Reply{Reply: reply}})
}

// Tell tells the daemon what images did.
func (w *Worker) Tell(t *controlv1.Traces) {
	w.send(&controlv1.FromWorker{Message: &controlv1.FromWorker_Traces{Traces: t}})
}

// command does one command to images, when the worker is so far.
func (w *Worker) command(r *controlv1.CommandRequest) (reply *controlv1.CommandReply) {
	defer func() {
		if p := recover(); p != nil {
			reply = &controlv1.CommandReply{Code: int32(syscall.EFAULT), Text: fmt.Sprint("panic: ", p)}
		}
	}()
	for {
		if do := w.hooks.Load().Command; do != nil {
			return do(w.ctx, r)
		}
		select {
		case <-w.stopping:
			return &controlv1.CommandReply{Code: int32(syscall.ESHUTDOWN), Text: "the worker stops"}
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (w *Worker) answer(r *controlv1.CallRequest) (reply *controlv1.CallReply) {
	defer func() {
		// A command that a person typed must not end the replication of images.
		if p := recover(); p != nil {
			reply = &controlv1.CallReply{Code: int32(syscall.EFAULT), Text: fmt.Sprint("panic: ", p)}
		}
	}()
	h := w.hooks.Load()
	if r.GetCommand() == process.ReportCommand {
		if h.Report == nil {
			return &controlv1.CallReply{Code: int32(syscall.ENOTSUP), Text: "no report yet"}
		}
		json, err := h.Report(w.ctx)
		return result("", json, err)
	}
	if h.Call == nil {
		return &controlv1.CallReply{Code: int32(syscall.ENOTSUP), Text: "the worker takes no commands yet"}
	}
	return result(h.Call(w.ctx, r))
}

func result(text string, json []byte, err error) *controlv1.CallReply {
	if err == nil {
		return &controlv1.CallReply{Text: text, Json: json}
	}
	code := syscall.EIO
	errors.As(err, &code)
	return &controlv1.CallReply{Code: int32(code), Text: err.Error(), Json: json}
}
