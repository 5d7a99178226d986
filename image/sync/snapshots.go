package imagesync

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
)

// snapshotChange is one thing to do to the local image's snapshots, in the order of
// src/librbd/deep_copy/SnapshotCopyRequest.cc: first all unprotect, then all remove,
// rename (which it leaves to the journal), create, protect.
type snapshotChange struct {
	kind   changeKind
	name   string
	to     string      // rename: the new name
	remote ceph.SnapID // create: the snapshot to make a copy of
	size   uint64      // create: bytes
	share  image.Sharing
}

type changeKind uint8

const (
	unprotectSnapshot changeKind = iota + 1
	removeSnapshot
	renameSnapshot
	createSnapshot
	protectSnapshot
)

// planSnapshots tells how the local snapshots become those of the remote image up to
// the sync point. seqs maps remote ids to local ones: a local snapshot that is not in
// it is of unknown content (an attempt ended before it could record it) and is made
// again.
//
// At a new sync point, one that an older sync point has brought becomes what its original
// is: it goes, or gets its new name. Invariant: nothing that lies in the journal before the
// sync point is left for the replay to do, which begins behind it. Of a copy that goes on
// at its sync point, snapshots keep name and presence: what changed since then lies behind
// the sync point, and the events in between may still name them.
//
// A flatten with deep flatten changes snapshots, too: afterwards they have objects of
// their own where they shared the parent's. A copy that was begun before it, up to a sync
// point that is lost, has objects whose older states can not be written any more, so such
// snapshots are made again. While the sync point is there the copy goes on as it began,
// with the parent: the journal has the flatten, which brings over what is missing.
func planSnapshots(remote, local []image.Snapshot, seqs map[ceph.SnapID]ceph.SnapID, end ceph.SnapID) []snapshotChange {
	original := make(map[ceph.SnapID]*image.Snapshot) // by local id
	known := make(map[ceph.SnapID]bool)               // local ids
	for r, l := range seqs {
		known[l] = true
		original[l] = byID(remote, r)
	}
	var unprotect, remove, create, protect []snapshotChange
	there := make(map[ceph.SnapID]*image.Snapshot)
	names := make(map[string]string) // of those that stay: now, and to be
	resumed := byID(local, seqs[end]) != nil
	for i := range local {
		l := &local[i]
		o := original[l.ID]
		gone := o == nil || !isUser(o)
		flattened := !gone && o.Attached != l.Attached && !resumed
		goes := isUser(l) && (!known[l.ID] || flattened || gone && !resumed)
		if l.Protection != rbd.Unprotected && (goes || o == nil || o.Protection == rbd.Unprotected) {
			unprotect = append(unprotect, snapshotChange{kind: unprotectSnapshot, name: l.Name})
		}
		if goes {
			remove = append(remove, snapshotChange{kind: removeSnapshot, name: l.Name})
			continue
		}
		there[l.ID] = l
		if isUser(l) {
			names[l.Name] = l.Name
			if !gone && !resumed {
				names[l.Name] = o.Name
			}
		}
	}
	for i := range remote {
		s := &remote[i]
		if s.ID > end || !isUser(s) {
			continue
		}
		l := there[seqs[s.ID]]
		if l == nil {
			create = append(create, snapshotChange{kind: createSnapshot, name: s.Name, remote: s.ID, size: s.ImageSize, share: sharing(s)})
		}
		if s.Protection == rbd.Protected && (l == nil || l.Protection == rbd.Unprotected) {
			name := s.Name
			if l != nil {
				name = names[l.Name]
			}
			protect = append(protect, snapshotChange{kind: protectSnapshot, name: name})
		}
	}
	return slices.Concat(unprotect, remove, planRenames(names), create, protect)
}

// planRenames brings names from what they are to what they are to be, so that no name is
// ever taken twice: a name that becomes free lets the next one follow, and where names
// changed places one of them steps aside first.
func planRenames(names map[string]string) []snapshotChange {
	var out []snapshotChange
	rename := func(from, to string) {
		out = append(out, snapshotChange{kind: renameSnapshot, name: from, to: to})
		names[to] = names[from]
		delete(names, from)
	}
	for {
		var waits string
		moved := false
		for _, from := range slices.Sorted(maps.Keys(names)) {
			to := names[from]
			if _, taken := names[to]; from == to {
				continue
			} else if taken {
				waits = from
				continue
			}
			rename(from, to)
			moved = true
		}
		if moved {
			continue
		}
		if waits == "" {
			return out
		}
		aside := ".rbd-mirror.aside." + waits
		for _, taken := names[aside]; taken; _, taken = names[aside] {
			aside += "_"
		}
		rename(waits, aside)
	}
}

func isUser(s *image.Snapshot) bool {
	return s.Namespace == nil || s.Namespace.Kind() == rbd.SnapshotUser
}

// sharing is what a snapshot shares with the parent.
func sharing(s *image.Snapshot) image.Sharing {
	return image.Sharing{Attached: s.Attached, Overlap: s.Overlap}
}

