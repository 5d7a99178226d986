package imagesync

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
)

// SyncPointPrefix begins the names of the sync points of a site
// (src/tools/rbd_mirror/image_sync/Utils.cc). They belong to the site whose mirror
// uuid they name, and nobody replicates them onwards.
func SyncPointPrefix(mirrorUUID string) string { return ".rbd-mirror." + mirrorUUID + "." }

// IsSyncPoint tells whether a snapshot's name is that of a sync point of a site.
func IsSyncPoint(mirrorUUID, name string) bool {
	return strings.HasPrefix(name, SyncPointPrefix(mirrorUUID))
}

func newSyncPointName(mirrorUUID string) string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return SyncPointPrefix(mirrorUUID) + fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// createSyncPoint records a new sync point, then makes it: in this order, so that no
// snapshot is left behind that nobody knows of.
func (r *transfer) createSyncPoint(ctx context.Context) error {
	for {
		name := newSyncPointName(r.MirrorUUID)
		meta := r.Meta
		meta.SyncPoints = []wire.SyncPoint{{SnapName: name}}
		if err := r.save(ctx, meta); err != nil {
			return err
		}
		if err := r.readRemote(ctx); err != nil {
			return err
		}
		r.before = r.remote
		err := r.Snapshots.Create(ctx, name)
		if err == nil {
			return nil
		}
		if errors.Is(err, syscall.EDQUOT) {
			return fmt.Errorf("create sync point: the image has as many snapshots on its primary as its limit allows, "+
				"and a sync needs one more (rbd snap limit set, or clear): %w", err)
		}
		if !errors.Is(err, syscall.EEXIST) {
			return fmt.Errorf("create sync point: %w", err)
		}
	}
}

// errUnclear says that nobody can tell on which side of the sync point a snapshot was
// removed or renamed.
var errUnclear = errors.New("snapshots have changed around the sync point")

// unclear tells whether a snapshot may have been removed or renamed before the sync point
// or behind it: what lies before it is done here, with the copy, what lies behind it by the
// replay, and neither may do the other's. Of a copy that goes on at its sync point all is
// clear: the snapshots were recorded when it began.
func (r *transfer) unclear(end *image.Snapshot) bool {
	if byID(r.Local.Header().Snapshots, ceph.SnapID(r.Meta.SnapSeqs[uint64(end.ID)])) != nil {
		return false
	}
	if r.before == nil {
		return true
	}
	for i := range r.before.Snapshots {
		was := &r.before.Snapshots[i]
		if is := byID(r.remote.Snapshots, was.ID); isUser(was) && (is == nil || !isUser(is) || is.Name != was.Name) {
			return true
		}
	}
	return false
}

// dropSyncPoint forgets a sync point up to which nothing was copied.
func (r *transfer) dropSyncPoint(ctx context.Context) error {
	if err := r.removeSnapshots(ctx, []string{r.Meta.SyncPoints[0].SnapName}); err != nil {
		return err
	}
	meta := r.Meta
	meta.SyncPoints = nil
	return r.save(ctx, meta)
}

// pruneBefore removes the sync points that cannot be used: all but the first, and
// that one, too, if its snapshot is gone.
func (r *transfer) pruneBefore(ctx context.Context) error {
	if err := r.removeSnapshots(ctx, strays(r.remote.Snapshots, r.MirrorUUID, r.Meta.SyncPoints)); err != nil {
		return err
	}
	if len(r.Meta.SyncPoints) == 0 {
		return nil
	}
	exists := func(name string) bool { return r.remote.Snapshot(rbd.UserSnapshot{}, name) != nil }
	remove, keep := unusable(r.Meta.SyncPoints, exists)
	if err := r.removeSnapshots(ctx, remove); err != nil {
		return err
	}
	if len(keep) == len(r.Meta.SyncPoints) {
		return nil
	}
	meta := r.Meta
	meta.SyncPoints = keep
	return r.save(ctx, meta)
}

// RemoveStrays removes the sync points of a site from the snapshots of a remote image which the site does not sync at the
// moment.
func RemoveStrays(ctx context.Context, s Snapshots, snapshots []image.Snapshot, mirrorUUID string) error {
	return removeSnapshots(ctx, s, strays(snapshots, mirrorUUID, nil))
}

// strays names our sync points that no record knows of. One is left where mirroring was disabled between the record and
// the snapshot: librbd then removes the snapshots that the record names, and the record. Another one where we died while the
// owner of the image's lock was asked for the snapshot: it makes it when it comes to that.
func strays(snapshots []image.Snapshot, mirrorUUID string, known []wire.SyncPoint) []string {
	var found []string
	for _, s := range snapshots {
		user := s.Namespace == nil || s.Namespace.Kind() == rbd.SnapshotUser
		is := func(p wire.SyncPoint) bool { return p.SnapName == s.Name || p.FromSnapName == s.Name }
		if user && IsSyncPoint(mirrorUUID, s.Name) && !slices.ContainsFunc(known, is) {
			found = append(found, s.Name)
		}
	}
	return found
}

// abandon removes our sync points once there is no record of them any more: whoever removed that may have been too early to
// find the snapshot. It is done as well as can be; the next sync of the image by this site looks for strays.
func (r *transfer) abandon(ctx context.Context) error {
	var names []string
	for _, p := range r.Meta.SyncPoints {
		names = append(names, p.SnapName)
	}
	return r.removeSnapshots(ctx, names)
}

// unusable tells which snapshots to remove and which sync points stay.
func unusable(points []wire.SyncPoint, exists func(name string) bool) (remove []string, keep []wire.SyncPoint) {
	first := points[0]
	if exists(first.SnapName) && first.FromSnapName == "" {
		keep = points[:1]
	}
	for i, p := range points {
		if i < len(keep) {
			continue
		}
		for _, name := range []string{p.SnapName, p.FromSnapName} {
			if name != "" && !slices.Contains(remove, name) && (len(keep) == 0 || name != keep[0].SnapName) {
				remove = append(remove, name)
			}
		}
	}
	return remove, keep
}

// pruneAfter removes the first sync point, which is complete. With the last one goes
// the state: from here on the journal is replayed.
func (r *transfer) pruneAfter(ctx context.Context) error {
	points := r.Meta.SyncPoints
	var remove []string
	if len(points) == 1 || points[1].FromSnapName != points[0].SnapName {
		remove = append(remove, points[0].SnapName)
	}
	if from := points[0].FromSnapName; from != "" {
		remove = append(remove, from)
	}
	if err := r.removeSnapshots(ctx, remove); err != nil {
		return err
	}
	if err := r.readRemote(ctx); err != nil {
		return err
	}
	// What is older than the sync point was copied, and comes before what is replayed: no later look finds it.
	if err := r.removeSnapshots(ctx, strays(r.remote.Snapshots, r.MirrorUUID, points[1:])); err != nil {
		return err
	}
	meta := r.Meta
	meta.SyncPoints = points[1:]
	if len(meta.SyncPoints) == 0 {
		meta.SyncPoints = nil
		meta.State = wire.PeerReplaying
	}
	return r.save(ctx, meta)
}

func (r *transfer) removeSnapshots(ctx context.Context, names []string) error {
	return removeSnapshots(ctx, r.Snapshots, names)
}

func removeSnapshots(ctx context.Context, s Snapshots, names []string) error {
	for _, name := range names {
		if err := s.Remove(ctx, name); err != nil && !errors.Is(err, syscall.ENOENT) {
			return fmt.Errorf("remove sync point: %w", err)
		}
	}
	return nil
}
