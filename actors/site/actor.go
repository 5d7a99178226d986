// Package site is the root actor of a worker: it finds the local cluster's mirrored
// pools, takes part in each (as a member that runs its share of the images, and
// perhaps as the leader that shares them out), and keeps an actor running for each
// mirrored namespace. It also registers the worker in the service map, where "rbd mirror
// pool status" and "ceph -s" look for it.
//
//	site ─┬─ pool rbd ── party ─┬─ pool actor rbd          ── image actors
//	      │                     └─ pool actor rbd/ns1      ── image actors
//	      └─ pool vms ── stands by: rbd-mirror leads
package site

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/actors/pool"
	cephmirror "github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/cluster/coordinator"
	"github.com/rbdwarden/rbdwarden/config"
	"github.com/rbdwarden/rbdwarden/messages"
	"github.com/rbdwarden/rbdwarden/mirror"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/supervision"
)

// Found is a mirrored pool with its mirrored namespaces ("" is the default one).
type Found struct {
	mirror.FoundPool
	Namespaces []string
}

// Options are what a site's actor is made of.
type Options struct {
	// Find looks for the mirrored pools.
	Find func(ctx context.Context) ([]Found, error)
	// Join makes this member's part in a pool.
	Join func(pool int64) Party
	// NewPool makes the options of the actor of a pool and namespace with one peer.
	NewPool func(ctx context.Context, found mirror.Pool, namespace string, peer cephmirror.Peer) (pool.Options, error)
	// Service publishes the daemon's status in the service map. It is called from
	// one goroutine at a time.
	Service func(ctx context.Context, pools map[int64]mirror.ServicePool) error
	// Ready is called once, after the first successful look for pools.
	Ready func()
	// Fenced is called when this process cannot go on: its client may not write any
	// more, or the site's actor died.
	Fenced func(err error)

	// Halts are what was stopped by command before.
	Halts config.Halts
	// Ledger remembers what became of pools; nil: this actor remembers them itself.
	Ledger *supervision.Ledger

	InstanceID uint64
	Refresh    time.Duration // between looks for pools
	Publish    time.Duration // between updates of the service map
	Timeout    time.Duration
	Log        zerolog.Logger
}

// Party is this member's part in a pool: its membership, its candidacy, and the map of who
// runs which image. None of the methods but Run blocks.
type Party interface {
	// Run takes part until ctx ends, and leaves in an orderly way then.
	Run(ctx context.Context, told coordinator.Told)
	// Namespaces says which namespaces are mirrored.
	Namespaces(names []string)
	// Listed says which images of a namespace are mirrored; complete if both sides were asked.
	Listed(namespace string, globalIDs []string, complete bool)
	// Reaches says whether the primary's cluster answers, for a namespace's images.
	Reaches(namespace string, answers bool)
	// Applied says that nothing runs that the share of that epoch does not name.
	Applied(namespace string, epoch uint64)
	// Trashed says that something was put into the trash.
	Trashed()
	// Release gives the leadership up for now.
	Release()
	// Leaving says that this member is about to end: it leads no more and is given no image.
	Leaving()
}

// Site is the actor.
type Site struct {
	opt          Options
	pools        map[int64]*poolState
	trouble      string
	ready        bool
	finding      bool
	ending       bool
	halts        config.Halts
	asked        *actor.PID
	byPID        map[string]childKey
	shown        map[childKey]report.Pool // newest snapshots
	competitions map[int64]chan struct{}  // by pool: closed when the newest has ended
	terms        int                      // competitions begun, for their numbers
	lives        map[childKey]*life
	publishing   bool
	publishTimer *time.Timer
	panic        *PanicError // of which it is about to end
}

// poolState is one mirrored pool.
type poolState struct {
	found    Found
	cancel   context.CancelFunc // ends the competition
	term     int                // the competition's number; what older ones tell does not count
	party    Party
	works    bool   // images of the pool may run here
	standsBy string // why not
	leading  bool
	leader   string                  // who leads instead
	shares   map[string]pool.Share   // by namespace, the newest
	children map[childKey]*actor.PID // nil: being prepared
	trouble  string
	calls    []mirror.Callout // what of it belongs into the service map
}

