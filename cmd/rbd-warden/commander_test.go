package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/config"
	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/report"
)

// fakeWorker is a worker of pretenders, which may be dead or silent.
type fakeWorker struct {
	mu     sync.Mutex
	images *pretenders
	state  report.WorkerState
	silent bool
	told   []*controlv1.CommandRequest
	onTold func()
}

func (w *fakeWorker) View() report.Worker {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := report.Worker{State: w.state}
	if w.state == report.WorkerReady {
		v.PID = 1
	}
	return v
}

func (w *fakeWorker) Command(ctx context.Context, r *controlv1.CommandRequest) (*controlv1.CommandReply, error) {
	w.mu.Lock()
	w.told = append(w.told, r)
	onTold, state, silent := w.onTold, w.state, w.silent
	w.mu.Unlock()
	if onTold != nil {
		onTold()
	}
	switch {
	case state != report.WorkerReady:
		return nil, fmt.Errorf("the worker does not run: %w", syscall.EHOSTDOWN)
	case silent:
		<-ctx.Done()
		return nil, fmt.Errorf("no answer: %w", ctx.Err())
	}
	return w.images.squad().Do(ctx, r), nil
}

// fleet is a daemon of fake workers.
type fleet struct {
	commander
	workers []*fakeWorker
	mu      sync.Mutex
	halts   config.Halts
}

func newFleet(workers ...*fakeWorker) *fleet {
	f := &fleet{workers: workers}
	for _, w := range workers {
		f.crew = append(f.crew, w)
	}
	f.report = func(context.Context) report.Daemon {
		d := report.Daemon{}
		for _, w := range f.workers {
			v := w.View()
			v.Pools = w.images.pools() // those of a dead one: as told last
			d.Workers = append(d.Workers, v)
		}
		return d
	}
	f.note = func(wish config.Halt) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.halts = f.halts.With(wish)
	}
	return f
}

func ready(images ...report.Image) *fakeWorker {
	return &fakeWorker{state: report.WorkerReady, images: newPretenders(nil, images...)}
}

func (f *fleet) do(verb controlv1.Verb, image string, timeout time.Duration) *controlv1.CommandReply {
	return f.Do(context.Background(), &controlv1.CommandRequest{
		Verb: verb, Target: &controlv1.Target{Pool: "rbd", Image: image}, Words: "stopped by root", TimeoutNanos: timeout.Nanoseconds(),
	})
}

// texts are a reply in one line.
func texts(r *controlv1.CommandReply) string {
	parts := []string{}
	if r.Text != "" {
		parts = append(parts, fmt.Sprintf("%d %s", r.Code, r.Text))
	}
	for _, o := range r.Outcomes {
		parts = append(parts, fmt.Sprintf("%s@%d %d %s", o.Image, o.Worker, o.Code, o.Text))
	}
	return strings.Join(parts, " | ")
}

// Every command is answered by who runs the image, and again in the same way when it is
// given again; the other worker notes it.
func TestCommandsReachWhoRunsTheImage(t *testing.T) {
	one, two := ready(report.Image{GlobalID: "ga", Name: "a"}), ready(report.Image{GlobalID: "gb", Name: "b"})
	f := newFleet(one, two)
	for _, c := range []struct {
		verb  controlv1.Verb
		image string
		want  string
	}{
		{controlv1.Verb_VERB_STOP, "b", "rbd/b@1 0 was replaying, stopped"},
		{controlv1.Verb_VERB_STOP, "gb", "rbd/b@1 0 is stopped already"},
		{controlv1.Verb_VERB_START, "b", "rbd/b@1 0 was stopped, replaying"},
		{controlv1.Verb_VERB_START, "b", "rbd/b@1 0 is replaying already"},
		{controlv1.Verb_VERB_PAUSE, "b", "rbd/b@1 0 was replaying, paused"},
		{controlv1.Verb_VERB_PAUSE, "b", "rbd/b@1 0 is paused already"},
		{controlv1.Verb_VERB_FLUSH, "b", "rbd/b@1 0 paused, flushed"},
		{controlv1.Verb_VERB_RESUME, "b", "rbd/b@1 0 was paused, replaying"},
		{controlv1.Verb_VERB_RESTART, "b", "rbd/b@1 0 was replaying, replaying"},
		{controlv1.Verb_VERB_STOP, "", "rbd/a@0 0 was replaying, stopped | rbd/b@1 0 was replaying, stopped"},
		{controlv1.Verb_VERB_START, "a", "rbd/a@0 0 was stopped, replaying"},
	} {
		if got := texts(f.do(c.verb, c.image, 5*time.Second)); got != c.want {
			t.Errorf("%v %s: %s, want %s", c.verb, c.image, got, c.want)
		}
	}
	for i, w := range f.workers {
		if fmt.Sprint(w.images.halts) != fmt.Sprint(f.halts) || len(f.halts) != 2 {
			t.Errorf("worker %d goes by %v, new ones will by %v", i, w.images.halts, f.halts)
		}
	}
}

