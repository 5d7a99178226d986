package process

import (
	"fmt"
	"time"

	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/supervision"
)

// Patience says which failures of a worker that never got ready end supervision. Once
// a worker has been ready, nothing ends it but Stop.
type Patience uint8

const (
	// EndOnPermanent ends it if the worker itself says that another try would
	// fail in the same way: a wrong key, a wrong option.
	EndOnPermanent Patience = iota
	// EndOnAny ends it at the first failure: somebody waits for the outcome.
	EndOnAny
)

// rules are the machine's constants.
type rules struct {
	name             string // as in "worker 0"
	strategy         supervision.Strategy
	patience         Patience
	startTimeout     time.Duration
	stopTimeout      time.Duration
	heartbeatTimeout time.Duration
	memoryLimit      int64 // bytes; 0: none
	// asleep: two ticks further apart than this mean that it was us who did not
	// run (stopped, suspended, starved), so that silence proves nothing.
	asleep time.Duration
}

// event is what a machine is told.
type event interface{ event() }

type (
	evTick    struct{ now time.Time }
	evSpawned struct {
		now      time.Time
		pid      int
		enclosed bool // in a memory group: the kernel sees to its limit
	}
	evUnspawned struct { // the process could not be started
		now    time.Time
		err    error
		random float64
	}
	evHeard  struct{ now time.Time } // a heartbeat: an answer alone proves no health
	evReady  struct{ now time.Time }
	evFailed struct {
		class, text string
	}
	evMemory struct{ rss int64 }
	evExited struct {
		now    time.Time
		end    ending
		random float64
	}
	evStop    struct{ now time.Time } // stop for good
	evHurry   struct{ now time.Time } // stop for good, at once
	evRestart struct{ now time.Time } // a person wants a new process
)

func (evTick) event()      {}
func (evSpawned) event()   {}
func (evUnspawned) event() {}
func (evHeard) event()     {}
func (evReady) event()     {}
func (evFailed) event()    {}
func (evMemory) event()    {}
func (evExited) event()    {}
func (evStop) event()      {}
func (evHurry) event()     {}
func (evRestart) event()   {}

// effect is what a machine wants done.
type effect interface{ effect() }

type (
	effSpawn struct {
		restarts int                // of this one, once it runs
		last     *supervision.Cause // what the one before died of; nil for the first
	}
	effAskStop struct{ within time.Duration }
	effKill    struct{ why string }
	effEnded   struct{ err error } // supervision is over
	effDied    struct {            // for the log
		cause supervision.Cause
		next  time.Time // zero: it is not started again
	}
)

func (effSpawn) effect()   {}
func (effAskStop) effect() {}
func (effKill) effect()    {}
func (effEnded) effect()   {}
func (effDied) effect()    {}

// machine supervises one process, without doing anything itself.
//
//	waiting ──tick──► starting ──ready──► ready
//	   ▲                 │ silent, late,    │ silent, too big,
//	   │                 │ asked            │ asked
//	   │                 ▼                  ▼
//	   └──exited──── stopping ◄─────────────┘        any ──exited, stop──► stopped
type machine struct {
	rules
	restarter *supervision.Restarter
	state     report.WorkerState
	since     time.Time
	pid       int
	heard     time.Time
	ticked    time.Time
	rss       int64
	enclosed  bool // the kernel sees to memoryLimit
	everReady bool
	final     bool               // no new process after this one
	failed    *evFailed          // what the process said about its coming end
	killed    *supervision.Cause // why we kill it, if we do
	deadline  time.Time          // of the present state; zero: none
	next      time.Time          // when to start; only while waiting
}

func newMachine(r rules, now time.Time) *machine {
	return &machine{
		rules: r, restarter: supervision.NewRestarter(r.strategy),
		state: report.WorkerWaiting, since: now, ticked: now, next: now,
	}
}

// running tells whether there is a process.
func (m *machine) running() bool { return m.pid != 0 }

// become is the only place where the state changes.
func (m *machine) become(s report.WorkerState, now time.Time) {
	m.state, m.since, m.deadline = s, now, time.Time{}
}

