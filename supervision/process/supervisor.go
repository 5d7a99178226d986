// Package process supervises one worker process: starts it, listens to its
// heartbeats, kills it when it is stuck or too big, and starts it again with a
// back-off when it died, whatever it died of. What happens when is decided by a pure
// machine; the Supervisor performs.
package process

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/supervision"
	"github.com/rbdwarden/rbdwarden/supervision/memory"
)

// Spec says what a Supervisor runs and how.
type Spec struct {
	Index  int      // of this worker
	Path   string   // program
	Args   []string // with argv[0]
	Env    []string // added to our own
	Config []byte   // JSON for the worker; goes over the link
	LogTo  *os.File // where the worker may log to (its LogFD); nil: nowhere

	Strategy          supervision.Strategy
	Patience          Patience
	StartTimeout      time.Duration // until Ready
	StopTimeout       time.Duration // from the request to stop until the kill
	HeartbeatInterval time.Duration
	HeartbeatTimeout  time.Duration // silence that kills
	// MemoryLimit is the limit of the worker's memory group, in bytes; without a group,
	// resident bytes that kill. 0: none.
	MemoryLimit int64
	Groups      *memory.Root // where to make groups; nil: nowhere, for this reason:
	NoGroups    string

	// Traced takes what the worker tells of its images; Died is told of each end of a worker,
	// after all that it told. Neither blocks; nil: nobody listens.
	Traced func(pid int, t *controlv1.Traces)
	Died   func(pid int, cause report.Cause)
	// Ended takes the ends of images and pools that the worker tells. It does not block; nil:
	// nobody listens.
	Ended func(supervision.End)
	// Asked answers what a worker asks of the daemon, from goroutines of its own; nil: nothing
	// is answered.
	Asked func(ctx context.Context, ask *controlv1.Ask) *controlv1.Told
	// Book is what a new worker is told of the lives of images and pools before it; nil: nothing.
	Book func() supervision.Book
}

// Supervisor supervises one worker. Make it with New and call Run once.
type Supervisor struct {
	spec   Spec
	log    zerolog.Logger
	probe  oomProbe
	events chan event
	ready  chan struct{} // closed when a worker got ready for the first time

	spawned int // groups made; only Run's goroutine uses it

	over chan struct{} // closed when Run has returned

	mu    sync.Mutex // guards what is below
	view  report.Worker
	told  report.Worker // the worker's last report
	child *child        // the running one, nil if there is none
	calls calls
	asks  chan struct{} // a token for each that is being answered
}

// New makes a Supervisor. log gets its name.
func New(spec Spec, log zerolog.Logger) *Supervisor {
	return &Supervisor{
		spec: spec, log: log.With().Int("worker", spec.Index).Logger(),
		probe: oomProbe{root: "/"}, events: make(chan event, 64),
		ready: make(chan struct{}), over: make(chan struct{}),
		view:  report.Worker{Index: spec.Index, State: report.WorkerWaiting, Since: time.Now(), Memory: &report.Memory{}},
		calls: newCalls(), asks: make(chan struct{}, maxAsks),
	}
}

// Ready is closed once a worker got ready.
func (s *Supervisor) Ready() <-chan struct{} { return s.ready }

// Stop asks the worker to stop and ends supervision when it has, or when its time
// is over. Run returns then.
func (s *Supervisor) Stop() { s.tell(evStop{time.Now()}) }

// Hurry kills the worker and ends supervision.
func (s *Supervisor) Hurry() { s.tell(evHurry{time.Now()}) }

// Restart replaces the worker by a new one, after a clean stop. Something that waits
// for its restart, or is parked, is started at once.
func (s *Supervisor) Restart() { s.tell(evRestart{time.Now()}) }

// SetConfig changes the configuration of the workers that are started from now on.
func (s *Supervisor) SetConfig(config []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spec.Config = config
}

// ReopenLog asks the worker to open its log file again.
func (s *Supervisor) ReopenLog() {
	s.send(&controlv1.ToWorker{Message: &controlv1.ToWorker_ReopenLog{ReopenLog: &controlv1.ReopenLog{}}})
}

