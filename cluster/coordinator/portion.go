package coordinator

import (
	"strconv"
	"time"

	"github.com/rbdwarden/rbdwarden/cluster/imagemap"
	"github.com/rbdwarden/rbdwarden/cluster/membership"
)

// portion is what one member may run of a namespace: pure, without clock and I/O.
//
// Invariant: an image that the map gives to this member is run only when everybody else
// has said that it runs nothing which that epoch of the map does not give to it, or has left, or
// was fenced. A member that says nothing for handover is not waited for any longer: then the
// image's exclusive lock alone keeps the two apart, as it does at all times.
type portion struct {
	self     string
	handover time.Duration

	epoch imagemap.Epoch
	known bool                // the map was read
	mine  map[string]gain     // the map gives them to us
	run   map[string]struct{} // those of them that may run
}

// gain is when the map gave an image to us.
type gain struct {
	epoch imagemap.Epoch // that or an earlier one
	at    time.Time
}

// refresh takes in the map, of which these images have changed.
func (p *portion) refresh(m imagemap.Map, changed []string, now time.Time) {
	if !p.known {
		p.known, p.mine, p.run = true, map[string]gain{}, map[string]struct{}{}
		for id := range m.Images {
			changed = append(changed, id)
		}
	}
	p.epoch = m.Epoch
	for _, id := range changed {
		if e, ok := m.Images[id]; !ok || e.Owner != p.self {
			delete(p.mine, id)
			delete(p.run, id)
		} else if _, had := p.mine[id]; !had {
			p.mine[id] = gain{m.Newest, now} // it may be newer than the map is as a whole
		}
	}
}

// clear lets run what nobody else runs any more, and tells how many images still wait.
func (p *portion) clear(v membership.View, namespace string, now time.Time) (changed bool, waiting int) {
	if len(p.run) == len(p.mine) {
		return false, 0
	}
	applied := p.appliedByAll(v, namespace)
	for id, g := range p.mine {
		if _, runs := p.run[id]; runs {
			continue
		}
		if g.epoch <= applied || now.Sub(g.at) >= p.handover {
			p.run[id] = struct{}{}
			changed = true
		} else {
			waiting++
		}
	}
	return changed, waiting
}

// appliedByAll is the newest epoch that all others have applied.
func (p *portion) appliedByAll(v membership.View, namespace string) imagemap.Epoch {
	all := ^imagemap.Epoch(0)
	take := func(m membership.Member) {
		if m.ID != p.self {
			all = min(all, appliedBy(m, namespace))
		}
	}
	for _, m := range v.Members {
		take(m)
	}
	for _, d := range v.Dead {
		if !d.Fenced {
			take(d.Member)
		}
	}
	return all
}

// share is a copy for who runs the images.
func (p *portion) share() Share {
	s := Share{Epoch: uint64(p.epoch), Run: make(map[string]struct{}, len(p.run))}
	for id := range p.run {
		s.Run[id] = struct{}{}
	}
	return s
}

// What members tell each other in their records: by namespace the epoch of the map that
// the leader wrote last, and the one of which a member runs nothing that is not its own; and
// how many workers their daemons have.
const (
	extraMap     = "map/"
	extraApplied = "applied/"
	extraWorkers = "workers"
	extraRemote  = "remote"
)

func appliedBy(m membership.Member, namespace string) imagemap.Epoch {
	return epochOf(m, extraApplied+namespace)
}

func epochOf(m membership.Member, key string) imagemap.Epoch {
	n, err := strconv.ParseUint(m.Extra[key], 10, 64)
	if err != nil {
		return 0 // it has said nothing yet
	}
	return imagemap.Epoch(n)
}
