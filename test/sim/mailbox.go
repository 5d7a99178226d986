package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// mailbox takes the place of protoactor's mailbox and scheduler for one actor: messages
// are handled one at a time, in the order in which they came, each after a time that the
// seed gives. The actor itself is the real one, and sends as ever.
type mailbox struct {
	system *actor.ActorSystem
	pid    *actor.PID
	parent *actor.PID
	actor  actor.Actor
	rng    *rand.Rand
	may    func() bool // waits while the process is frozen; false when it is dead
	died   func(any)   // the actor has panicked, and is gone

	mu    sync.Mutex
	queue []letter
	wake  chan struct{} // cap 1
	end   chan struct{} // closed when the actor is gone
}

// stopActor ends an actor.
type stopActor struct{}

// letter is a message that waits. What comes at the same moment, from goroutines that run
// side by side, is put in an order of its own.
type letter struct {
	at      time.Time
	kind    string
	message any
}

func (m *mailbox) SendUserMessage(_ *actor.PID, message any) {
	_, payload, _ := actor.UnwrapEnvelope(message)
	l := letter{time.Now(), fmt.Sprintf("%T", payload), message}
	m.mu.Lock()
	i := len(m.queue)
	for i > 0 && m.queue[i-1].at.Equal(l.at) && m.queue[i-1].kind > l.kind {
		i--
	}
	m.queue = slices.Insert(m.queue, i, l)
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}
func (m *mailbox) SendSystemMessage(pid *actor.PID, message any) { m.SendUserMessage(pid, message) }
func (m *mailbox) Stop(pid *actor.PID)                           { m.SendUserMessage(pid, stopActor{}) }

func (m *mailbox) empty() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.queue) == 0
}

func (m *mailbox) pop() any {
	m.mu.Lock()
	defer m.mu.Unlock()
	first := m.queue[0]
	m.queue = m.queue[1:]
	return first.message
}

// run handles messages until the actor ends.
func (m *mailbox) run() {
	defer close(m.end)
	m.turn()
	if !m.receive(&actor.Started{}, nil) {
		return
	}
	for {
		if m.empty() {
			<-m.wake
			continue
		}
		m.turn()
		alive := m.may()
		m.turn() // also when the whole process goes on
		_, payload, sender := actor.UnwrapEnvelope(m.pop())
		if _, stop := payload.(stopActor); stop || !alive {
			m.receive(&actor.Stopping{}, nil)
			return
		}
		if !m.receive(payload, sender) {
			return
		}
	}
}

// turn waits until it is this actor's turn: no two have it at the same moment.
func (m *mailbox) turn() { time.Sleep(time.Microsecond + time.Duration(m.rng.ExpFloat64()*20_000)) }

// receive gives the actor one message; false if it has panicked.
func (m *mailbox) receive(message any, sender *actor.PID) (alive bool) {
	defer func() {
		if v := recover(); v != nil {
			func() {
				defer func() { _ = recover() }() // it dies of the second panic, too
				m.actor.Receive(&envelope{m: m, message: &actor.Stopping{}})
			}()
			m.died(v)
		}
	}()
	m.actor.Receive(&envelope{m: m, message: message, sender: sender})
	return true
}

// envelope is the actor.Context of one message. What the actors do not use panics.
type envelope struct {
	actor.Context
	m       *mailbox
	message any
	sender  *actor.PID
}

func (e *envelope) Message() any                    { return e.message }
func (e *envelope) Sender() *actor.PID              { return e.sender }
func (e *envelope) Self() *actor.PID                { return e.m.pid }
func (e *envelope) Parent() *actor.PID              { return e.m.parent }
func (e *envelope) ActorSystem() *actor.ActorSystem { return e.m.system }
func (e *envelope) Send(to *actor.PID, message any) { e.m.system.Root.Send(to, message) }