func (s *Supervisor) tell(e event) {
	select {
	case s.events <- e:
	case <-s.over:
	}
}

// Run supervises until Stop or Hurry, or until ctx ends, which is a Hurry. The error
// is a *StartError if the first worker could not do its work; then there is no point
// in going on.
func (s *Supervisor) Run(ctx context.Context) error {
	defer close(s.over)
	now := time.Now()
	interval := min(s.spec.HeartbeatInterval, time.Second) / 2
	m := newMachine(rules{
		name: workerName(s.spec.Index), strategy: s.spec.Strategy, patience: s.spec.Patience,
		startTimeout: s.spec.StartTimeout, stopTimeout: s.spec.StopTimeout,
		heartbeatTimeout: s.spec.HeartbeatTimeout, memoryLimit: s.spec.MemoryLimit,
		asleep: max(10*interval, 2*time.Second),
	}, now)
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	var e event = evTick{now}
	for done := ctx.Done(); ; {
		for effects := m.step(e); len(effects) > 0; effects = effects[1:] {
			if ended, ok := effects[0].(effEnded); ok {
				s.publish(m)
				s.calls.failAll("the worker was stopped")
				return ended.err
			}
			if answer := s.perform(effects[0]); answer != nil {
				effects = append(effects, m.step(answer)...)
			}
		}
		s.publish(m)
		select {
		case e = <-s.events:
		case t := <-ticker.C:
			if m.running() {
				m.step(evMemory{resident(m.pid)})
			}
			e = evTick{t}
		case <-done:
			done, e = nil, evHurry{time.Now()}
		}
	}
}

// perform does what the machine wants, and returns the event that answers it, if
// one does.
func (s *Supervisor) perform(f effect) event {
	switch f := f.(type) {
	case effSpawn:
		return s.start(f)
	case effAskStop:
		s.log.Info().Stringer("within", f.within).Msg("asking worker to stop")
		s.send(&controlv1.ToWorker{Message: &controlv1.ToWorker_Stop{
			Stop: &controlv1.Stop{DeadlineNanos: f.within.Nanoseconds()},
		}})
	case effKill:
		if c := s.current(); c != nil {
			s.log.Warn().Int("pid", c.pid).Str("why", f.why).Msg("killing worker")
			if err := c.proc.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				s.log.Error().Err(err).Int("pid", c.pid).Msg("cannot kill worker")
			}
		}
	case effDied:
		ev := s.log.Error()
		if f.cause.Why == report.WhyAsked || f.cause.Why == report.WhyFinished {
			ev = s.log.Info()
		}
		if !f.next.IsZero() {
			ev = ev.Stringer("restart_in", time.Until(f.next).Round(time.Millisecond))
		}
		if s.spec.Died != nil {
			s.spec.Died(s.View().PID, f.cause)
		}
		ev.Str("why", string(f.cause.Why)).Str("cause", f.cause.String()).Msg("worker ended")
	}
	return nil
}

// start starts a worker. Run's goroutine does it itself, so that a worker's events
// cannot overtake its start, nor a start overtake a Stop.
func (s *Supervisor) start(f effSpawn) event {
	c, err := s.spawn(s.exited)
	if err != nil {
		return evUnspawned{now: time.Now(), err: err, random: rand.Float64()}
	}
	s.mu.Lock()
	s.child = c
	data := s.spec.Config
	s.mu.Unlock()
	s.log.Info().Int("pid", c.pid).Msg("worker started")
	var last []byte
	if f.last != nil {
		if last, err = json.Marshal(f.last); err != nil {
			panic(err) // a Cause always encodes
		}
	}
	var book []byte
	if s.spec.Book != nil {
		if book, err = json.Marshal(s.spec.Book()); err != nil {
			panic(err) // so does a Book
		}
	}
	err = c.link.Send(&controlv1.ToWorker{Message: &controlv1.ToWorker_Start{Start: &controlv1.Start{
		ConfigJson: data, Index: uint32(s.spec.Index), Restarts: uint32(f.restarts), LastCauseJson: last, BookJson: book,
		HeartbeatIntervalNanos: s.spec.HeartbeatInterval.Nanoseconds(),
	}}})
	close(c.begun)
	if err != nil {
		s.log.Warn().Err(err).Msg("cannot send configuration to worker")
	}
	go s.listen(c)
	return evSpawned{now: time.Now(), pid: c.pid, enclosed: c.group != nil}
}