// childKey names the actor of a namespace with a peer. What differs in any of it needs
// another actor.
type childKey struct {
	pool      int64
	namespace string
	peer      string // uuid of the peer's record
	as        string // site and client of the peer's record
	uuid      string // mirror uuid of the local pool
}

func (p *poolState) key(namespace string, peer cephmirror.Peer) childKey {
	return childKey{
		pool: p.found.Pool.Pool.ID, namespace: namespace, peer: peer.UUID, as: peer.ClientName + "@" + peer.SiteName,
		uuid: p.found.Pool.MirrorUUID,
	}
}

// Messages of the actor to itself.
type (
	findDue    struct{}
	publishDue struct{}
	published  struct{ err error }
	foundPools struct {
		pools []Found
		err   error
	}
	leads struct {
		pool int64
		term int
	}
	lost struct {
		pool   int64
		term   int
		reason error
	}
	follows struct {
		pool   int64
		term   int
		leader string
	}
	works struct {
		pool  int64
		term  int
		works bool
		why   string
	}
	assigned struct {
		pool      int64
		term      int
		namespace string
		share     pool.Share
	}
	trashed struct {
		pool int64
		term int
	}
	restartDue struct{ key childKey }
	prepared   struct {
		key childKey
		opt pool.Options
		err error
	}
)

// errSiteDied ends the worker when its root actor has died, nobody knows of what.
var errSiteDied = errors.New("the site's actor died")

// PanicError ends the worker when its root actor has died by a panic.
type PanicError struct{ Value, Stack string }

// Error is the panic in one line.
func (e *PanicError) Error() string { return "the site's actor panicked: " + report.OneLine(e.Value) }

// soon is how long a change that operators wait for is held back, so that several
// are published together.
const soon = 300 * time.Millisecond

// Stop asks the site to let go of everything. Answered by Stopped.
type Stop struct{}

// Stopped says that everything was let go.
type Stopped struct{}

// Snapshot asks for []report.Pool.
type Snapshot struct{}

// Command is a message for an image, by its global id. Without an image it is for all of
// the namespace; without a namespace then for all of the pool; without a pool for all.
type Command struct {
	Pool, Namespace, Image string
	Message                messages.ToImage
}

// ReleaseLeader asks to give up the leadership of a pool, or of all if Pool is empty, so
// that another daemon may lead. If nobody takes it, it comes back.
type ReleaseLeader struct{ Pool string }

// Props are the properties of a site's actor. A pool's actor that panics is stopped; a
// new one comes after a back-off (see life). A panic of the site itself ends the system.
func Props(opt Options) *actor.Props {
	stop := actor.NewOneForOneStrategy(0, 0, func(any) actor.Directive { return actor.StopDirective })
	if opt.Ledger == nil {
		opt.Ledger = new(supervision.Ledger)
	}
	return actor.PropsFromProducer(func() actor.Actor {
		return &Site{
			opt: opt, halts: opt.Halts, pools: map[int64]*poolState{}, byPID: map[string]childKey{}, shown: map[childKey]report.Pool{},
			competitions: map[int64]chan struct{}{}, lives: map[childKey]*life{},
		}
	}, actor.WithSupervisor(stop), actor.WithGuardian(stop))
}