// needParent gives the local image its parent back, if a state to come needs it: it was
// lost with the last snapshot of an earlier attempt.
func (r *transfer) needParent(ctx context.Context, share image.Sharing) error {
	if !share.Attached || r.Local.Header().Parent.Exists() {
		return nil
	}
	if r.Parent == nil {
		return &image.ParentError{ImageID: r.RemoteID, Parent: r.remote.Parent, Err: syscall.ENOENT}
	}
	parent, err := r.Parent(ctx)
	if err != nil {
		return err
	}
	_, err = r.Local.AttachParent(ctx, parent)
	return err
}

func byID(snaps []image.Snapshot, id ceph.SnapID) *image.Snapshot {
	for i := range snaps {
		if snaps[i].ID == id {
			return &snaps[i]
		}
	}
	return nil
}

// rememberObjects records how many objects older attempts may have left, before the
// snapshots go that tell of it. An object beyond the end would come to light when the image
// grows.
func (r *transfer) rememberObjects(ctx context.Context, plan []snapshotChange) error {
	removes := func(c snapshotChange) bool { return c.kind == removeSnapshot }
	if !slices.ContainsFunc(plan, removes) {
		return nil
	}
	h, meta := r.Local.Header(), r.Meta
	meta.SyncObjectCount = max(meta.SyncObjectCount, h.Layout.ObjectCount(h.Size))
	for _, s := range h.Snapshots {
		meta.SyncObjectCount = max(meta.SyncObjectCount, h.Layout.ObjectCount(s.ImageSize))
	}
	if meta.SyncObjectCount == r.Meta.SyncObjectCount {
		return nil
	}
	return r.save(ctx, meta)
}

// cutMap readies the head's object map, in which an older attempt may have left objects, to
// become that of the snapshots to be made, and of the head of the same size as the last: a map
// cannot be made smaller while it has objects beyond its new end, and would be given up as
// invalid. The objects go with their steps; until then nobody believes the map.
func (r *transfer) cutMap(ctx context.Context, plan []snapshotChange) error {
	from := uint64(rbd.MaxObjects)
	for _, c := range plan {
		if c.kind == createSnapshot {
			from = min(from, r.Local.Header().Layout.ObjectCount(c.size))
		}
	}
	return r.Local.SetObjectMapState(ctx, ceph.NoSnap, image.ObjectNumber(from), rbd.MaxObjects, rbd.ObjectNonexistent)
}

// copySnapshots carries the plan out and records the ids.
func (r *transfer) copySnapshots(ctx context.Context, end ceph.SnapID) error {
	seqs := make(map[ceph.SnapID]ceph.SnapID, len(r.Meta.SnapSeqs))
	for remote, local := range r.Meta.SnapSeqs {
		seqs[ceph.SnapID(remote)] = ceph.SnapID(local)
	}
	user := rbd.UserSnapshot{}
	plan := planSnapshots(r.remote.Snapshots, r.Local.Header().Snapshots, seqs, end)
	if err := r.rememberObjects(ctx, plan); err != nil {
		return err
	}
	if err := r.cutMap(ctx, plan); err != nil {
		return err
	}
	for _, c := range plan {
		var err error
		switch c.kind {
		case unprotectSnapshot:
			_, err = r.Local.SnapUnprotect(ctx, user, c.name)
		case removeSnapshot:
			_, err = r.Local.SnapRemove(ctx, user, c.name)
		case renameSnapshot:
			_, err = r.Local.SnapRename(ctx, c.name, c.to)
		case createSnapshot:
			if err = r.needParent(ctx, c.share); err == nil {
				seqs[c.remote], _, err = r.Local.SnapCreateWithSize(ctx, user, c.name, c.size, c.share)
			}
		case protectSnapshot:
			_, err = r.Local.SnapProtect(ctx, user, c.name)
		}
		if err != nil {
			return err
		}
	}
	if seqs[end] == 0 {
		return fmt.Errorf("snapshot %d has no local copy", end) // cannot be: it was planned
	}
	meta := r.Meta
	meta.SnapSeqs = make(map[uint64]uint64, len(seqs))
	for remote, local := range seqs {
		if byID(r.Local.Header().Snapshots, local) != nil {
			meta.SnapSeqs[uint64(remote)] = uint64(local)
		}
	}
	if maps.Equal(meta.SnapSeqs, r.Meta.SnapSeqs) {
		return nil
	}
	return r.save(ctx, meta)
}

// forgetVanished takes from the record, before that is stored for good, the snapshots that
// were removed on the primary while they were copied: what their copies hold is not known.
// Nothing but a rollback to one would bring that to light, and that has to know.
func (r *transfer) forgetVanished(ctx context.Context) error {
	if err := r.readRemote(ctx); err != nil {
		return err
	}
	r.Meta.SnapSeqs = maps.Clone(r.Meta.SnapSeqs)
	maps.DeleteFunc(r.Meta.SnapSeqs, func(remote, _ uint64) bool { return byID(r.remote.Snapshots, ceph.SnapID(remote)) == nil })
	return nil
}
