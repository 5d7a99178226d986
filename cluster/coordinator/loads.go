package coordinator

import (
	"context"
	"time"

	"github.com/rbdwarden/rbdwarden/cluster/imagemap"
	"github.com/rbdwarden/rbdwarden/cluster/membership"
)

// Loads are what running images takes, by namespace and global id, in any unit that is the same for all
// members. What a member does not list costs it nothing worth telling.
type Loads map[string]map[string]float64

const (
	// askLoads is the time between two rounds of asking the members for their loads.
	askLoads = 30 * time.Second
	// loadsLast is how long what a member said of its loads counts.
	loadsLast = 3 * askLoads
	// answerLoads bounds a round.
	answerLoads = 5 * time.Second
)

// gather asks all members for their loads, now and then, while we lead. Nothing waits for it:
// it is a hint for balance.
func (c *Coordinator) gather(ctx context.Context, in inputs) {
	if c.opt.Loads == nil || in.term == nil || in.view.Frozen || time.Since(c.asked) < askLoads && c.askedFor == in.term {
		return
	}
	c.asked, c.askedFor = time.Now(), in.term
	var ids []string
	for _, m := range in.view.Members {
		ids = append(ids, m.ID)
	}
	c.asking.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, answerLoads)
		defer cancel()
		said := c.opt.Loads(ctx, ids)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.loads = said // the next look takes it: nothing is urgent about it
	})
}

// loads is what the leader knows of the loads of a namespace's images.
type loads struct {
	images map[string]float64
	heard  map[string]time.Time // by member: when it said so
}

// take takes in what members said. wall is by the clock that dates the map.
func (l *loads) take(said map[string]Loads, namespace string, m imagemap.Map, wall time.Time) {
	if len(said) == 0 {
		return
	}
	if l.heard == nil {
		l.heard = map[string]time.Time{}
	}
	for member := range said {
		l.heard[member] = time.Now()
	}
	known := make(map[string]float64, len(m.Images))
	for id, e := range m.Images {
		load, told := said[e.Owner][namespace][id]
		_, answered := said[e.Owner]
		// Who has got an image only now has not measured it: what was known of it counts.
		if fresh := wall.Sub(e.Mapped) < 2*askLoads; !told && (!answered || fresh) {
			load, told = l.images[id]
		}
		if told {
			known[id] = load
		}
	}
	l.images = known
}

// complete tells whether all members have told their loads lately. Otherwise nobody's count: who does
// not tell would look idle.
func (l *loads) complete(v membership.View, now time.Time) bool {
	for _, m := range v.Members {
		if at, ok := l.heard[m.ID]; !ok || now.Sub(at) > loadsLast {
			return false
		}
	}
	return true
}