// Receive handles one message. A panic goes on to end the actor, and with it the worker.
func (s *Site) Receive(c actor.Context) {
	defer func() {
		if v := recover(); v != nil {
			s.panic = &PanicError{fmt.Sprint(v), string(debug.Stack())}
			s.opt.Log.Error().Str("panic", s.panic.Value).Str("stack", s.panic.Stack).Msg("the site's actor panicked")
			panic(v)
		}
	}()
	switch m := c.Message().(type) {
	case *actor.Started:
		s.find(c)
		s.publishIn(c, s.opt.Publish)
	case *actor.Stopping:
		if !s.ending {
			// Nobody else would start it again: the worker has to.
			err := errSiteDied
			if s.panic != nil {
				err = s.panic
			}
			s.opt.Fenced(err)
		}
	case findDue:
		s.find(c)
	case foundPools:
		s.found(c, m)
	case leads:
		s.leads(c, m)
	case lost:
		s.lost(c, m)
	case follows:
		if p := s.pools[m.pool]; p != nil && p.term == m.term {
			p.leader = m.leader
		}
	case works:
		s.works(c, m)
	case assigned:
		s.assigned(c, m)
	case trashed:
		if p := s.pools[m.pool]; p != nil && p.term == m.term {
			p.tell(c, pool.KickTrash{})
		}
	case prepared:
		s.prepared(c, m)
	case pool.Panicked:
		s.panicked(m)
	case restartDue:
		s.restart(c, m.key)
	case *actor.Terminated:
		s.childEnded(c, m.Who)
	case publishDue:
		s.publish(c)
	case published:
		s.published(c, m.err)
	case messages.ClientFenced:
		s.opt.Fenced(m.Err)
	case Snapshot:
		s.answerSnapshot(c)
	case collected:
		s.collected(c, m)
	case Command:
		s.command(c, m)
	case ReleaseLeader:
		s.releaseLeader(m.Pool)
	case Stop:
		s.stop(c)
	}
}

func (s *Site) later(c actor.Context, d time.Duration, m any) {
	self, system := c.Self(), c.ActorSystem()
	time.AfterFunc(d, func() { system.Root.Send(self, m) })
}

func (s *Site) async(c actor.Context, fn func(ctx context.Context) any) {
	self, system := c.Self(), c.ActorSystem()
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), s.opt.Timeout)
		defer cancel()
		system.Root.Send(self, fn(ctx))
	}()
}

func (s *Site) find(c actor.Context) {
	if s.finding || s.ending {
		return
	}
	s.finding = true
	s.async(c, func(ctx context.Context) any {
		pools, err := s.opt.Find(ctx)
		return foundPools{pools, err}
	})
}

// found compares what was found with what runs.
func (s *Site) found(c actor.Context, m foundPools) {
	s.finding = false
	if s.ending {
		s.maybeEnd(c)
		return
	}
	if m.err != nil {
		// What runs goes on: an unreadable list says nothing about it.
		s.trouble = fmt.Sprintf("cannot look for mirrored pools: %v", m.err)
		s.opt.Log.Error().Err(m.err).Msg("cannot look for mirrored pools")
		s.later(c, min(s.opt.Refresh, 5*time.Second), findDue{})
		return
	}
	s.trouble = ""
	if !s.ready {
		s.ready = true
		s.opt.Ready()
	}
	seen := map[int64]bool{}
	for _, f := range m.pools {
		seen[f.Pool.Pool.ID] = true
		s.foundPool(c, f)
	}
	for id, p := range s.pools {
		if !seen[id] {
			s.opt.Log.Info().Str("pool", p.found.Pool.Pool.Name).Msg("pool is not mirrored any more")
			s.drop(c, id, p)
		}
	}
	s.later(c, s.opt.Refresh, findDue{})
}

func (s *Site) foundPool(c actor.Context, f Found) {
	id := f.Pool.Pool.ID
	p := s.pools[id]
	if p == nil {
		p = &poolState{children: map[childKey]*actor.PID{}, shares: map[string]pool.Share{}}
		s.pools[id] = p
	}
	if f.Err != nil {
		p.trouble, p.calls = f.Err.Error(), unreadable(f.Err)
		s.opt.Log.Error().Err(f.Err).Str("pool", f.Pool.Pool.Name).Msg("cannot read how the pool is mirrored")
		if p.found.Pool.Pool.Name == "" {
			p.found = f
		}
		return
	}
	told := p.calls
	p.found, p.trouble, p.calls = f, "", nil
	peer, others, ok := p.peer()
	if !ok {
		p.trouble = noPeer(f.Peers)
		p.calls = []mirror.Callout{{Level: mirror.CalloutInfo, Text: p.trouble}}
		s.stopChildren(c, p, nil)
		return
	}
	if len(others) > 0 {
		p.calls = []mirror.Callout{severalPeers(f.Pool.Pool.Name, peer, others)}
		if !slices.Equal(told, p.calls) {
			s.opt.Log.Warn().Str("pool", f.Pool.Pool.Name).Msg(p.calls[0].Text)
		}
	}
	if p.cancel == nil {
		s.join(c, id, p)
	}
	p.party.Namespaces(f.Namespaces)
	s.reconcile(c, p)
}