// What cannot be done is refused, and changes nothing.
func TestCommandsAreRefused(t *testing.T) {
	f := newFleet(ready(report.Image{GlobalID: "ga", Name: "vm-1"}, report.Image{GlobalID: "gb", Name: "vm-2"}, report.Image{GlobalID: "vm-2", Name: "c"}), ready())
	for _, c := range []struct {
		verb        controlv1.Verb
		pool, image string
		code        syscall.Errno
		want        string
	}{
		{controlv1.Verb_VERB_STOP, "rbd", "vm-17", syscall.ENOENT, "no image rbd/vm-17 is mirrored by this daemon, which knows of vm-1, vm-2, c there"},
		{controlv1.Verb_VERB_STOP, "none", "vm-1", syscall.ENOENT, "pool none is not mirrored by this daemon, which knows of rbd"},
		{controlv1.Verb_VERB_STOP, "rbd", "vm-2", syscall.ENOTUNIQ, "rbd/vm-2 is ambiguous: images gb and vm-2; name it by its global id"},
		{controlv1.Verb_VERB_UNSPECIFIED, "rbd", "vm-1", syscall.EINVAL, "there is no such command: VERB_UNSPECIFIED"},
	} {
		r := f.Do(t.Context(), &controlv1.CommandRequest{Verb: c.verb, Target: &controlv1.Target{Pool: c.pool, Image: c.image}})
		if syscall.Errno(r.Code) != c.code || r.Text != c.want {
			t.Errorf("%v %s/%s: %s", c.verb, c.pool, c.image, texts(r))
		}
	}
	if len(f.halts) > 0 || len(f.workers[0].told) > 0 {
		t.Errorf("refused, and noted %v, told %v", f.halts, f.workers[0].told)
	}
	f.do(controlv1.Verb_VERB_STOP, "vm-1", time.Second)
	if r := f.do(controlv1.Verb_VERB_PAUSE, "vm-1", time.Second); syscall.Errno(r.Code) != syscall.EBUSY || f.halts.Of("rbd", "", "ga").Pause {
		t.Errorf("a stopped image was paused: %s, %v", texts(r), f.halts)
	}
}

// A worker that does not answer is named; other workers' images obey. What it was not
// told is noted before anybody is told.
func TestASilentWorkerHoldsUpNobody(t *testing.T) {
	silent, well := ready(report.Image{GlobalID: "ga", Name: "a"}), ready(report.Image{GlobalID: "gb", Name: "b"})
	silent.silent = true
	f := newFleet(silent, well)
	noted := -1
	well.onTold = func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		noted = len(f.halts)
	}
	r := f.do(controlv1.Verb_VERB_STOP, "", 100*time.Millisecond)
	if want := "rbd/a@0 110 worker 0 does not answer; the stop is noted: whoever runs it next leaves it alone | rbd/b@1 0 was replaying, stopped"; texts(r) != want {
		t.Errorf("%s, want %s", texts(r), want)
	}
	if noted != 1 {
		t.Errorf("a worker was told when %d wishes were noted", noted)
	}
}

// A worker that dies is waited for; one that stays dead is no obstacle to a stop's being
// noted.
func TestCommandsWaitForTheNextWorker(t *testing.T) {
	w := ready(report.Image{GlobalID: "ga", Name: "a"})
	w.state = report.WorkerWaiting
	w.onTold = func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.told) == 3 {
			w.state = report.WorkerReady
		}
	}
	f := newFleet(w)
	if got := texts(f.do(controlv1.Verb_VERB_STOP, "a", 10*time.Second)); got != "rbd/a@0 0 was replaying, stopped" {
		t.Error(got)
	}
	w.mu.Lock()
	w.state, w.onTold = report.WorkerParked, nil
	w.mu.Unlock()
	if got := texts(f.do(controlv1.Verb_VERB_START, "a", 300*time.Millisecond)); !strings.Contains(got, "rbd/a@0 112 the worker does not run") || !strings.Contains(got, "it is noted") {
		t.Error(got)
	}
}