// step takes one event and returns what is to be done, in order.
func (m *machine) step(e event) []effect {
	switch e := e.(type) {
	case evTick:
		return m.tick(e.now)
	case evSpawned:
		m.pid, m.heard, m.rss, m.enclosed = e.pid, e.now, 0, e.enclosed
		m.failed, m.killed, m.next = nil, nil, time.Time{}
		m.restarter.Step(supervision.Started{When: e.now})
		m.become(report.WorkerStarting, e.now)
		m.deadline = e.now.Add(m.startTimeout)
	case evUnspawned:
		return m.died(supervision.Cause{
			What: m.name, Why: report.WhySpawn, When: e.now, Text: e.err.Error(),
		}, e.random)
	case evHeard:
		m.heard = e.now
	case evReady:
		if m.state == report.WorkerStarting {
			m.everReady = true
			m.become(report.WorkerReady, e.now)
		}
	case evFailed:
		m.failed = &e
	case evMemory:
		m.rss = e.rss
	case evExited:
		m.pid = 0
		return m.died(m.explain(e), e.random)
	case evStop:
		return m.stop(e.now)
	case evHurry:
		m.final = true
		if m.running() {
			return m.kill(e.now, report.WhyAsked, "it was told to stop at once")
		}
		return m.stop(e.now)
	case evRestart:
		return m.restart(e.now)
	}
	return nil
}

func (m *machine) tick(now time.Time) []effect {
	slept := now.Sub(m.ticked) > m.asleep
	m.ticked = now
	if slept {
		m.heard = now
	}
	switch m.state {
	case report.WorkerWaiting, report.WorkerParked:
		if !now.Before(m.next) {
			m.next = now.Add(m.startTimeout) // until the effect answers
			restarts, last := m.restarter.Restarts(), m.restarter.Last()
			if last != nil {
				restarts++
			}
			return []effect{effSpawn{restarts, last}}
		}
	case report.WorkerStarting, report.WorkerReady:
		switch {
		case now.Sub(m.heard) > m.heartbeatTimeout:
			return m.kill(now, report.WhySilent, fmt.Sprintf("silent for %v", now.Sub(m.heard).Round(time.Millisecond)))
		case m.state == report.WorkerStarting && now.After(m.deadline):
			return m.kill(now, report.WhyUnready, fmt.Sprintf("not ready after %v", m.startTimeout))
		case m.memoryLimit > 0 && !m.enclosed && m.rss > m.memoryLimit:
			return m.kill(now, report.WhyMemory, fmt.Sprintf("%d bytes resident, limit %d", m.rss, m.memoryLimit))
		}
	case report.WorkerStopping:
		if !m.deadline.IsZero() && now.After(m.deadline) {
			return m.kill(now, report.WhyAsked, fmt.Sprintf("did not stop within %v", m.stopTimeout))
		}
	}
	return nil
}

// kill ends the process by force.
func (m *machine) kill(now time.Time, why report.Why, text string) []effect {
	m.killed = &supervision.Cause{Why: why, Text: text}
	m.become(report.WorkerStopping, now)
	return []effect{effKill{text}}
}

func (m *machine) stop(now time.Time) []effect {
	m.final = true
	if !m.running() {
		m.become(report.WorkerStopped, now)
		return []effect{effEnded{}}
	}
	if m.state == report.WorkerStopping {
		return nil
	}
	return m.askStop(now)
}

func (m *machine) askStop(now time.Time) []effect {
	m.killed = &supervision.Cause{Why: report.WhyAsked}
	m.become(report.WorkerStopping, now)
	m.deadline = now.Add(m.stopTimeout)
	return []effect{effAskStop{m.stopTimeout}}
}

func (m *machine) restart(now time.Time) []effect {
	switch {
	case m.final:
		return nil
	case m.state == report.WorkerStarting, m.state == report.WorkerReady:
		return m.askStop(now)
	case m.state == report.WorkerWaiting, m.state == report.WorkerParked:
		m.restarter.Step(supervision.Forgiven{When: now})
		m.become(report.WorkerWaiting, now)
		m.next = now
	}
	return nil
}

// died decides what follows a death.
func (m *machine) died(c supervision.Cause, random float64) []effect {
	now := c.When
	asked := c.Why == report.WhyAsked
	if m.final {
		m.become(report.WorkerStopped, now)
		return []effect{effDied{cause: c}, effEnded{}}
	}
	if !m.everReady && (m.patience == EndOnAny || c.Class == classPermanent) && !asked {
		m.final = true
		m.become(report.WorkerStopped, now)
		return []effect{effDied{cause: c}, effEnded{&StartError{Cause: c}}}
	}
	d := m.restarter.Step(supervision.Died{Cause: c, Random: random})
	if asked {
		d = m.restarter.Step(supervision.Forgiven{When: now})
	}
	if m.next = d.At; d.Parked {
		m.become(report.WorkerParked, now)
	} else {
		m.become(report.WorkerWaiting, now)
	}
	return []effect{effDied{cause: c, next: d.At}}
}

// classPermanent is the class of errors that another try would meet again, as
// package rados names it.
const classPermanent = "permanent"

// StartError says that the first worker could not do its work, so that there is
// nothing to supervise.
type StartError struct{ Cause supervision.Cause }

func (e *StartError) Error() string { return e.Cause.What + ": " + e.Cause.String() }
