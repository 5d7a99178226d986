package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/cluster"
	"github.com/rs/zerolog"

	cls "github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/cluster/coordinator"
	"github.com/rbdwarden/rbdwarden/cluster/imagemap"
	"github.com/rbdwarden/rbdwarden/cluster/membership"
	"github.com/rbdwarden/rbdwarden/cluster/provider"
	"github.com/rbdwarden/rbdwarden/cluster/transport"
	clusterv1 "github.com/rbdwarden/rbdwarden/proto/cluster/v1"
	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/rados"
)

// network is this worker's place among all workers of the site: what it asks them, and what
// it answers. Views and commands go by it. Nothing that replicates or places images does.
type network struct {
	self      string // this worker's id
	daemon    string // its daemon, as in coordinator.Daemon
	fsid      string
	system    *actor.ActorSystem
	transport *transport.Transport
	provider  *provider.Provider
	cluster   *cluster.Cluster
	// ask asks this worker's daemon.
	ask  func(ctx context.Context, ask *controlv1.Ask) (*controlv1.Told, error)
	open func(ctx context.Context, pool int64, namespace string) (rados.IOContext, error)
	// party is this worker's part in a pool; nil if it has none.
	party func(pool int64) mover
	// slots hears what a member says of its image-sync slots.
	slots func(q *clusterv1.SlotQuestion) (granted []uint64, err error)
	busy  chan struct{} // a token for each question that is being answered

	mu                   sync.Mutex
	views                map[int64]membership.View // by pool
	address, fingerprint string
	// measure tells what our images of a pool take; nil: it is not known yet.
	measure func(pool int64) (coordinator.Loads, error)
}

// receptionist is the name of the actor that takes other workers' questions.
const receptionist = "member"

const (
	maxQuestions  = 16
	lookupTimeout = 2 * time.Second
)

// newNetwork makes the worker's place. It has to be made before the system has actors.
func (w *wiring) newNetwork(system *actor.ActorSystem, ask func(context.Context, *controlv1.Ask) (*controlv1.Told, error)) (*network, error) {
	n := &network{
		self: strconv.FormatUint(w.local.InstanceID(), 10), daemon: coordinator.Daemon(w.seat), fsid: w.local.FSID(), system: system, ask: ask,
		open: func(ctx context.Context, pool int64, namespace string) (rados.IOContext, error) {
			return w.local.OpenID(ctx, pool, namespace)
		},
	}
	bind := transport.Bind{Configured: w.options.Warden.BindAddress, Local: localAddress(w.local.Addresses()), Index: w.index}
	n.slots = func(q *clusterv1.SlotQuestion) ([]uint64, error) {
		return w.hearSlots(q.GetPoolId(), slotWord{q.GetMember(), q.GetSequence(), q.GetHolding(), q.GetWanting()})
	}
	n.party = func(pool int64) mover {
		w.mu.Lock()
		defer w.mu.Unlock()
		if p := w.parties[pool]; p != nil {
			return p
		}
		return nil
	}
	return n, n.assemble(bind, func(address, fingerprint string) { w.reached(n, address, fingerprint) }, w.log)
}

// assemble makes the parts of the network.
func (n *network) assemble(bind transport.Bind, published func(address, fingerprint string), log zerolog.Logger) error {
	n.busy, n.views = make(chan struct{}, maxQuestions), map[int64]membership.View{}
	var err error
	n.transport, err = transport.New(transport.Options{
		System: n.system, Self: n.self, FSID: n.fsid, Log: log, Bind: bind,
		Messages: []transport.Message{&clusterv1.Question{}, &clusterv1.Answer{}}, Exposed: []string{receptionist},
		Published: func(address string, fingerprints []string) { published(address, provider.Fingerprints(fingerprints)) },
	})
	if err != nil {
		return err
	}
	lookup := &provider.Lookup{Owner: n.owner, Knows: n.transport.Knows, Actor: receptionist, Timeout: lookupTimeout}
	if n.provider, n.cluster, err = provider.Start(n.system, n.fsid, n.self, lookup, n.transport.Admit); err != nil {
		return err
	}
	_, err = n.system.Root.SpawnNamed(actor.PropsFromFunc(n.receive), receptionist)
	return err
}

// localAddress is the address by which a client reaches its cluster; invalid if it cannot be
// told.
func localAddress(addresses string) netip.Addr {
	all, err := cls.ParseEntityAddrs(addresses)
	if err != nil {
		return netip.Addr{}
	}
	for _, a := range all {
		if ip := a.Addr.Addr(); ip.IsValid() && !ip.IsUnspecified() {
			return ip.Unmap()
		}
	}
	return netip.Addr{}
}

// reached puts into the records of all pools where this worker listens.
func (w *wiring) reached(n *network, address, fingerprint string) {
	n.mu.Lock()
	n.address, n.fingerprint = address, fingerprint
	n.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.parties {
		p.Reached(address, fingerprint)
	}
}

