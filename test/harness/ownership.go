package harness

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Ownership tells from an OSD's point of view who wrote to which image, and whether each did so as its owner.
//
// The rule that it checks, for what changes an image's data objects and object maps: whoever writes has changed the
// header's lock before, and nobody else has since. Precisely, with h the writer's last change to the header by a call of
// a class before the write came in, and g one of somebody else's of a higher version than h:
//
//   - g was not answered before the write came in: then the writer was the owner no longer when the OSD took the write;
//   - and on each object, of the writes of different clients the later one has the later h: nothing of an earlier owner's
//     has landed on top of a later one's, however long it was under way.
//
// The methods of class calls are not in the log. All that changes a header's lock is a call; other calls that change
// the header are the owner's alone, but for a reader's, who may note when it read. So only the calls of those count who
// have written to the image, now or later. What only one client does is its own affair.
type Ownership struct {
	images map[imageAt]*record
}

type imageAt struct{ pool, id string }

// record is what is known of one image.
type record struct {
	calls  []osdOp // that changed the header
	writes []osdOp // in the order of answers
	owners []Tenure
}

// Tenure is a time in which one client wrote to an image, and no other one.
type Tenure struct {
	Client      string
	First, Last time.Time // when writes were answered
}

func newOwnership() *Ownership { return &Ownership{images: map[imageAt]*record{}} }

// Leadership is the name under which a pool's leader lock and image map are looked at, as if they were an image with its
// lock: whoever writes the map is to be the leader.
const Leadership = "rbd_mirror_leader"

// imageOf tells which image an operation's object belongs to; header if it is about the lock.
func imageOf(op osdOp) (id string, header, ok bool) {
	object := op.object
	if object == Leadership { // lock and map are in one object
		return object, !strings.Contains(op.what, "omap-"), true
	}
	if id, ok := strings.CutPrefix(object, "rbd_header."); ok {
		return id, true, true
	}
	if rest, ok := strings.CutPrefix(object, "rbd_object_map."); ok {
		id, _, _ := strings.Cut(rest, ".")
		return id, false, true
	}
	if rest, ok := strings.CutPrefix(object, "rbd_data."); ok {
		words := strings.Split(rest, ".") // of a data pool: pool, id, number
		if len(words) >= 2 {
			return words[len(words)-2], false, true
		}
	}
	return "", false, false
}

// take takes an operation in, in the order of answers.
func (o *Ownership) take(op osdOp) {
	id, header, ok := imageOf(op)
	if !ok || !op.changed() {
		return
	}
	at := imageAt{op.pool, id}
	r := o.images[at]
	if r == nil {
		r = &record{}
		o.images[at] = r
	}
	switch {
	case !header:
		r.wrote(op)
	case takesPart(op):
		r.calls = append(r.calls, op)
	}
}

// takesPart says whether an operation on a header may be about its lock.
func takesPart(op osdOp) bool { return slices.Contains(strings.Split(op.what, ","), "call") }

func (r *record) wrote(op osdOp) {
	r.writes = append(r.writes, op)
	last := len(r.owners) - 1
	if last < 0 || r.owners[last].Client != op.client {
		r.owners = append(r.owners, Tenure{Client: op.client, First: op.at})
		last++
	}
	r.owners[last].Last = op.at
}

// Violations are the writes that broke the rule, of all images.
func (o *Ownership) Violations() (broken []string) {
	for _, r := range o.images {
		broken = append(broken, r.violations()...)
	}
	slices.Sort(broken)
	return broken
}

// claim is a write with the version of the header's call that it rests on.
type claim struct {
	osdOp
	rests uint64
}

func (r *record) violations() (broken []string) {
	writes := map[string]bool{}
	for _, op := range r.writes {
		writes[op.client] = true
	}
	calls := slices.DeleteFunc(slices.Clone(r.calls), func(c osdOp) bool { return !writes[c.client] })
	slices.SortFunc(calls, byVersion)
	objects := map[string][]claim{}
	for _, op := range r.writes {
		var h uint64
		for _, c := range calls {
			if c.client == op.client && c.answered < op.came {
				h = c.version
			}
		}
		if h == 0 {
			broken = append(broken, blame(op, "without ever having taken the lock"))
			continue
		}
		for _, g := range slices.Backward(calls) {
			if g.version > h && g.client != op.client && g.answered < op.came {
				broken = append(broken, blame(op, fmt.Sprintf("although %s had changed the lock at %s, after it", g.client, g.at.Format(clock))))
				break
			}
		}
		objects[op.object] = append(objects[op.object], claim{op, h})
	}
	for _, claims := range objects {
		slices.SortFunc(claims, func(a, b claim) int { return byVersion(a.osdOp, b.osdOp) })
		newest := claims[0]
		for _, c := range claims[1:] {
			if c.client != newest.client && c.rests < newest.rests {
				broken = append(broken, blame(c.osdOp, fmt.Sprintf("on top of what %s wrote, who had taken the lock after it", newest.client)))
			} else {
				newest = c
			}
		}
	}
	return broken
}

func byVersion(a, b osdOp) int { return cmp.Compare(a.version, b.version) }

const clock = "15:04:05.000"

func blame(op osdOp, why string) string {
	return fmt.Sprintf("%s %s wrote [%s] to %s (version %d, line %d) %s",
		op.at.Format(clock), op.client, op.what, op.object, op.version, op.answered, why)
}

// Owners are those who wrote to an image of a pool, one after the other.
func (o *Ownership) Owners(pool int64, id string) []Tenure {
	if r := o.images[imageAt{fmt.Sprint(pool), id}]; r != nil {
		return r.owners
	}
	return nil
}

// FirstElsewhere is when another client than an image's owner at a moment wrote to it first after that; false if none
// has so far.
func FirstElsewhere(owners []Tenure, since time.Time) (at time.Time, client string, ok bool) {
	for n, t := range owners {
		if n > 0 && t.First.After(since) {
			return t.First, t.Client, true
		}
	}
	return at, "", false
}
