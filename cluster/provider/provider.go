// Package provider makes protoactor's cluster of what membership tells: it is the library's
// ClusterProvider and IdentityLookup over RADOS, and lets the transport admit whom
// membership says lives.
//
//	membership of pool a ─┐            ┌─▶ transport.Admit: who lives, and by which certificate
//	membership of pool b ─┼─▶ Provider ┤
//	                      ┘            └─▶ MemberList.UpdateClusterTopology: who is a member
//	image map ──────────────▶ Lookup ────▶ cluster.Get(image): the actor of the worker that owns it
//
// # What of the library's cluster runs
//
// Its MemberList and its Get. The rest is not started, for it brings its own ideas of who
// lives, which would stand beside those of RADOS:
//
//   - Gossip takes members for dead by its own heartbeats, and blocks them for the life of the
//     process. Whom it blocks here would be whom a busy host was late for.
//   - Its lookups (disthash and others) activate an actor wherever a hash says: two members
//     with different lists activate it twice. Who owns an image is in the image map, under the
//     leader's lock, and nowhere else; so nothing is cached either.
//   - Publish/subscribe and kinds would let members spawn actors here.
//   - Its remote listens before anything is pinned, ends the process at some messages, sets
//     gRPC's logger for the whole process, and sleeps for seconds when it starts, stops and
//     does not reach somebody. Package transport speaks its protocol instead.
//
// # Rules
//
//   - Who is a member is the union over the pools. A view that is frozen, because RADOS cannot
//     be read, does not shrink, and neither does the list.
//   - Who is silent is not admitted, for it may be dead, but stays in the list until it was
//     fenced or has left. The library blocks for ever whoever leaves its list; so whoever
//     comes back after all, as a worker does when a pool is mirrored again, comes back under
//     another name there.
package provider

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/cluster"
	"github.com/asynkron/protoactor-go/remote"

	"github.com/rbdwarden/rbdwarden/cluster/membership"
	"github.com/rbdwarden/rbdwarden/cluster/transport"
)

// Provider is the cluster that a member is in. It implements cluster.ClusterProvider.
type Provider struct {
	self  string
	admit func([]transport.Peer)

	mu      sync.Mutex // one update at a time, and guards what follows
	cluster *cluster.Cluster
	views   map[int64]membership.View // by pool
	listed  map[string]bool           // ids in the library's list
	left    map[string]int            // how often an id has left it
}

// fingerprintSeparator is between the fingerprints in a record.
const fingerprintSeparator = ","

// Fingerprints puts fingerprints into a member's record.
func Fingerprints(prints []string) string { return strings.Join(prints, fingerprintSeparator) }

// Start makes a system a member of the cluster of that name, with a lookup of its own. self
// is its id; admit is transport.Transport.Admit.
func Start(system *actor.ActorSystem, name, self string, lookup cluster.IdentityLookup, admit func([]transport.Peer)) (*Provider, *cluster.Cluster, error) {
	p := &Provider{self: self, admit: admit, views: map[int64]membership.View{}, listed: map[string]bool{}, left: map[string]int{}}
	config := cluster.Configure(name, p, lookup, remote.Configure("", 0))
	c := cluster.New(system, config)
	// What Cluster.StartMember does, without gossip, kinds, publish/subscribe, and a second's
	// sleep. The library's remote is never started: the list only asks it whom it blocks.
	c.Remote = remote.NewRemote(system, config.RemoteConfig)
	c.IdentityLookup = lookup
	lookup.Setup(c, nil, false)
	return p, c, p.StartMember(c)
}

// StartMember implements cluster.ClusterProvider.
func (p *Provider) StartMember(c *cluster.Cluster) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cluster = c
	p.update()
	return nil
}

// StartClient implements cluster.ClusterProvider: who is no member is admitted by nobody.
func (p *Provider) StartClient(*cluster.Cluster) error {
	return fmt.Errorf("only members of a pool can take part")
}

// Shutdown implements cluster.ClusterProvider. To leave is membership's business.
func (p *Provider) Shutdown(bool) error { return nil }

// Changed takes a pool's new view in.
func (p *Provider) Changed(pool int64, v membership.View) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.views[pool] = v
	p.update()
}

// Ended says that this member has left a pool.
func (p *Provider) Ended(pool int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.views, pool)
	p.update()
}

// update tells transport and library who is there. The caller has the lock.
func (p *Provider) update() {
	living, all := union(p.views)
	delete(living, p.self)
	peers := make([]transport.Peer, 0, len(living))
	for _, id := range slices.Sorted(maps.Keys(living)) {
		peers = append(peers, living[id])
	}
	p.admit(peers)
	if p.cluster == nil {
		return
	}
	for id := range p.listed {
		if _, there := all[id]; !there {
			p.left[id]++
			delete(p.listed, id)
		}
	}
	members := cluster.Members{{Id: p.self, Host: p.self}}
	for _, id := range slices.Sorted(maps.Keys(all)) {
		if id == p.self {
			continue
		}
		p.listed[id] = true
		m := &cluster.Member{Id: id, Host: id}
		if n := p.left[id]; n > 0 {
			m.Id = id + "#" + strconv.Itoa(n)
		}
		if host, text, err := net.SplitHostPort(all[id].Address); err == nil {
			if port, err := strconv.ParseInt(text, 10, 32); err == nil {
				m.Host, m.Port = host, int32(port)
			}
		}
		members = append(members, m)
	}
	p.cluster.MemberList.UpdateClusterTopology(members)
}

// union is who lives in any of the pools, and who is a member of any of them: also those who
// are silent, and not fenced yet.
func union(views map[int64]membership.View) (living, all map[string]transport.Peer) {
	living, all = map[string]transport.Peer{}, map[string]transport.Peer{}
	for _, pool := range slices.Sorted(maps.Keys(views)) {
		v := views[pool]
		for _, m := range v.Members {
			add(living, m)
			add(all, m)
		}
		for _, d := range v.Dead {
			if !d.Fenced {
				add(all, d.Member)
			}
		}
	}
	for _, v := range views { // whom one pool's leader has fenced lives in none
		for _, d := range v.Dead {
			if d.Fenced {
				delete(living, d.ID)
				delete(all, d.ID)
			}
		}
	}
	return living, all
}

// add adds what a record says of a member to what others say.
func add(to map[string]transport.Peer, m membership.Member) {
	p, known := to[m.ID]
	if !known {
		p = transport.Peer{ID: m.ID, Host: m.Host}
	}
	if m.Address != "" {
		p.Address = m.Address
	}
	for f := range strings.SplitSeq(m.Fingerprint, fingerprintSeparator) {
		if f != "" && !slices.Contains(p.Fingerprints, f) {
			p.Fingerprints = append(p.Fingerprints, f)
		}
	}
	to[m.ID] = p
}