// exited is told of a child's end, by the thread that started it.
func (s *Supervisor) exited(c *child, st syscall.WaitStatus) {
	end := s.ending(c, st)
	s.mu.Lock()
	if s.child == c {
		s.child = nil
	}
	s.mu.Unlock()
	_ = c.link.Close()
	s.calls.failAll("the worker died")
	s.tell(evExited{now: time.Now(), end: end, random: rand.Float64()})
}

// listen takes a child's messages until its end.
func (s *Supervisor) listen(c *child) {
	defer close(c.heard)
	for {
		m := &controlv1.FromWorker{}
		if err := c.link.Receive(m); err != nil {
			return // its exit tells the rest
		}
		switch m := m.Message.(type) {
		case *controlv1.FromWorker_Heartbeat:
			s.tell(evHeard{time.Now()})
		case *controlv1.FromWorker_Ready:
			s.log.Info().Int("pid", c.pid).Msg("worker is ready")
			s.tell(evReady{time.Now()})
		case *controlv1.FromWorker_Failed:
			s.tell(evFailed{class: m.Failed.Class, text: m.Failed.Text})
		case *controlv1.FromWorker_Reply:
			s.calls.answer(m.Reply.Id, m.Reply)
		case *controlv1.FromWorker_Traces:
			if s.spec.Traced != nil {
				s.spec.Traced(c.pid, m.Traces)
			}
		case *controlv1.FromWorker_Ended:
			s.ended(m.Ended)
		case *controlv1.FromWorker_Ask:
			s.asked(c, m.Ask)
		}
	}
}

// ended hands on what a worker tells of an end.
func (s *Supervisor) ended(m *controlv1.Ended) {
	e := supervision.End{Level: m.GetLevel(), Name: m.GetName(), Again: m.GetAgain()}
	if err := json.Unmarshal(m.GetCauseJson(), &e.Cause); err != nil {
		s.log.Warn().Err(err).Msg("cannot decode what a worker tells of an end")
	} else if s.spec.Ended != nil {
		s.spec.Ended(e)
	}
}

func (s *Supervisor) current() *child {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.child
}

// send sends to the running worker, if there is one, without waiting. A worker that has
// only just been started gets it behind its configuration.
//
// Invariant: what is sent after SetConfig returned reaches every worker that was started
// with another configuration than that.
func (s *Supervisor) send(m *controlv1.ToWorker) bool {
	c := s.current()
	if c == nil {
		return false
	}
	go func() {
		<-c.begun
		if err := c.link.Send(m); err != nil {
			s.log.Warn().Err(err).Int("pid", c.pid).Msg("cannot send to worker")
		}
	}()
	return true
}

// publish makes the machine's state visible to Report.
func (s *Supervisor) publish(m *machine) {
	v := report.Worker{
		Index: s.spec.Index, PID: m.pid, State: m.state, Since: m.since,
		Restarts: m.restarter.Restarts(), LastCause: m.restarter.Last(),
		RSS: m.rss, LastHeard: m.heard, Memory: &report.Memory{Limit: s.spec.MemoryLimit, Note: s.spec.NoGroups},
	}
	if !m.running() {
		v.RSS = 0
		if m.state != report.WorkerStopped {
			v.NextStart = m.next
		}
	}
	s.mu.Lock()
	s.view = v
	s.mu.Unlock()
	if m.everReady {
		select {
		case <-s.ready:
		default:
			close(s.ready)
		}
	}
}