// What an image does not do in time is said, with what it waits for.
func TestNotYet(t *testing.T) {
	w := ready(report.Image{GlobalID: "ga", Name: "a"})
	w.images.slow = "ga"
	f := newFleet(w)
	began := time.Now()
	for verb, want := range map[controlv1.Verb]string{
		controlv1.Verb_VERB_STOP:    "rbd/a@0 11 was replaying, not stopped yet: replaying",
		controlv1.Verb_VERB_RESTART: "rbd/a@0 11 was replaying, not replaying yet: replaying",
		controlv1.Verb_VERB_FLUSH:   "rbd/a@0 11 not flushed in time; it goes on by itself",
	} {
		if got := texts(f.do(verb, "a", 500*time.Millisecond)); got != want {
			t.Errorf("%v: %s, want %s", verb, got, want)
		}
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("waited %v", took)
	}
}

// An image is at its goal only when it says so itself, after the command.
func TestJudge(t *testing.T) {
	began := time.Now()
	before, after := began.Add(-time.Minute), began.Add(time.Second)
	replaying := report.Image{State: "replaying", Step: "REPLAYING", Settled: before}
	primary := report.Image{State: "stopped", Step: stoppedStep, Description: "local image is primary", Settled: before}
	failed := report.Image{State: "error", Step: stoppedStep, Description: "split-brain", Settled: before}
	at := func(i report.Image, settled time.Time) report.Image { i.Settled = settled; return i }
	stopped := func(i report.Image) report.Image { i.Stopped = true; return i }
	paused := func(i report.Image) report.Image { i.Paused = true; return i }
	for _, c := range []struct {
		verb     controlv1.Verb
		was, is  report.Image
		settled  bool
		code     syscall.Errno
		contains string
	}{
		{controlv1.Verb_VERB_STOP, replaying, stopped(report.Image{State: "stopping_replay", Step: "STOPPING"}), false, syscall.EAGAIN, "not stopped yet"},
		{controlv1.Verb_VERB_STOP, primary, primary, false, syscall.EAGAIN, "not stopped yet"}, // it does not know of it
		{controlv1.Verb_VERB_STOP, primary, stopped(primary), true, 0, "was stopped, stopped"},
		{controlv1.Verb_VERB_RESTART, replaying, replaying, false, syscall.EAGAIN, "not replaying yet"}, // still the old replay
		{controlv1.Verb_VERB_RESTART, replaying, at(replaying, after), true, 0, "was replaying, replaying"},
		{controlv1.Verb_VERB_RESTART, replaying, at(failed, after), true, syscall.EAGAIN, "does not replay: split-brain"},
		{controlv1.Verb_VERB_START, stopped(primary), stopped(primary), false, syscall.EAGAIN, "not replaying yet"},
		{controlv1.Verb_VERB_START, stopped(primary), at(primary, after), true, 0, "has nothing to replay: local image is primary"},
		{controlv1.Verb_VERB_START, failed, failed, false, syscall.EAGAIN, "not replaying yet"},
		{controlv1.Verb_VERB_PAUSE, replaying, paused(replaying), false, syscall.EAGAIN, "not paused yet"},
		{controlv1.Verb_VERB_PAUSE, primary, paused(primary), true, 0, "holds no lock"},
		{controlv1.Verb_VERB_START, replaying, report.Image{State: "error", Description: "peer away"}, false, syscall.EAGAIN, "not run at the moment"},
		{controlv1.Verb_VERB_STOP, replaying, report.Image{State: "error", Description: "peer away"}, true, 0, "the stop is noted"},
	} {
		v := judge(c.verb, c.was, c.is, true, began)
		if v.settled != c.settled || v.code != c.code || !strings.Contains(v.text, c.contains) {
			t.Errorf("%v of %+v, now %+v: %+v", c.verb, c.was, c.is, v)
		}
	}
}

// Many images are one line for each kind of answer, and those that did not obey.
func TestManyAnswers(t *testing.T) {
	r := &controlv1.CommandReply{}
	for i := range 30 {
		r.Outcomes = append(r.Outcomes, &controlv1.Outcome{Image: fmt.Sprint("rbd/", i), Text: "was replaying, stopped"})
	}
	r.Outcomes[7].Code, r.Outcomes[7].Text = int32(syscall.EAGAIN), "was syncing, not stopped yet: busy"
	var out strings.Builder
	unknown := refused(syscall.ENOENT, "not here")
	err := printReplies(&out, []*controlv1.CommandReply{unknown, r}, false, false)
	if err == nil || err.Error() != "not done for 1 image" || out.String() != "image rbd/7: was syncing, not stopped yet: busy\n29 images: was replaying, stopped\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
	if err := printReplies(&out, []*controlv1.CommandReply{unknown}, false, false); err == nil || err.Error() != "not here" {
		t.Error(err)
	}
}

