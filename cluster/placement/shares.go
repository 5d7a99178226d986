package placement

import (
	"cmp"
	"math"
	"slices"
)

// apportion sets how many images each member shall have: its part by weight of all that
// are placed now, rounded down or up, but not fewer than are pinned to it. What rounding
// leaves goes first to those who have more than their part already, so that they need
// not give it away.
func (d *decider) apportion(orphans int) {
	total := orphans
	var to []*share
	for _, s := range d.shares {
		s.target = 0
		if s.receives() || !d.anyReceives {
			to = append(to, s)
		} else if !s.gives() {
			continue // it keeps what it has
		}
		total += s.count
	}
	to, total = fixPinned(to, total)
	if len(to) == 0 {
		return
	}
	weight := 0.0
	for _, s := range to {
		weight += s.weight
	}
	left := total
	fraction := map[*share]float64{}
	for _, s := range to {
		part := float64(total) * s.weight / weight
		s.target = int(math.Floor(part + 1e-9))
		fraction[s] = math.Round((part-float64(s.target))*1e6) / 1e6
		left -= s.target
	}
	over := func(s *share) int { return max(0, s.count-s.target) }
	slices.SortStableFunc(to, func(a, b *share) int {
		if x, y := over(a) > 0, over(b) > 0; x != y {
			return prefer(x)
		} else if x { // who is just above needs no move at all then
			return cmp.Compare(over(a), over(b))
		}
		return cmp.Or(cmp.Compare(fraction[b], fraction[a]), d.compareHeat(a, b), cmp.Compare(b.count, a.count))
	})
	for i := 0; left > 0; i++ {
		to[i%len(to)].target++
		left--
	}
}

// prefer is the comparison of two of which only the first, or only the second, has a
// merit.
func prefer(first bool) int {
	if first {
		return -1
	}
	return 1
}

// fixPinned takes those out to whom more is pinned than their part is: they keep that,
// and the others share the rest.
func fixPinned(to []*share, total int) ([]*share, int) {
	for {
		weight := 0.0
		for _, s := range to {
			weight += s.weight
		}
		at := slices.IndexFunc(to, func(s *share) bool { return float64(s.pinned) > float64(total)*s.weight/weight+1e-9 })
		if at < 0 {
			return to, total
		}
		s := to[at]
		s.target = s.pinned
		total -= s.pinned
		to = slices.Delete(slices.Clone(to), at, at+1)
	}
}

// compareHeat orders by load where the policy looks at it.
func (d *decider) compareHeat(a, b *share) int {
	if d.Policy != Balanced {
		return 0
	}
	return cmp.Compare(a.heat(), b.heat())
}

// neediest is who of those below their targets gets the next image: the coolest if the
// image's load is known, and else who has the fewest. The targets add up to the images
// that there are, and those of members that may get none are 0, what these keep aside: while an image needs
// somebody, somebody is below.
func (d *decider) neediest(heatFirst bool) *share {
	var best *share
	compare := func(a, b *share) int {
		if x, y := a.count < a.target, b.count < b.target; x != y {
			return prefer(x)
		}
		full := cmp.Compare(a.fullness(), b.fullness())
		if heatFirst {
			return cmp.Or(d.compareHeat(a, b), full)
		}
		return cmp.Or(full, d.compareHeat(a, b))
	}
	for _, s := range d.shares {
		if best == nil || compare(s, best) < 0 {
			best = s
		}
	}
	return best
}
