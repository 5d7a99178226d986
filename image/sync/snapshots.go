package imagesync

import (
	"context"
	"fmt"
	"maps"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
)

// snapshotChange is one thing to do to the local image's snapshots, in the order of
// src/librbd/deep_copy/SnapshotCopyRequest.cc: first all unprotect, then all remove,
// all create, all protect.
type snapshotChange struct {
	kind   changeKind
	name   string
	remote ceph.SnapID // create: the snapshot to make a copy of
	size   uint64      // create: bytes
	share  image.Sharing
}

type changeKind uint8

const (
	unprotectSnapshot changeKind = iota + 1
	removeSnapshot
	createSnapshot
	protectSnapshot
)

// planSnapshots tells how the local snapshots become those of the remote image up to
// the sync point. seqs maps remote ids to local ones: a local snapshot that is not in
// it is of unknown content (an attempt ended before it could record it) and is made
// again. One whose original is gone stays: the journal has its removal.
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
	resumed := byID(local, seqs[end]) != nil
	for i := range local {
		l := &local[i]
		o := original[l.ID]
		flattened := o != nil && isUser(o) && o.Attached != l.Attached && !resumed
		again := isUser(l) && (!known[l.ID] || flattened)
		if l.Protection != rbd.Unprotected && (again || o == nil || o.Protection == rbd.Unprotected) {
			unprotect = append(unprotect, snapshotChange{kind: unprotectSnapshot, name: l.Name})
		}
		if again {
			remove = append(remove, snapshotChange{kind: removeSnapshot, name: l.Name})
			continue
		}
		there[l.ID] = l
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
				name = l.Name // the journal has the renaming, if there was one
			}
			protect = append(protect, snapshotChange{kind: protectSnapshot, name: name})
		}
	}
	all := append(unprotect, remove...)
	return append(append(all, create...), protect...)
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

// copySnapshots carries the plan out and records the ids.
func (r *transfer) copySnapshots(ctx context.Context, end ceph.SnapID) error {
	seqs := make(map[ceph.SnapID]ceph.SnapID, len(r.Meta.SnapSeqs))
	for remote, local := range r.Meta.SnapSeqs {
		seqs[ceph.SnapID(remote)] = ceph.SnapID(local)
	}
	user := rbd.UserSnapshot{}
	for _, c := range planSnapshots(r.remote.Snapshots, r.Local.Header().Snapshots, seqs, end) {
		var err error
		switch c.kind {
		case unprotectSnapshot:
			_, err = r.Local.SnapUnprotect(ctx, user, c.name)
		case removeSnapshot:
			_, err = r.Local.SnapRemove(ctx, user, c.name)
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
		meta.SnapSeqs[uint64(remote)] = uint64(local)
	}
	if maps.Equal(meta.SnapSeqs, r.Meta.SnapSeqs) {
		return nil
	}
	return r.save(ctx, meta)
}
