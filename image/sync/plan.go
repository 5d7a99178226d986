package imagesync

import (
	"cmp"
	"slices"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/rados"
)

// version is one state of the image that the copy reproduces: that of a remote
// snapshot, which becomes a local one.
type version struct {
	remote  ceph.SnapID
	local   ceph.SnapID
	objects uint64 // of an image of the snapshot's size
	// context is what the writes of this version carry: the local snapshots that are
	// older.
	context ceph.SnapContext
	// gone: the remote snapshot does not exist any more, so nobody knows what it
	// held. Its local copy waits for its removal in the journal and gets what the
	// version before has.
	gone bool
}

// planVersions lists the versions up to the sync point, oldest first
// (src/librbd/deep_copy/Utils.cc).
func planVersions(remote *image.Header, local []image.Snapshot, seqs map[uint64]uint64, sync ceph.SnapID) []version {
	var out []version
	for r, l := range seqs {
		v := version{remote: ceph.SnapID(r), local: ceph.SnapID(l)}
		here := byID(local, v.local)
		if v.remote > sync || here == nil {
			continue
		}
		original := byID(remote.Snapshots, v.remote)
		// In the image's trash its data are still there as long as clones need them.
		v.gone = original == nil || !isUser(original) && original.ChildCount == 0
		v.objects = remote.Layout.ObjectCount(here.ImageSize)
		for _, s := range local {
			if s.ID < v.local {
				v.context.Snaps = append(v.context.Snaps, s.ID)
			}
		}
		slices.SortFunc(v.context.Snaps, func(a, b ceph.SnapID) int { return cmp.Compare(b, a) })
		if len(v.context.Snaps) > 0 {
			v.context.Seq = v.context.Snaps[0]
		}
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b version) int { return cmp.Compare(a.remote, b.remote) })
	return out
}

// history is what the remote cluster says of one object.
type history struct {
	clones []rados.Clone // oldest first, the head last
	seq    ceph.SnapID   // the newest snapshot that the object has seen
}

func (h history) equal(other history) bool {
	return h.seq == other.seq && slices.EqualFunc(h.clones, other.clones, func(a, b rados.Clone) bool {
		return a.ID == b.ID && a.Size == b.Size && slices.Equal(a.Snaps, b.Snaps) && slices.Equal(a.Overlap, b.Overlap)
	})
}

// at finds the clone that holds the object's state at a snapshot, -1 if the object
// did not exist then. The head holds that of the snapshots made since its last write.
func (h history) at(snap ceph.SnapID) int {
	for i, c := range h.clones {
		if c.ID == ceph.NoSnap && snap > h.seq || c.ID != ceph.NoSnap && slices.Contains(c.Snaps, snap) {
			return i
		}
	}
	return -1
}

// changed tells which bytes may differ between two clones, from < to.
func (h history) changed(from, to int) extentSet {
	var out extentSet
	for i := from; i < to; i++ {
		step := extentSet{}.add(rados.Extent{Length: max(h.clones[i].Size, h.clones[i+1].Size)})
		for _, same := range h.clones[i].Overlap {
			step = step.remove(same)
		}
		out = out.union(step)
	}
	return out
}

// before is what the local object is when a step begins.
type before uint8

const (
	unknown before = iota // anything: an earlier attempt may have been here
	absent
	present
)

// step brings the local object from the state of one version to that of a later one.
type step struct {
	version int
	before  before
	size    uint64 // of the local object before, if it is present
	remove  bool   // there is no object in this version

	// Otherwise these: read what is in ranges at the remote snapshot readAt; the
	// object has newSize bytes then.
	readAt  ceph.SnapID
	ranges  extentSet
	newSize uint64
}

// objectPlan is how one object is copied.
type objectPlan struct {
	steps  []step
	exists []bool // by version: the object exists in it
}

// beginning is what is known of the local object before the first step.
type beginning struct {
	before before
	// In place, for an object that is present: its size, and in which bytes it differs
	// from the clone that firstClone gives.
	size    uint64
	differs extentSet
}

// firstClone is the clone that the first version that is not gone has of object n, and
// a snapshot to read it at; -1 if the object is not in that version.
func firstClone(n image.ObjectNumber, h history, versions []version) (int, ceph.SnapID) {
	for _, v := range versions {
		if v.gone {
			continue
		}
		if uint64(n) >= v.objects {
			return -1, 0
		}
		clone := h.at(v.remote)
		if clone < 0 {
			return -1, 0
		}
		return clone, readable(h, versions, clone)
	}
	return -1, 0
}

// planObject plans the copy of object n.
func planObject(n image.ObjectNumber, h history, versions []version, begin beginning) objectPlan {
	p := objectPlan{exists: make([]bool, len(versions))}
	state := begin.before
	last := -1 // the clone that the local object equals, if it is present and a step or version was before
	for i, v := range versions {
		if v.gone {
			p.exists[i] = state == present
			continue
		}
		clone := -1
		if uint64(n) < v.objects {
			clone = h.at(v.remote)
		}
		if clone < 0 {
			if state != absent {
				p.steps = append(p.steps, step{version: i, before: state, remove: true})
			}
			state, last = absent, -1
			continue
		}
		p.exists[i] = true
		if state == present && clone == last {
			continue
		}
		if clone < last { // clones out of order: trust nothing
			state = unknown
		}
		s := step{version: i, before: state, newSize: h.clones[clone].Size, readAt: readable(h, versions, clone)}
		switch {
		case state == present && last < 0:
			s.size, s.ranges = begin.size, begin.differs.clip(s.newSize)
		case state == present:
			s.size = h.clones[last].Size
			s.ranges = h.changed(last, clone).clip(s.newSize)
		default:
			s.ranges = extentSet{}.add(rados.Extent{Length: s.newSize})
		}
		p.steps = append(p.steps, s)
		state, last = present, clone
	}
	return p
}

// readable is the newest snapshot to read a clone at: older ones may be removed while
// the copy is going on, which does not hurt then.
func readable(h history, versions []version, clone int) ceph.SnapID {
	for i := len(versions) - 1; i >= 0; i-- {
		if v := versions[i]; !v.gone && h.at(v.remote) == clone {
			return v.remote
		}
	}
	return 0 // cannot be: the caller has found the clone by a version
}