// peer is the peer that the pool is mirrored from, and what other peers it could be
// mirrored from.
func (p *poolState) peer() (peer cephmirror.Peer, others []cephmirror.Peer, ok bool) {
	for _, candidate := range p.found.Peers {
		switch {
		case candidate.UUID == p.found.Source:
			peer, ok = candidate, true
		case candidate.Direction.Receives():
			others = append(others, candidate)
		}
	}
	return peer, others, ok
}

// reconcile starts and ends the actors of a pool's namespaces.
func (s *Site) reconcile(c actor.Context, p *poolState) {
	if !p.works || s.ending {
		return
	}
	peer, _, ok := p.peer()
	if !ok {
		return
	}
	want := map[childKey]bool{}
	for _, ns := range p.found.Namespaces {
		key := p.key(ns, peer)
		want[key] = true
		if p.occupied(ns) || s.waitsForRestart(key) {
			continue
		}
		p.children[key] = nil // being prepared
		found := p.found.Pool
		s.async(c, func(ctx context.Context) any {
			opt, err := s.opt.NewPool(ctx, found, ns, peer)
			return prepared{key, opt, err}
		})
	}
	s.stopChildren(c, p, want)
}

func (s *Site) prepared(c actor.Context, m prepared) {
	p := s.pools[m.key.pool]
	if p == nil || !p.works || s.ending {
		s.discard(m)
		if p != nil {
			delete(p.children, m.key)
			s.forget(m.key.pool, p)
		}
		s.maybeEnd(c)
		return
	}
	if m.err != nil {
		delete(p.children, m.key)
		p.trouble = m.err.Error()
		p.calls = []mirror.Callout{{Level: mirror.CalloutError, Text: noNamespace}, {Level: mirror.CalloutInfo, Text: p.trouble}}
		s.opt.Log.Error().Err(m.err).Str("pool", p.found.Pool.Pool.Name).Str("namespace", m.key.namespace).Msg("cannot mirror the pool")
		return // tried again at the next refresh
	}
	m.opt.Halts = s.halts
	m.opt.Past = s.born(m.key, m.opt.Key.String()).Plus(m.opt.Past)
	party, ns := p.party, m.key.namespace
	m.opt.Listed = func(ids []string, complete bool) { party.Listed(ns, ids, complete) }
	m.opt.Reached = func(answers bool) { party.Reaches(ns, answers) }
	m.opt.Applied = func(epoch uint64) { party.Applied(ns, epoch) }
	pid := c.SpawnPrefix(pool.Props(m.opt), "pool-"+m.opt.Key.String())
	c.Watch(pid)
	p.children[m.key] = pid
	s.byPID[pid.Id] = m.key
	if share, ok := p.shares[ns]; ok {
		c.Send(pid, share)
	}
	c.Send(pid, pool.Lead{Leads: p.leading})
	s.opt.Log.Info().Stringer("pool", m.opt.Key).Str("peer", m.opt.Peer.Site).Msg("mirrors the pool")
}

// stopChildren stops the actors that are not wanted.
func (s *Site) stopChildren(c actor.Context, p *poolState, want map[childKey]bool) {
	for key, pid := range p.children {
		if pid != nil && !want[key] {
			c.Request(pid, pool.Stop{})
		}
	}
}

func (s *Site) childEnded(c actor.Context, who *actor.PID) {
	key, ok := s.byPID[who.Id]
	if !ok {
		return
	}
	delete(s.byPID, who.Id)
	delete(s.shown, key)
	p := s.pools[key.pool]
	if p != nil {
		delete(p.children, key)
		p.appliedIfIdle(key.namespace)
		s.forget(key.pool, p)
	}
	s.maybeEnd(c)
	if s.ending || p == nil || !p.works {
		return
	}
	s.died(c, key)
	s.reconcile(c, p) // it may be wanted again by now, or another in its place
}

