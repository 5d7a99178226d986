package placement

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// Decide says which images go to whom.
func Decide(in Input) Decision {
	d := newDecider(in)
	if in.Policy == None {
		return d.toLeader()
	}
	if len(d.shares) == 0 {
		return Decision{}
	}
	orphans := d.settle()
	d.pin()
	d.apportion(len(orphans))
	d.adopt(orphans)
	if d.anyReceives && d.paced() {
		d.drain()
		if !d.even() {
			d.cool()
		}
	}
	return d.decision()
}

// share is a living member and what it has.
type share struct {
	Member
	weight float64
	images []*Image // those it may have to give away; see decider.owned
	pinned int      // how many of its images may not leave it
	count  int
	load   float64
	target int // how many images it shall have
}

// receives tells whether it may be given images, gives whether all that it has are to go.
func (s *share) receives() bool { return !s.Draining && !s.Cut && !s.Silent }
func (s *share) gives() bool    { return s.Draining || s.Cut }

func (s *share) heat() float64     { return s.load / s.weight }
func (s *share) fullness() float64 { return float64(s.count) / s.weight }

// decider makes one decision.
type decider struct {
	Input
	images      []Image // in order of their ids
	members     map[string]*Member
	shares      []*share // living members that hold their seats, in order of their ids
	byID        map[string]*share
	bySeat      map[string]*share
	anyReceives bool      // somebody may be given images
	last        time.Time // when an image was last moved for balance's sake
	mapped      time.Time // when an image was last given to anybody

	moves   map[string]Move
	waiting []string
	next    time.Time
	budget  int  // how many images of living members may yet be moved
	acted   bool // an image of a living or dead member has gone to another
}

func newDecider(in Input) *decider {
	d := &decider{
		Input: in, images: in.Images, members: map[string]*Member{}, byID: map[string]*share{},
		bySeat: map[string]*share{}, moves: map[string]Move{},
	}
	byID := func(a, b Image) int { return strings.Compare(a.ID, b.ID) }
	if !slices.IsSortedFunc(d.images, byID) {
		d.images = slices.Clone(d.images)
		slices.SortFunc(d.images, byID)
	}
	members := slices.Clone(in.Members)
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	for i := range members {
		m := &members[i]
		d.members[m.ID] = m
		if m.DeadSince.IsZero() {
			d.admit(m)
		}
	}
	d.shares = slices.SortedFunc(maps.Values(d.byID), func(a, b *share) int { return strings.Compare(a.ID, b.ID) })
	receives := func(s *share) bool { return s.receives() }
	if !slices.ContainsFunc(d.shares, receives) {
		for _, s := range d.shares { // nobody hears the primary's cluster: then it says nothing about any of them
			s.Silent = false
		}
	}
	d.anyReceives = slices.ContainsFunc(d.shares, receives)
	for i := range d.images {
		// A time yet to come is that of a leader whose clock was ahead.
		if t := d.images[i].Moved; t.After(d.last) && !t.After(d.Now) {
			d.last = t
		}
		if t := d.images[i].Mapped; t.After(d.mapped) && !t.After(d.Now) {
			d.mapped = t
		}
	}
	return d
}

// admit enters a living member, if it is the latest on its seat. A daemon starts a worker
// on a seat when its predecessor has ended, so the predecessor is dead whether or not
// that has been noticed.
func (d *decider) admit(m *Member) {
	if m.Seat != "" {
		if s := d.bySeat[m.Seat]; s != nil {
			if cmp.Or(m.Started.Compare(s.Started), strings.Compare(m.ID, s.ID)) < 0 {
				return
			}
			delete(d.byID, s.ID)
		}
	}
	s := &share{Member: *m, weight: m.Weight}
	if !(s.weight > 0) {
		s.weight = 1
	}
	d.byID[m.ID] = s
	if m.Seat != "" {
		d.bySeat[m.Seat] = s
	}
}

// at notes when to decide again.
func (d *decider) at(t time.Time) {
	if t.After(d.Now) && (d.next.IsZero() || t.Before(d.next)) {
		d.next = t
	}
}

func (d *decider) decision() Decision {
	out := Decision{Waiting: d.waiting, Next: d.next}
	for i := range d.images {
		if m, ok := d.moves[d.images[i].ID]; ok {
			out.Moves = append(out.Moves, m)
		}
	}
	return out
}

// give assigns an image. Accounts of the one that had it are the caller's.
func (d *decider) give(image *Image, to *share, reason Reason) {
	moved := image.Moved
	if reason == Evened || reason == Cooled {
		moved = d.Now
	}
	d.acted = d.acted || reason != Placed && reason != Inherited
	d.moves[image.ID] = Move{Image: image.ID, From: image.Owner, To: to.ID, Seat: to.Seat, Reason: reason, Moved: moved}
	to.count++
	to.load += image.load()
}

// load is the image's load, 0 where it is no sensible number.
func (i *Image) load() float64 {
	if !(i.Load > 0) { // also NaN
		return 0
	}
	return min(i.Load, 1e15)
}

