package image

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/rados"
)

// SnapCreate makes a snapshot of the head. The caller has brought all earlier I/O
// to an end, and starts no other until it returns. The id is that of the snapshot
// that now exists, also if it did before (AlreadyDone).
//
// Steps, as src/librbd/operation/SnapshotCreateRequest.cc: allocate an id; the
// record in the header; the snapshot's object map; "clean" marks in the head's.
func (im *Image) SnapCreate(ctx context.Context, ns rbd.SnapshotNamespace, name string) (ceph.SnapID, Outcome, error) {
	var id ceph.SnapID
	out, err := im.operate(ctx, fmt.Sprintf("create snapshot %q", name), func(ctx context.Context, h *Header) (Outcome, error) {
		if s := h.Snapshot(ns, name); s != nil {
			id = s.ID
			return im.completeSnapshot(ctx, h, id)
		}
		var err error
		if id, err = im.addSnapshot(ctx, ns, name); err != nil {
			return 0, err
		}
		return Done, im.object.addSnapshot(ctx, id)
	})
	if err != nil {
		return 0, 0, err
	}
	return id, out, nil
}

// completeSnapshot finishes a SnapCreate that was interrupted: the record is
// there, the object map is not. No I/O was applied since, or the map would have
// been made before, so the head's map still is the snapshot's.
func (im *Image) completeSnapshot(ctx context.Context, h *Header, id ceph.SnapID) (Outcome, error) {
	newest := len(h.SnapContext.Snaps) > 0 && h.SnapContext.Snaps[0] == id
	if !newest || !im.object.enabled() {
		return AlreadyDone, nil
	}
	var op rados.ReadOp
	op.Stat()
	err := im.io.Read(ctx, rbd.ObjectMapObject(h.ID, id), &op)
	if !errors.Is(err, syscall.ENOENT) {
		return AlreadyDone, err
	}
	return Done, im.object.addSnapshot(ctx, id)
}

// addSnapshot allocates an id and records the snapshot in the header.
func (im *Image) addSnapshot(ctx context.Context, ns rbd.SnapshotNamespace, name string) (ceph.SnapID, error) {
	for {
		if err := im.owned(); err != nil {
			return 0, err
		}
		id, err := im.data.CreateSnapID(ctx)
		if err != nil {
			return 0, fmt.Errorf("allocate snapshot id: %w", err)
		}
		err = im.tellHeader(ctx, rbd.SnapshotAdd(id, name, ns))
		if err == nil {
			return id, nil
		}
		if rados.Classify(err) == rados.Transient {
			// It may have been recorded all the same: the id must not be freed.
			return 0, err
		}
		if undo := im.data.RemoveSnapID(ctx, id); undo != nil {
			err = errors.Join(err, fmt.Errorf("free snapshot id %d: %w", id, undo))
		}
		if !errors.Is(err, syscall.ESTALE) { // ESTALE: a newer id is in the header
			return 0, err
		}
	}
}

// SnapRemove removes a snapshot. If clones of format 2 hang on it, it goes to the
// image's trash and stays there until they are gone.
//
// Steps, as src/librbd/operation/SnapshotRemoveRequest.cc: move to the trash, so
// that no clone can be made of it any more; leave the parent if only this snapshot still
// is a clone; fold its object map into the next newer one; free its id, whereupon the OSDs drop its data; remove the record.
func (im *Image) SnapRemove(ctx context.Context, ns rbd.SnapshotNamespace, name string) (Outcome, error) {
	return im.operate(ctx, fmt.Sprintf("remove snapshot %q", name), func(ctx context.Context, h *Header) (Outcome, error) {
		s := h.Snapshot(ns, name)
		if s == nil {
			s = halfRemoved(h, ns, name)
		}
		if s == nil {
			return AlreadyDone, nil
		}
		if s.Protection != rbd.Unprotected {
			return 0, &ProtectedError{Name: name}
		}
		return Done, im.removeSnapshot(ctx, h, s)
	})
}