func (s *Site) leads(c actor.Context, m leads) {
	p := s.pools[m.pool]
	if p == nil || p.term != m.term {
		return
	}
	p.leading, p.leader = true, ""
	p.tell(c, pool.Lead{Leads: true})
	s.publishIn(c, soon)
}

func (s *Site) lost(c actor.Context, m lost) {
	p := s.pools[m.pool]
	if p == nil || p.term != m.term {
		return
	}
	p.leading = false
	p.tell(c, pool.Lead{Leads: false})
	s.publishIn(c, soon)
}

// works starts or ends the actors of a pool's namespaces.
func (s *Site) works(c actor.Context, m works) {
	p := s.pools[m.pool]
	if p == nil || p.term != m.term {
		return
	}
	p.works, p.standsBy = m.works, m.why
	if p.works {
		s.reconcile(c, p)
	} else {
		s.opt.Log.Info().Str("pool", p.found.Pool.Pool.Name).Str("why", m.why).Msg("stands by")
		s.stopChildren(c, p, nil)
	}
	s.publishIn(c, soon)
}

// assigned hands a new share to the namespace's actor.
func (s *Site) assigned(c actor.Context, m assigned) {
	p := s.pools[m.pool]
	if p == nil || p.term != m.term {
		return
	}
	p.shares[m.namespace] = m.share
	for key, pid := range p.children {
		if pid != nil && key.namespace == m.namespace {
			c.Send(pid, m.share)
		}
	}
	p.appliedIfIdle(m.namespace)
}

// appliedIfIdle tells that a namespace without an actor runs nothing.
func (p *poolState) appliedIfIdle(namespace string) {
	if share, ok := p.shares[namespace]; ok && !p.occupied(namespace) {
		p.party.Applied(namespace, share.Epoch)
	}
}

// tell sends a message to the actors of all namespaces.
func (p *poolState) tell(c actor.Context, m any) {
	for _, pid := range p.children {
		if pid != nil {
			c.Send(pid, m)
		}
	}
}

// drop ends everything about a pool.
func (s *Site) drop(c actor.Context, id int64, p *poolState) {
	s.stopChildren(c, p, nil)
	if p.cancel != nil {
		p.cancel()
		p.cancel = nil
	}
	p.leading, p.works, p.term = false, false, 0
	clear(p.shares)
	if len(p.children) == 0 {
		delete(s.pools, id)
	}
}

// stop ends everything in order: the images, then the leadership.
func (s *Site) stop(c actor.Context) {
	s.ending, s.asked = true, c.Sender()
	for _, p := range s.pools {
		if p.cancel != nil {
			p.party.Leaving()
		}
		s.stopChildren(c, p, nil)
	}
	s.maybeEnd(c)
}

func (s *Site) maybeEnd(c actor.Context) {
	if !s.ending || s.finding {
		return
	}
	for _, p := range s.pools {
		if len(p.children) > 0 {
			return
		}
	}
	for _, p := range s.pools {
		if p.cancel != nil {
			p.cancel()
			p.cancel = nil
		}
	}
	if s.asked != nil {
		c.Send(s.asked, Stopped{})
		s.asked = nil
	}
}

// command hands a message on to the images that it is for.
func (s *Site) command(c actor.Context, m Command) {
	if wish, ok := pool.Wish(m.Message); ok {
		wish.Pool, wish.Namespace, wish.GlobalID = m.Pool, m.Namespace, m.Image
		s.halts = s.halts.With(wish)
	}
	for _, p := range s.pools {
		if m.Pool != "" && m.Pool != p.found.Pool.Pool.Name {
			continue
		}
		for key, pid := range p.children {
			if pid != nil && (m.Image == "" && m.Namespace == "" || key.namespace == m.Namespace) {
				c.RequestWithCustomSender(pid, messages.ToImageNamed{GlobalID: m.Image, Message: m.Message}, c.Sender())
			}
		}
	}
}

func (s *Site) releaseLeader(name string) {
	for _, p := range s.pools {
		if p.leading && (name == "" || name == p.found.Pool.Pool.Name) {
			p.party.Release()
		}
	}
}

// ids are the pools in a fixed order.
func (s *Site) ids() []int64 {
	ids := make([]int64, 0, len(s.pools))
	for id := range s.pools {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
