package coordinator

import (
	"context"
	"fmt"
	"strings"

	"github.com/rbdwarden/rbdwarden/cluster/identity"
	"github.com/rbdwarden/rbdwarden/cluster/leader"
	"github.com/rbdwarden/rbdwarden/rados"
)

// Leader is the id of the member that leads the pool, "" if that is not known or not one of ours.
func (c *Coordinator) Leader() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.term != nil && c.group != nil:
		return c.group.ID()
	case c.foreign != "":
		return ""
	}
	return c.leader
}

// Term is the term in which we lead, nil while we do not. Terms can be compared.
func (c *Coordinator) Term() any {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.term == nil {
		return nil
	}
	return c.term
}

// ours tells by the description of a leader's lock whether the leader is an rbd-warden.
func ours(description string) bool {
	_, ok := identity.Parse(description)
	return ok
}

// compete competes for the leadership until ctx ends.
func (c *Coordinator) compete(ctx context.Context, io rados.IOContext) {
	leader.Run(ctx, io, leader.Options{
		Heartbeat: c.opt.Heartbeat, Description: c.opt.Self.Identity, BlocklistExpire: c.opt.BlocklistExpire, Wake: c.doubt, Abstain: c.abstains, Ours: ours,
		KnownDead: func(description string) bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.opt.KnownDead(description) || c.view.KnownDead(description)
		},
		Leads: func(term *leader.Term) {
			c.set(func() { c.term, c.foreign, c.follows = term, "", true })
			c.told.Leads()
		},
		Lost: func(reason error) {
			c.set(func() { c.term = nil })
			c.told.Lost(reason)
		},
		Follows: func(name string, ours bool) {
			foreign := ""
			if !ours {
				foreign = fmt.Sprintf("%s, which is no rbd-warden, leads the pool", name)
			}
			c.set(func() { c.foreign, c.follows, c.leader = foreign, true, strings.TrimPrefix(name, "client.") })
			c.told.Follows(name)
		},
		Fenced: c.told.Fenced, Release: c.release, Log: c.opt.Log,
	})
}
