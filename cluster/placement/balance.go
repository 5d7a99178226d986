package placement

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"
)

const (
	// tolerance is by how much the hottest member may exceed the mean load.
	tolerance = 0.2
	// gain is what an exchange must take off the hottest, as a part of the mean. It keeps
	// noise in the measurements from moving images.
	gain = 0.05
	// exchanges is how many there are at most in one decision.
	exchanges = 8
)

// impatience is by what the throttle is divided while the counts are grossly uneven: an idle
// daemon is worse than an image that is handed over twice within minutes.
const impatience = 10

// evenThrottle is how long an image is left alone that was moved for balance's sake, when counts
// are evened out.
func (d *decider) evenThrottle() time.Duration {
	for _, s := range d.shares {
		if 2*s.count < s.target {
			return d.MigrationThrottle / impatience
		}
	}
	return d.MigrationThrottle
}

// movable tells whether an image may be moved for balance's sake, and if not, notes when
// it may.
func (d *decider) movable(image *Image, throttle time.Duration) bool {
	if image.Moved.IsZero() || image.Moved.After(d.Now) {
		return true
	}
	again := image.Moved.Add(throttle)
	if d.Now.Before(again) {
		d.at(again)
		return false
	}
	return true
}

// known tells whether the image has been with its owner for long enough that its load,
// and what it adds to the owner's, are what was measured there.
func (d *decider) known(image *Image) bool {
	_, moves := d.moves[image.ID]
	return !moves && (image.Mapped.IsZero() || image.Mapped.After(d.Now) || d.Now.Sub(image.Mapped) >= d.settled())
}

// candidates are the images that a member may give away, the lightest first.
func (d *decider) candidates(s *share, throttle time.Duration, also func(image *Image) bool) []*Image {
	var out []*Image
	for _, image := range s.images {
		if also(image) && d.movable(image, throttle) {
			out = append(out, image)
		}
	}
	if d.Policy == Balanced {
		slices.SortFunc(out, func(a, b *Image) int {
			return cmp.Or(cmp.Compare(a.load(), b.load()), strings.Compare(a.ID, b.ID))
		})
	}
	return out
}

// even moves images from those above their targets to those below, and tells whether it
// has moved any, or will when it may.
func (d *decider) even() bool {
	some, throttle := false, d.evenThrottle()
	can := map[*share][]*Image{}
	for _, s := range d.shares {
		if s.receives() && s.count > s.target {
			can[s] = d.candidates(s, throttle, func(*Image) bool { return true })
		}
	}
	for {
		var from *share
		for _, s := range d.shares {
			if s.count > s.target && len(can[s]) > 0 && (from == nil || s.count-s.target > from.count-from.target) {
				from = s
			}
		}
		to := d.neediest(true)
		if from == nil || to.count >= to.target {
			return some
		}
		some = true
		if !d.spend() {
			return some
		}
		at := 0
		if d.Policy == Balanced {
			at = nearest(can[from], transfer(from, to))
		}
		image := can[from][at]
		can[from] = slices.Delete(can[from], at, at+1)
		from.take(image)
		d.give(image, to, Evened)
	}
}

// transfer is how much load would have to go from one member to another to make them
// equally hot.
func transfer(from, to *share) float64 {
	return (from.load*to.weight - to.load*from.weight) / (from.weight + to.weight)
}

// nearest is the index of the image, in a list by load, whose load is nearest to want.
func nearest(list []*Image, want float64) int {
	at, _ := slices.BinarySearchFunc(list, want, func(i *Image, want float64) int { return cmp.Compare(i.load(), want) })
	if at == len(list) || at > 0 && want-list[at-1].load() < list[at].load()-want {
		at--
	}
	return at
}

// cool takes load off the hottest members by exchanging images with the coolest.
func (d *decider) cool() {
	if d.Policy != Balanced {
		return
	}
	// Loads change while members and images stay the same.
	defer d.at(d.Now.Add(d.settled()))
	if again := d.last.Add(d.settled()); d.acted || !d.last.IsZero() && d.Now.Before(again) {
		d.at(again)
		return
	}
	var by []*share
	load, weight := 0.0, 0.0
	for _, s := range d.shares {
		if s.receives() {
			by = append(by, s)
			load, weight = load+s.load, weight+s.weight
		}
	}
	mean := load / weight
	can := map[*share][]*Image{}
	hopeless := map[*share]bool{}
	for range exchanges {
		slices.SortStableFunc(by, d.compareHeat)
		cold := by[0]
		at := len(by) - 1
		for at > 0 && hopeless[by[at]] {
			at--
		}
		hot := by[at]
		if hot == cold || hot.heat() <= mean*(1+tolerance) || hot.heat()-mean < d.LeastLoad {
			return
		}
		for _, s := range []*share{hot, cold} {
			if can[s] == nil {
				can[s] = d.candidates(s, d.MigrationThrottle, d.known)
			}
		}
		if !d.exchange(hot, cold, can, mean*gain) {
			hopeless[hot] = true
		}
	}
}

// exchange swaps the pair of images that makes the two members most alike, if that takes
// enough off the hotter.
func (d *decider) exchange(hot, cold *share, can map[*share][]*Image, least float64) bool {
	mine, theirs := can[hot], can[cold]
	want := transfer(hot, cold)
	best, a, b := math.Inf(1), -1, -1
	for i, j := 0, 0; i < len(mine) && j < len(theirs); {
		x := mine[i].load() - theirs[j].load()
		if off := math.Abs(x - want); off < best {
			best, a, b = off, i, j
		}
		if x < want { // a heavier one of mine, or a lighter one of theirs, which came before
			i++
		} else {
			j++
		}
	}
	if a < 0 {
		return false
	}
	x := mine[a].load() - theirs[b].load()
	if max((hot.load-x)/hot.weight, (cold.load+x)/cold.weight) > hot.heat()-least {
		return false
	}
	for _, way := range []struct {
		from, to *share
		at       int
	}{{hot, cold, a}, {cold, hot, b}} {
		image := can[way.from][way.at]
		can[way.from] = slices.Delete(can[way.from], way.at, way.at+1)
		way.from.take(image)
		d.give(image, way.to, Cooled)
	}
	return true
}