// take lets a living member give up an image.
func (s *share) take(image *Image) {
	s.count--
	s.load -= image.load()
}

// toLeader is the policy None.
func (d *decider) toLeader() Decision {
	to := &share{Member: Member{ID: d.Leader}}
	if s := d.byID[d.Leader]; s != nil {
		to = s
	}
	for i := range d.images {
		if image := &d.images[i]; image.Owner != d.Leader {
			d.give(image, to, ByPolicy)
		}
	}
	return d.decision()
}

// settle counts what living members have, lets heirs inherit, and returns the images
// that need somebody.
func (d *decider) settle() (orphans []*Image) {
	begin := !d.Begun.IsZero() && d.Now.Before(d.Begun.Add(d.HeirGrace)) && d.incomplete()
	for i := range d.images {
		image := &d.images[i]
		if s := d.byID[image.Owner]; s != nil {
			s.count++
			s.load += image.load()
			s.images = append(s.images, image)
			continue
		}
		owner, seat := d.members[image.Owner], image.Seat
		if owner != nil {
			seat = owner.Seat
		}
		heir := d.bySeat[seat]
		if image.Owner == "" || heir != nil && heir.gives() && d.anyReceives {
			heir = nil
		}
		switch to := d.pinnedTo(image); {
		case to != nil && to != heir:
			to.pinned++
			d.give(image, to, whyOrphan(image))
		case heir != nil:
			heir.images = append(heir.images, image)
			d.give(image, heir, Inherited)
		case owner != nil && d.awaited(owner):
			d.waiting = append(d.waiting, image.ID)
			d.at(owner.DeadSince.Add(d.HeirGrace))
		case owner == nil && begin:
			d.waiting = append(d.waiting, image.ID)
			d.at(d.Begun.Add(d.HeirGrace))
		default:
			orphans = append(orphans, image)
		}
	}
	return orphans
}

// awaited tells whether a successor of a dead member may come in time: only its daemon
// starts one.
func (d *decider) awaited(m *Member) bool {
	if m.Seat == "" || m.Draining || !d.Now.Before(m.DeadSince.Add(d.HeirGrace)) || d.bySeat[m.Seat] != nil {
		return false
	}
	return slices.ContainsFunc(d.shares, func(s *share) bool { return s.Host == m.Host && s.Daemon == m.Daemon })
}

// incomplete tells whether a daemon that is here has workers that are not.
func (d *decider) incomplete() bool {
	type daemon struct{ host, name string }
	here := map[daemon]int{}
	for _, s := range d.shares {
		here[daemon{s.Host, s.Daemon}]++
	}
	return slices.ContainsFunc(d.shares, func(s *share) bool { return here[daemon{s.Host, s.Daemon}] < s.Workers })
}

// pinnedTo is where a command wants the image, nil if nowhere, or nowhere that works.
func (d *decider) pinnedTo(image *Image) *share {
	if image.Pin == "" {
		return nil
	}
	if s := d.bySeat[image.Pin]; s != nil && s.receives() {
		return s
	}
	return nil
}

// pin brings living members' images to where commands want them, and counts those.
func (d *decider) pin() {
	for _, s := range d.shares {
		s.images = slices.DeleteFunc(s.images, func(image *Image) bool {
			to := d.pinnedTo(image)
			if to == nil {
				return false
			}
			if to != s {
				s.take(image)
				d.give(image, to, Pinned)
			}
			to.pinned++
			return true
		})
	}
}

// adopt gives the orphans to those who are below their shares.
func (d *decider) adopt(orphans []*Image) {
	if d.Policy == Balanced { // the heavy ones first, while there is a choice
		slices.SortStableFunc(orphans, func(a, b *Image) int { return cmp.Compare(b.load(), a.load()) })
	}
	for _, image := range orphans {
		d.give(image, d.neediest(image.load() > 0), whyOrphan(image))
	}
}

func whyOrphan(image *Image) Reason {
	if image.Owner == "" {
		return Placed
	}
	return Failover
}

// paced sets how many images of living members may be moved now.
func (d *decider) paced() bool {
	again := d.mapped.Add(d.UpdateThrottle)
	if !d.mapped.IsZero() && d.Now.Before(again) {
		d.at(again)
		return false
	}
	d.budget = max(16, len(d.images)/100)
	return true
}

// spend takes one move from the budget; where there is none left, the rest comes later.
func (d *decider) spend() bool {
	if d.budget == 0 {
		d.at(d.Now.Add(max(d.UpdateThrottle, time.Millisecond)))
		return false
	}
	d.budget--
	return true
}

// drain empties members that drain or are cut off.
func (d *decider) drain() {
	for _, s := range d.shares {
		if !s.gives() {
			continue
		}
		reason := Drained
		if !s.Draining {
			reason = CutOff
		}
		for _, image := range s.images {
			if !d.spend() {
				return
			}
			s.take(image)
			d.give(image, d.neediest(image.load() > 0), reason)
		}
	}
}
