package coordinator

import (
	"time"

	"github.com/rbdwarden/rbdwarden/cluster/leader"
	"github.com/rbdwarden/rbdwarden/cluster/membership"
)

// What a member's record says of the primary's cluster, under extraRemote; nothing if it does not know.
const (
	remoteAnswers = "answers"
	remoteSilent  = "silent"
)

const (
	// cutAfter is how long a member must have said that the primary's cluster is silent until its
	// images are given to others. They ask every 30 s, and wait for 30 s: an outage of that
	// cluster is seen by all of them within this time, and moves nothing.
	cutAfter = time.Minute
	// trusted is how long it must have answered a member until others are judged by it, and until
	// it gets images again after it was cut off: all have seen the end of an outage by then.
	trusted = 2 * time.Minute
	// unseen is how long the leader may not have looked, until it takes that time for none.
	unseen = 10 * time.Second
)

// Reaches says whether the primary's cluster answers, as far as a namespace's images are concerned.
func (c *Coordinator) Reaches(namespace string, answers bool) {
	says := remoteSilent
	if answers {
		says = remoteAnswers
	}
	c.mu.Lock()
	l := c.lists[namespace]
	same := l.remote == says
	l.remote = says
	c.lists[namespace] = l
	c.announce, c.cutOff = c.announce || !same, c.cutOff && !answers
	c.mu.Unlock()
	if !same { // pools tell again and again
		c.poke()
	}
}

// remote is what our record says of the primary's cluster; mu is held.
func (c *Coordinator) remote() (says string) {
	for _, l := range c.lists {
		switch {
		case !l.mirrored || l.remote == "":
		case l.remote == remoteSilent:
			return remoteSilent
		default:
			says = l.remote
		}
	}
	return says
}

// reach is what the leader knows of who reaches the primary's cluster.
type reach struct {
	of     *leader.Term
	seen   map[string]sighting // by member
	hosts  map[string]bool     // where a member was cut off that has ended: another one there is no better
	looked time.Time
}

// sighting is what a member says, and since when the leader has heard it say so.
type sighting struct {
	host  string
	says  string
	since time.Time
	cut   bool
}

func newReach(of *leader.Term) *reach {
	return &reach{of: of, seen: map[string]sighting{}, hosts: map[string]bool{}}
}

// judge tells which members are cut off: those that are so for a while, when another member has reached
// the primary's cluster for longer and would take their images.
func (r *reach) judge(v membership.View, now time.Time) (cut map[string]bool) {
	missed := time.Duration(0)
	if d := now.Sub(r.looked); !r.looked.IsZero() && d > unseen {
		missed = d
	}
	r.looked = now
	r.forget(v)
	able := false
	for _, m := range v.Members {
		s, known := r.seen[m.ID]
		if says := m.Extra[extraRemote]; !known || s.says != says {
			s.says, s.since = says, now
		} else {
			s.since = s.since.Add(missed)
		}
		s.host = m.Host
		s.cut = s.cut || !known && s.says == "" && r.hosts[m.Host]
		if s.says == remoteAnswers && now.Sub(s.since) >= trusted {
			s.cut = false
			delete(r.hosts, m.Host)
		}
		r.seen[m.ID] = s
		able = able || !s.cut && !m.Draining && s.says == remoteAnswers && now.Sub(s.since) >= trusted
	}
	if !able {
		return nil
	}
	cut = map[string]bool{}
	for id, s := range r.seen {
		if s.says == remoteSilent && now.Sub(s.since) >= cutAfter {
			s.cut = true
			r.seen[id] = s
		}
		if s.cut {
			cut[id] = true
		}
	}
	return cut
}

// forget drops those who are no members any more, but not that their hosts were cut off.
func (r *reach) forget(v membership.View) {
	for id, s := range r.seen {
		if _, lives := v.Find(id); !lives {
			if s.cut {
				r.hosts[s.host] = true
			}
			delete(r.seen, id)
		}
	}
}

// judgeReach looks who is cut off, while we lead. A leader that is so leaves the lead to others:
// it does not see which images are new on the primary.
func (c *Coordinator) judgeReach(in inputs) {
	switch {
	case in.term == nil:
		c.reach, c.cut = nil, nil
		return
	case in.view.Frozen:
		return // nothing is decided, either
	case c.reach == nil || c.reach.of != in.term:
		c.reach = newReach(in.term)
	}
	c.cut = c.reach.judge(in.view, time.Now())
	if !c.cut[c.group.ID()] {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cutOff = true
	select {
	case c.doubt <- struct{}{}:
	default:
	}
}
