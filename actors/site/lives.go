package site

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/rbdwarden/rbdwarden/actors/pool"
	"github.com/rbdwarden/rbdwarden/cluster/coordinator"
	"github.com/rbdwarden/rbdwarden/messages"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/supervision"
)

// life is the memory of the actor of a namespace with a peer, over its deaths.
//
//	order     none: pools know nothing of each other
//	strategy  one-for-one; the decider always stops, and the site starts a new actor
//	          after a back-off that grows; too many deaths make that slow
//	intensity supervision.DefaultStrategy
//	shutdown  pool.Stop, then the actor lets go of its images in its own time
//	reason    a panic; operating errors are answered inside the actor
type life struct {
	restart *supervision.Restarter
	panic   *pool.Panicked // why it is about to end
	name    string         // in the ledger
	waits   bool           // for its restart
}

// panicked notes why a pool's actor is about to end.
func (s *Site) panicked(m pool.Panicked) {
	if p := s.pools[m.Key.PoolID]; p != nil {
		for key := range p.children { // at most one of a namespace
			if l := s.lives[key]; l != nil && key.namespace == m.Key.Namespace && key.peer == m.PeerUUID {
				l.panic = &m
			}
		}
	}
	s.opt.Log.Error().Stringer("pool", m.Key).Str("panic", m.Value).Str("stack", m.Stack).Msg("a pool's actor panicked")
}

// born notes that an actor starts, and gives what became of those before it.
func (s *Site) born(key childKey, name string) messages.Past {
	l := s.lives[key]
	if l == nil {
		l = &life{restart: supervision.NewRestarter(supervision.DefaultStrategy)}
		s.lives[key] = l
	}
	l.panic, l.waits, l.name = nil, false, name
	l.restart.Step(supervision.Started{When: time.Now()})
	return messages.PastOf(s.opt.Ledger.Of(report.LevelPool, name))
}

// died decides when an actor that ended by a panic starts again. Any other end was
// asked for.
func (s *Site) died(c actor.Context, key childKey) {
	l := s.lives[key]
	if l == nil || l.panic == nil {
		return
	}
	cause := report.Cause{What: "pool " + l.panic.Key.String(), Why: report.WhyPanic, When: time.Now(), Text: l.panic.Value}
	s.opt.Ledger.Add(supervision.End{Level: report.LevelPool, Name: l.name, Cause: cause})
	l.waits = true
	d := l.restart.Step(supervision.Died{Cause: cause, Random: rand.Float64()})
	s.later(c, time.Until(d.At), restartDue{key})
}

func (s *Site) waitsForRestart(key childKey) bool {
	l := s.lives[key]
	return l != nil && l.waits
}

func (s *Site) restart(c actor.Context, key childKey) {
	if l := s.lives[key]; l != nil {
		l.waits = false
	}
	if p := s.pools[key.pool]; p != nil {
		s.reconcile(c, p)
	}
}

// occupied tells whether an actor runs, ends or is being made for the namespace, with
// whatever peer. There is never a second one beside it: both would own the same images
// with the same client, which no lock keeps apart.
func (p *poolState) occupied(namespace string) bool {
	for key := range p.children {
		if key.namespace == namespace {
			return true
		}
	}
	return false
}

// forget drops a pool that is not mirrored any more, once nothing of it runs.
func (s *Site) forget(id int64, p *poolState) {
	if p.cancel == nil && len(p.children) == 0 {
		delete(s.pools, id)
	}
}

// discard lets go of what was prepared for an actor that is not made.
func (s *Site) discard(m prepared) {
	if m.err != nil {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), s.opt.Timeout)
		defer cancel()
		if m.opt.Status != nil {
			m.opt.Status.Close(ctx)
		}
		if m.opt.Release != nil {
			m.opt.Release()
		}
	}()
}

// join begins to take part in a pool, when an earlier part in it has ended: two of one
// client would break each other's locks.
func (s *Site) join(c actor.Context, id int64, p *poolState) {
	s.terms++
	term, earlier, ended := s.terms, s.competitions[id], make(chan struct{})
	s.competitions[id], p.term, p.party = ended, term, s.opt.Join(id)
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	self, system, party := c.Self(), c.ActorSystem(), p.party
	tell := func(m any) { system.Root.Send(self, m) }
	told := coordinator.Told{
		Works:   func(on bool, why string) { tell(works{id, term, on, why}) },
		Leads:   func() { tell(leads{id, term}) },
		Lost:    func(reason error) { tell(lost{id, term, reason}) },
		Follows: func(leader string) { tell(follows{id, term, leader}) },
		Assigned: func(namespace string, share coordinator.Share) {
			tell(assigned{id, term, namespace, pool.Share{Epoch: share.Epoch, Run: share.Run}})
		},
		Trashed: func() { tell(trashed{id, term}) },
		Fenced:  func(err error) { tell(messages.ClientFenced{Err: err}) },
	}
	go func() {
		defer close(ended)
		if earlier != nil {
			<-earlier
		}
		party.Run(ctx, told)
	}()
}
