package coordinator

import (
	"time"

	"github.com/rbdwarden/rbdwarden/cluster/membership"
)

// What a member's record says of the primary's cluster, under extraRemote; nothing if it does not know.
const (
	remoteAnswers = "answers"
	remoteSilent  = "silent"
)

const (
	// cutAfter is how long a member must have said that the primary's cluster is silent, and
	// another one that it answers, until the one's images are given to the others. Members ask
	// twice a minute: an outage of the primary's cluster is seen by all of them within this time,
	// and moves nothing.
	cutAfter = 45 * time.Second
	// backAfter is how long it must have answered until the member gets images again.
	backAfter = 2 * time.Minute
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
	if answers {
		c.cutOff = false
	}
	c.mu.Unlock()
	if !same {
		c.set(func() { c.announce = true })
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
type reach map[string]sighting

// sighting is what a member says, and since when the leader has heard it say so.
type sighting struct {
	says  string
	since time.Time
	cut   bool
}

// judge tells which members are cut off: those that are so for a while, when another member has reached
// the primary's cluster for as long and would take their images.
func (r reach) judge(v membership.View, now time.Time) (cut map[string]bool) {
	able := false
	for _, m := range v.Members {
		s := r[m.ID]
		if says := m.Extra[extraRemote]; s.since.IsZero() || s.says != says {
			s.says, s.since = says, now
		}
		if s.says == remoteAnswers && now.Sub(s.since) >= backAfter {
			s.cut = false
		}
		r[m.ID] = s
		able = able || !s.cut && !m.Draining && s.says == remoteAnswers && now.Sub(s.since) >= cutAfter
	}
	for id := range r {
		if _, lives := v.Find(id); !lives {
			delete(r, id)
		}
	}
	if !able {
		return nil
	}
	cut = map[string]bool{}
	for id, s := range r {
		if s.says == remoteSilent && now.Sub(s.since) >= cutAfter {
			s.cut = true
			r[id] = s
		}
		if s.cut {
			cut[id] = true
		}
	}
	return cut
}

// judgeReach looks who is cut off, while we lead. A leader that is so leaves the lead to others:
// it does not see which images are new on the primary.
func (c *Coordinator) judgeReach(in inputs) {
	if in.term == nil || in.view.Frozen {
		c.reach, c.cut = reach{}, nil
		return
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