// A worker that is replaced is answered for when the new one is ready.
func TestRestartWorker(t *testing.T) {
	w := &fakeRestart{views: []report.Worker{{PID: 1, State: report.WorkerReady}, {PID: 1, State: report.WorkerReady}, {State: report.WorkerWaiting}, {PID: 2, State: report.WorkerReady}}}
	if told := restartWorker(t.Context(), w, 10*time.Second); told.Code != 0 || !strings.Contains(told.Text, "pid 2") || w.restarts != 1 {
		t.Errorf("%v", told)
	}
	w = &fakeRestart{views: []report.Worker{{PID: 1, State: report.WorkerReady}, {State: report.WorkerParked, LastCause: &report.Cause{Why: report.WhyOOM}}}}
	if told := restartWorker(t.Context(), w, 50*time.Millisecond); syscall.Errno(told.Code) != syscall.ETIMEDOUT || !strings.Contains(told.Text, "OOM kill") {
		t.Errorf("%v", told)
	}
}

type fakeRestart struct {
	views    []report.Worker
	restarts int
}

func (w *fakeRestart) Restart() { w.restarts++ }

func (w *fakeRestart) View() report.Worker {
	v := w.views[0]
	w.views = w.views[min(1, len(w.views)-1):]
	return v
}

// An image keeps its name while a new worker does not know it yet.
func TestNamesAreRemembered(t *testing.T) {
	told := func(images ...report.Image) report.Daemon {
		return report.Daemon{Workers: []report.Worker{{}, {Pools: []report.Pool{{Name: "rbd", Images: images}}}}}
	}
	var n nameBook
	a, b := report.Image{Pool: "rbd", GlobalID: "ga", Name: "a"}, report.Image{Pool: "rbd", GlobalID: "gb"}
	first, second := told(a, b), told(report.Image{Pool: "rbd", GlobalID: "ga"}, report.Image{Pool: "rbd", GlobalID: "gb", Name: "b"})
	n.Fill(&first)
	n.Fill(&second)
	if got := second.Workers[1].Pools[0].Images[0].Name; got != "a" {
		t.Errorf("the name is %q", got)
	}
	renamed := told(report.Image{Pool: "rbd", GlobalID: "ga", Name: "c"})
	n.Fill(&renamed)
	again := told(report.Image{Pool: "rbd", GlobalID: "ga"}, report.Image{Pool: "rbd", Namespace: "ns", GlobalID: "ga"})
	n.Fill(&again)
	if images := again.Workers[1].Pools[0].Images; images[0].Name != "c" || images[1].Name != "" {
		t.Errorf("%+v", images)
	}
}

// A trace goes on over the deaths of actors and workers, and is bounded.
func TestTraces(t *testing.T) {
	s := newTraces()
	line := func(image string, id uint64, step string) *controlv1.Traces {
		return &controlv1.Traces{Lines: []*controlv1.TraceLine{{Pool: "rbd", GlobalId: image, Id: id, StepJson: []byte(step)}}}
	}
	messages := func(image string) (all []string) {
		for _, step := range s.Of(imageID{pool: "rbd", globalID: image}) {
			all = append(all, fmt.Sprint(step.Message, step.Count))
		}
		return all
	}
	s.Add(0, 11, line("a", 1, `{"message":"Start","count":1}`))
	s.Add(0, 11, line("a", 2, `{"message":"Applied","count":1}`))
	s.Add(0, 11, line("a", 2, `{"message":"Applied","count":7}`)) // it counts on
	s.Add(1, 12, line("b", 2, `{"message":"Other","count":1}`))
	s.Add(0, 11, line("a", 3, `damaged`))
	s.Died(0, 11, report.Cause{Why: report.WhySignal, Signal: "9 (killed)"})
	s.Add(0, 13, line("a", 2, `{"message":"Start","count":1}`)) // another worker's number
	if got := messages("a"); !slices.Equal(got, []string{"Start1", "Applied7", "worker 0 ended0", "Start1"}) {
		t.Error(got)
	}
	if got := messages("b"); !slices.Equal(got, []string{"Other1"}) {
		t.Error(got)
	}
	for i := range uint64(10 * traceLength) {
		s.Add(0, 13, line("a", i+3, `{"message":"x","text":"`+strings.Repeat("x", 10000)+`"}`))
	}
	if n := len(messages("a")); n != traceLength {
		t.Errorf("%d lines are kept", n)
	}
	for _, step := range s.Of(imageID{pool: "rbd", globalID: "a"}) {
		if len(step.Text) > maxStepText {
			t.Fatalf("a text of %d bytes", len(step.Text))
		}
	}
	for i := range maxTraces + 10 {
		s.Add(0, 13, line(fmt.Sprint("many", i), 1, `{"message":"x"}`))
	}
	if n := len(s.images); n != maxTraces {
		t.Errorf("traces of %d images are kept", n)
	}
}