// halfRemoved finds a snapshot whose removal got as far as the trash.
func halfRemoved(h *Header, ns rbd.SnapshotNamespace, name string) *Snapshot {
	kind := rbd.SnapshotUser
	if ns != nil {
		kind = ns.Kind()
	}
	for i := range h.Snapshots {
		s := &h.Snapshots[i]
		if t, ok := s.Namespace.(rbd.TrashSnapshot); ok && t.OriginalName == name && t.OriginalKind == kind && s.ChildCount == 0 {
			return s
		}
	}
	return nil
}

// FinishRemovals completes removals of snapshots that were interrupted: a writer that
// died in between left them in the image's trash, where a repeated event or sync need
// not look for them. Those that clones hang on stay.
func (im *Image) FinishRemovals(ctx context.Context) error {
	for _, s := range im.Header().Snapshots {
		trash, ok := s.Namespace.(rbd.TrashSnapshot)
		if !ok || s.ChildCount > 0 {
			continue
		}
		_, err := im.operate(ctx, fmt.Sprintf("finish the removal of snapshot %q", trash.OriginalName),
			func(ctx context.Context, h *Header) (Outcome, error) { return Done, im.removeSnapshot(ctx, h, &s) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (im *Image) removeSnapshot(ctx context.Context, h *Header, s *Snapshot) error {
	if s.Namespace == nil || s.Namespace.Kind() != rbd.SnapshotTrash {
		err := im.tellHeader(ctx, rbd.SnapshotTrashAdd(s.ID))
		if err != nil && !errors.Is(err, syscall.EEXIST) && !errors.Is(err, syscall.EOPNOTSUPP) {
			return fmt.Errorf("move to trash: %w", err)
		}
	}
	now, err := rados.Ask(ctx, im.io, rbd.HeaderObject(h.ID), rbd.SnapshotGet(s.ID))
	if err != nil {
		return err
	}
	if now.ChildCount > 0 {
		return nil // the trash is as far as it goes
	}
	if lastChild(h, s) {
		if err := im.owned(); err != nil {
			return err
		}
		if err := DetachChild(ctx, im.io, h); err != nil {
			return err
		}
	}
	if h.Features.Has(rbd.FeatureObjectMap) {
		if err := im.object.removeSnapshot(ctx, s, nextSnapshot(h, s.ID)); err != nil {
			return err
		}
	}
	if err := im.owned(); err != nil {
		return err
	}
	if err := im.data.RemoveSnapID(ctx, s.ID); err != nil && !errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("free snapshot id %d: %w", s.ID, err)
	}
	if err := im.tellHeader(ctx, rbd.SnapshotRemove(s.ID)); err != nil && !errors.Is(err, syscall.ENOENT) {
		return err
	}
	return nil
}

// lastChild tells whether a snapshot is all that is left of the image's being a clone:
// the head was flattened, and no other snapshot is attached to the parent.
func lastChild(h *Header, s *Snapshot) bool {
	if !s.Attached || h.Attached {
		return false
	}
	return !slices.ContainsFunc(h.Snapshots, func(o Snapshot) bool { return o.Attached && o.ID != s.ID })
}

// nextSnapshot is the next newer snapshot, or ceph.NoSnap for the head.
func nextSnapshot(h *Header, id ceph.SnapID) ceph.SnapID {
	next := ceph.NoSnap
	for _, s := range h.Snapshots {
		if s.ID > id && s.ID < next {
			next = s.ID
		}
	}
	return next
}

// SnapRename renames a user snapshot. With neither name there it is ENOENT.
func (im *Image) SnapRename(ctx context.Context, from, to string) (Outcome, error) {
	return im.operate(ctx, fmt.Sprintf("rename snapshot %q to %q", from, to), func(ctx context.Context, h *Header) (Outcome, error) {
		s := h.Snapshot(rbd.UserSnapshot{}, from)
		switch {
		case s == nil && h.Snapshot(rbd.UserSnapshot{}, to) != nil, from == to && s != nil:
			return AlreadyDone, nil
		case s == nil:
			return 0, syscall.ENOENT
		}
		return Done, im.tellHeader(ctx, rbd.SnapshotRename(s.ID, to))
	})
}

// SnapProtect protects a snapshot from removal. ENOENT if there is none.
func (im *Image) SnapProtect(ctx context.Context, ns rbd.SnapshotNamespace, name string) (Outcome, error) {
	return im.operate(ctx, fmt.Sprintf("protect snapshot %q", name), func(ctx context.Context, h *Header) (Outcome, error) {
		s := h.Snapshot(ns, name)
		switch {
		case s == nil:
			return 0, syscall.ENOENT
		case s.Protection == rbd.Protected:
			return AlreadyDone, nil
		case !h.Features.Has(rbd.FeatureLayering):
			return 0, &FeatureError{ImageID: h.ID, Missing: rbd.FeatureLayering}
		}
		return Done, im.tellHeader(ctx, rbd.SetProtection(s.ID, rbd.Protected))
	})
}

// SnapUnprotect ends a snapshot's protection: a *ChildrenError if clones of format
// 1 need it. ENOENT if there is no such snapshot.
//
// Steps, as src/librbd/operation/SnapshotUnprotectRequest.cc: say that protection
// is ending, so that no new clone is made; look for clones in every pool; end it,
// or take it back.
func (im *Image) SnapUnprotect(ctx context.Context, ns rbd.SnapshotNamespace, name string) (Outcome, error) {
	return im.operate(ctx, fmt.Sprintf("unprotect snapshot %q", name), func(ctx context.Context, h *Header) (Outcome, error) {
		s := h.Snapshot(ns, name)
		switch {
		case s == nil:
			return 0, syscall.ENOENT
		case s.Protection == rbd.Unprotected:
			return AlreadyDone, nil
		}
		if err := im.tellHeader(ctx, rbd.SetProtection(s.ID, rbd.Unprotecting)); err != nil {
			return 0, err
		}
		if err := im.findClones(ctx, s); err != nil {
			return 0, errors.Join(err, im.tellHeader(ctx, rbd.SetProtection(s.ID, rbd.Protected)))
		}
		return Done, im.tellHeader(ctx, rbd.SetProtection(s.ID, rbd.Unprotected))
	})
}

// findClones looks for clones of format 1 in all pools that we may read.
func (im *Image) findClones(ctx context.Context, s *Snapshot) error {
	cluster := im.io.Cluster()
	if err := cluster.WaitForLatestMap(ctx); err != nil {
		return err
	}
	pools, err := cluster.Pools(ctx)
	if err != nil {
		return fmt.Errorf("list pools: %w", err)
	}
	parent := rbd.ParentSpec{Pool: im.io.Pool().ID, Namespace: im.io.Namespace(), ImageID: im.object.id, Snap: s.ID}
	for _, pool := range pools {
		children, err := clonesIn(ctx, cluster, pool, parent)
		if err != nil {
			return fmt.Errorf("look for clones in pool %q: %w", pool.Name, err)
		}
		if len(children) > 0 {
			return &ChildrenError{Snapshot: s.Name, Pool: pool.Name, Children: children}
		}
	}
	return nil
}

func clonesIn(ctx context.Context, cluster rados.Cluster, pool rados.Pool, parent rbd.ParentSpec) ([]string, error) {
	io, err := cluster.OpenID(ctx, pool.ID, "")
	if errors.Is(err, syscall.ENOENT) {
		return nil, nil // removed meanwhile
	}
	if err != nil {
		return nil, err
	}
	defer io.Close()
	children, err := rados.Ask(ctx, io, rbd.ChildrenObject, rbd.GetChildren(parent))
	switch {
	case errors.Is(err, syscall.ENOENT),
		errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES): // a pool that is none of our business
		return nil, nil
	}
	return children, err
}

// SnapSetLimit changes how many snapshots the image may have;
// rbd.NoSnapshotLimit ends the limit. The class refuses a limit below the number there
// are now (sync points count), so that number becomes the limit then: none at all would
// be worse, and src/librbd/journal/Replay.cc ignores the refusal.
func (im *Image) SnapSetLimit(ctx context.Context, limit uint64) (Outcome, error) {
	return im.operate(ctx, fmt.Sprintf("limit snapshots to %d", limit), func(ctx context.Context, h *Header) (Outcome, error) {
		limit := max(limit, uint64(len(h.Snapshots)))
		if h.SnapLimit == limit {
			return AlreadyDone, nil
		}
		return Done, im.tellHeader(ctx, rbd.SnapshotSetLimit(limit))
	})
}
