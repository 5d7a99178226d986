package main

import (
	"context"
	"strconv"
	"time"

	"github.com/rbdwarden/rbdwarden/actors/site"
	"github.com/rbdwarden/rbdwarden/cluster/coordinator"
	"github.com/rbdwarden/rbdwarden/cluster/membership"
	"github.com/rbdwarden/rbdwarden/cluster/placement"
	"github.com/rbdwarden/rbdwarden/config"
	"github.com/rbdwarden/rbdwarden/rados"
)

// party is this worker's part in a pool, whose end the worker waits for.
type party struct {
	*coordinator.Coordinator
	w    *wiring
	pool int64
}

// Run takes part until ctx ends.
func (p *party) Run(ctx context.Context, told coordinator.Told) {
	p.w.background.Add(1)
	defer p.w.background.Done()
	leads, follows := told.Leads, told.Follows
	told.Leads = func() { leads(); p.w.slotsOf(p.pool).Hello() }
	told.Follows = func(leader string) { follows(leader); p.w.slotsOf(p.pool).Hello() }
	p.Coordinator.Run(ctx, told)
	p.w.mu.Lock()
	if p.w.parties[p.pool] == p { // and not a later one
		delete(p.w.parties, p.pool)
	}
	p.w.mu.Unlock()
	if p.w.network != nil {
		p.w.network.left(p.pool)
	}
}

// join makes this worker's part in a pool.
func (w *wiring) join(id int64) site.Party {
	self := membership.Member{
		ID: strconv.FormatUint(w.local.InstanceID(), 10), Host: w.host, Identity: w.self.String(), Seat: w.seat, Index: w.index, Started: time.Now(),
	}
	w.mu.Lock()
	defer w.mu.Unlock() // the address is either in what follows, or told to it afterwards
	self.Draining = w.drained != ""
	var changed func(membership.View)
	if n := w.network; n != nil {
		self.Address, self.Fingerprint = n.published()
		changed = func(v membership.View) { n.changed(id, v) }
	}
	var loads func(ctx context.Context, members []string) map[string]coordinator.Loads
	if n := w.network; n != nil && w.placement.Policy == placement.Balanced {
		loads = func(ctx context.Context, members []string) map[string]coordinator.Loads {
			return n.loadsOf(ctx, id, members)
		}
	}
	p := &party{w: w, pool: id, Coordinator: coordinator.New(coordinator.Options{
		Open: func(ctx context.Context, namespace string) (rados.IOContext, error) {
			return w.local.OpenID(ctx, id, namespace)
		},
		Self: self, Changed: changed, Loads: loads,
		Siblings: w.options.Warden.WorkerCount(), KnownDead: w.self.KnownDead, AwaitDeath: w.self.AwaitDeath,
		Heartbeat:       w.options.LeaderHeartbeatInterval,
		BlocklistExpire: w.options.BlocklistExpire, Placement: w.placement,
		Log: w.log.With().Int64("pool_id", id).Logger(),
	})}
	w.parties[id] = p
	return p
}

// trashed tells who leads the pool that there is something in the trash.
func (w *wiring) trashed(pool int64) {
	w.mu.Lock()
	p := w.parties[pool]
	w.mu.Unlock()
	if p != nil {
		p.Trashed()
	}
}

// knownDead tells whether the owner of a lock is certainly dead: a process of this host
// that is gone, or one that a leader has fenced.
func (w *wiring) knownDead(description string) bool {
	if w.self.KnownDead(description) {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.parties {
		if p.Fenced(description) {
			return true
		}
	}
	return false
}

// placementOptions are how images are shared out, by Ceph's options.
func placementOptions(o config.Options) (placement.Options, error) {
	policy, err := placement.ForCeph(o.ImagePolicyType)
	if err != nil {
		return placement.Options{}, err
	}
	p := placement.Defaults()
	p.Policy, p.MigrationThrottle = policy, o.ImagePolicyMigrationThrottle
	p.UpdateThrottle, p.RebalanceTimeout = o.ImagePolicyUpdateThrottle, o.ImagePolicyRebalanceTimeout
	p.LeastLoad = leastLoad
	if policy == placement.Balanced && !o.Warden.BalanceLoad {
		p.Policy = placement.Simple
	}
	return p, nil
}
