package site

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	cls "github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/cluster/imagemap"
	"github.com/rbdwarden/rbdwarden/cluster/leader"
	"github.com/rbdwarden/rbdwarden/cluster/membership"
	"github.com/rbdwarden/rbdwarden/rados/mem"
)

const (
	// patience is how long a site may take to come to rest when the trouble is over: what was
	// moved lately is not moved again for a minute at most (settings.go), and who was cut off from
	// the primary gets nothing for two.
	patience = 4 * time.Minute
	// rest is how long it is watched then.
	rest = 12 * time.Second
)

// settles waits until everything is in order, and stays so while nothing happens.
func (s *site) settles() (took time.Duration, err error) {
	began := time.Now()
	for why := "it was not looked"; s.oracle.violation() == ""; {
		if took = time.Since(began); took > patience {
			return took, fmt.Errorf("after %v without trouble: %s", took, why)
		}
		if why = s.disorder(); why != "" {
			s.sleep(200 * time.Millisecond)
			continue
		}
		before := s.state()
		s.sleep(rest)
		if after := s.state(); after != before { // what had been on its way, or it flaps
			why = fmt.Sprintf("there were %s, and then %s", before, after)
		} else if why = s.disorder(); why == "" {
			break
		}
	}
	return took, nil
}

// state is what must not change when nothing happens.
func (s *site) state() string {
	s.oracle.mu.Lock()
	defer s.oracle.mu.Unlock()
	return fmt.Sprintf("workers %d, epochs %v, owners %d, fenced %d, led by %s", s.lives, s.oracle.epochs, s.oracle.sessions, s.oracle.fencings, s.chief())
}

// disorder tells what is not as it should be.
func (s *site) disorder() string {
	var ids []string
	alive := map[string]*worker{}
	for _, at := range s.seats {
		if at.empty {
			continue
		}
		w := at.worker
		if w == nil || w.isDead() {
			return fmt.Sprintf("seat %d is empty", at.number)
		}
		id := strconv.FormatUint(w.client.InstanceID(), 10)
		ids, alive[id] = append(ids, id), w
	}
	if n := len(s.alive()); n != len(ids) {
		return fmt.Sprintf("%d workers run in %d seats", n, len(ids))
	}
	for _, w := range alive {
		if why := w.disorder(alive); why != "" {
			return fmt.Sprintf("%s: %s", w, why)
		}
	}
	if why := s.leaderless(alive); why != "" {
		return why
	}
	for _, ns := range s.set.namespaces {
		if why := s.misplaced(ns, alive); why != "" {
			return why
		}
	}
	return ""
}

// disorder tells what is wrong with a worker.
func (w *worker) disorder(alive map[string]*worker) string {
	w.mu.Lock()
	view, works := w.view, w.works
	w.mu.Unlock()
	switch {
	case !works:
		return "runs nothing"
	case view.Frozen:
		return "its view is frozen"
	case len(view.Members) != len(alive):
		return fmt.Sprintf("sees %d members of %d", len(view.Members), len(alive))
	case slices.ContainsFunc(view.Dead, func(d membership.Dead) bool { return !d.Fenced }):
		return "has not seen all dead fenced"
	case w.isStruck():
		return "is no member, and goes on"
	case w.site.oracle.refuses(w):
		return "is refused, and goes on"
	}
	for _, m := range view.Members {
		if alive[m.ID] == nil {
			return "sees a member that has ended: " + m.ID
		}
	}
	return ""
}

// leaderless: one leads, by its own word and by the lock.
func (s *site) leaderless(alive map[string]*worker) string {
	var leads []*worker
	for _, w := range alive {
		w.mu.Lock()
		if w.leads {
			leads = append(leads, w)
		}
		w.mu.Unlock()
	}
	if len(leads) != 1 {
		return fmt.Sprintf("%d lead", len(leads))
	}
	holds := false
	s.store.Look(s.admin[""].Pool().ID, "", func(v mem.View) { holds = v.Holds(leads[0].client, leader.Object, cls.RBDName) })
	if !holds {
		return fmt.Sprintf("%s leads without the lock", leads[0])
	}
	return ""
}

// misplaced: each image is mapped once, evenly, to who runs it.
func (s *site) misplaced(namespace string, alive map[string]*worker) string {
	m, err := imagemap.Read(s.ctx, s.admin[namespace])
	if err != nil {
		return err.Error()
	}
	counts := map[string]int{}
	for id := range alive {
		counts[id] = 0
	}
	want := s.mirrored()
	if len(m.Images) != len(want) {
		return fmt.Sprintf("the map of %q has %d images of %d", namespace, len(m.Images), len(want))
	}
	for _, id := range want {
		k := key{namespace, id}
		e, ok := m.Images[id]
		w := alive[e.Owner]
		if !ok || w == nil {
			return fmt.Sprintf("%s is mapped to %q", k, e.Owner)
		}
		counts[e.Owner]++
		running := s.running(k)
		if len(running) != 1 || running[0].w != w || !running[0].valid() {
			return fmt.Sprintf("%s is mapped to %s, and run by %d", k, w, len(running))
		}
		s.oracle.mu.Lock()
		silent := time.Since(s.oracle.of(k).wrote)
		s.oracle.mu.Unlock()
		if silent > 3*s.set.hop+time.Second {
			return fmt.Sprintf("%s was not written for %v", k, silent)
		}
	}
	n := slices.Collect(maps.Values(counts))
	if slices.Max(n)-slices.Min(n) > 1 {
		return fmt.Sprintf("%q is not even: %v", namespace, counts)
	}
	return ""
}

// ends has all workers leave in order. Nothing may be left of them.
func (s *site) ends() error {
	all := s.alive()
	for _, at := range s.seats {
		at.empty = true
	}
	for _, w := range all {
		w.leave()
		s.sleep(s.some(300 * time.Millisecond))
	}
	for _, w := range all {
		<-w.ended
	}
	return s.remains(all)
}

// remains tells what workers have left behind that ended in order.
func (s *site) remains(all []*worker) (err error) {
	for _, w := range all {
		w.mu.Lock()
		orderly := w.orderly
		w.mu.Unlock()
		if !orderly {
			return fmt.Errorf("%s could not end in order", w)
		}
		if slices.Contains(s.store.Blocklisted(), w.client.Addresses()) {
			return fmt.Errorf("%s has ended in order, and is blocklisted", w)
		}
	}
	for _, ns := range s.set.namespaces {
		s.store.Look(s.admin[ns].Pool().ID, ns, func(v mem.View) {
			for _, w := range all {
				objects := []string{leader.Object}
				for _, id := range s.mirrored() {
					objects = append(objects, headerPrefix+id)
				}
				for _, object := range objects {
					if v.Holds(w.client, object, cls.RBDName) {
						err = fmt.Errorf("%s has ended in order, and holds the lock of %s", w, object)
					}
				}
			}
			if left := v.OmapValues(membership.Object, beatPrefix); len(left) > 0 {
				err = fmt.Errorf("%d members have ended and are members", len(left))
			}
		})
	}
	return err
}