// published is what the records of this worker say of where it listens.
func (n *network) published() (address, fingerprint string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.address, n.fingerprint
}

// owner is who owns an image by the map.
func (n *network) owner(ctx context.Context, image provider.Image) (string, error) {
	io, err := n.open(ctx, image.PoolID, image.Namespace)
	if err != nil {
		return "", err
	}
	defer io.Close()
	e, _, err := imagemap.ReadEntry(ctx, io, image.GlobalID)
	return e.Owner, err
}

// changed takes a pool's view of the members.
func (n *network) changed(pool int64, v membership.View) {
	n.mu.Lock()
	n.views[pool] = v
	n.mu.Unlock()
	n.provider.Changed(pool, v)
}

// left says that this worker has left a pool.
func (n *network) left(pool int64) {
	n.mu.Lock()
	delete(n.views, pool)
	n.mu.Unlock()
	n.provider.Ended(pool)
}

// neighbour is a daemon of the site, as the members' records tell of it.
type neighbour struct {
	host   string
	pid    int
	living []string // ids of its members, in the order of their indexes
	dead   []membership.Dead
}

// neighbours are all daemons of the site, this one included, and whether what is known of
// them is old.
func (n *network) neighbours() (all []*neighbour, frozen bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	by := map[string]*neighbour{}
	of := func(m membership.Member) *neighbour {
		d := coordinator.Daemon(m.Seat)
		if by[d] == nil {
			by[d] = &neighbour{host: m.Host, pid: daemonPID(d)}
		}
		return by[d]
	}
	indexes, fenced := map[string]int{}, map[string]bool{}
	for _, v := range n.views {
		frozen = frozen || v.Frozen
		for _, d := range v.Dead {
			fenced[d.ID] = fenced[d.ID] || d.Fenced
		}
	}
	for _, v := range n.views {
		for _, m := range v.Members {
			if d := of(m); !fenced[m.ID] && !slices.Contains(d.living, m.ID) {
				d.living = append(d.living, m.ID)
				indexes[m.ID] = m.Index
			}
		}
		for _, m := range v.Dead {
			if d := of(m.Member); !slices.ContainsFunc(d.dead, func(o membership.Dead) bool { return o.ID == m.ID }) {
				d.dead = append(d.dead, m)
			}
		}
	}
	for _, d := range by {
		slices.SortFunc(d.living, func(a, b string) int { return indexes[a] - indexes[b] })
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b *neighbour) int {
		if a.host != b.host {
			return strings.Compare(a.host, b.host)
		}
		return a.pid - b.pid
	})
	return all, frozen
}

// daemonPID is the process of a daemon, by coordinator.Daemon; 0 if it has none.
func daemonPID(daemon string) int {
	pid, err := strconv.Atoi(daemon[strings.LastIndexByte(daemon, '/')+1:])
	if err != nil {
		return 0
	}
	return pid
}

// again is the time between two attempts to reach a worker.
const again = 100 * time.Millisecond

// question asks a worker, until ctx ends. What cannot be delivered is tried again.
func (n *network) question(ctx context.Context, id string, q *clusterv1.Question) (*clusterv1.Answer, error) {
	a, err := n.exchange(ctx, id, q)
	if err == nil && a.GetError() != "" {
		return nil, errors.New(a.GetError())
	}
	return a, err
}

// hearPatience is how long a worker is given to say that it hears us, which takes it no time.
const hearPatience = 5 * time.Second

// order is a question that may take its time: only a worker that hears us is waited for.
// To a question with nothing in it there is an answer, too: that this is no question.
func (n *network) order(ctx context.Context, id string, q *clusterv1.Question) (*clusterv1.Answer, error) {
	hears, cancel := context.WithTimeout(ctx, hearPatience)
	defer cancel()
	if _, err := n.exchange(hears, id, &clusterv1.Question{}); err != nil {
		return nil, err
	}
	return n.question(ctx, id, q)
}

// exchange is question, for any answer.
func (n *network) exchange(ctx context.Context, id string, q *clusterv1.Question) (*clusterv1.Answer, error) {
	for {
		left := time.Minute
		if d, ok := ctx.Deadline(); ok {
			left = time.Until(d)
		}
		q.TimeoutNanos = max(0, left).Nanoseconds()
		future := n.system.Root.RequestFuture(actor.NewPID(id, receptionist), q, max(left, time.Millisecond))
		r, err := future.Result()
		if a, ok := r.(*clusterv1.Answer); err == nil && ok {
			return a, nil
		}
		trouble := n.transport.Trouble(id)
		if !errors.Is(err, actor.ErrDeadLetter) {
			if trouble == nil {
				return nil, fmt.Errorf("it does not answer")
			}
			return nil, trouble
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(errors.New("it cannot be reached"), trouble)
		case <-time.After(again):
		}
	}
}
