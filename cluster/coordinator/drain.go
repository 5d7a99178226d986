package coordinator

import (
	"slices"

	"github.com/rbdwarden/rbdwarden/cluster/membership"
	"github.com/rbdwarden/rbdwarden/cluster/placement"
)

// Drain says whether this member is to give its images away, and the leadership if another
// can have it. It may be said again and again.
func (c *Coordinator) Drain(on bool) { c.drain(func() { c.drains = on }) }

// drain changes why this member is draining, and puts it into the record.
func (c *Coordinator) drain(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
	draining := c.drains || c.left // who leaves never wants images again
	c.opt.Self.Draining = draining
	if c.group != nil {
		c.group.SetDraining(draining)
	}
	select {
	case c.doubt <- struct{}{}: // perhaps we are the leader, and are to be it no more
	default:
	}
}

// abstains tells whether the leadership is to be another's: a member that drains is about to
// end, and each change of leader is work for all; one that is cut off from the primary does not see
// what is new there, but gives its images away first: its successor has to make sure once
// more. Who does not hear the primary does not take a lead that is free, either, while others hear it.
func (c *Coordinator) abstains() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	takers := c.takers()
	if !c.drains {
		gone := len(c.holds) == 0 || c.opt.Placement.Policy == placement.None // with which the lead takes all with it
		if c.term == nil && c.remote() != remoteSilent || c.term != nil && (!c.cutOff || !gone) {
			return false
		}
		takers = slices.DeleteFunc(takers, func(m membership.Member) bool { return m.Extra[extraRemote] != remoteAnswers })
	}
	return !c.view.Frozen && len(takers) > 0
}

// takers are the other members that take images; mu is held.
func (c *Coordinator) takers() []membership.Member {
	self := ""
	if c.group != nil {
		self = c.group.ID()
	}
	return slices.DeleteFunc(slices.Clone(c.view.Members), func(m membership.Member) bool { return m.ID == self || m.Draining })
}

// hold notes how many images of a namespace the map gives to this member.
func (c *Coordinator) hold(namespace string, images int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if images == 0 {
		delete(c.holds, namespace)
	} else {
		c.holds[namespace] = images
	}
}

// Part is what a member has of a pool, and who could take it.
type Part struct {
	// Images is how many images the map gives to it, in all namespaces.
	Images int
	// Takers are the other living members that do not drain.
	Takers []membership.Member
	// Frozen: this is what was last known.
	Frozen bool
}

// Part tells what this member has now.
func (c *Coordinator) Part() Part {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := Part{Takers: c.takers(), Frozen: c.view.Frozen}
	for _, n := range c.holds {
		p.Images += n
	}
	return p
}
