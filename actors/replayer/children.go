package replayer

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
	mirrorpool "github.com/rbdwarden/rbdwarden/mirror"
	"github.com/rbdwarden/rbdwarden/rados"
)

// patienceForClones is how long the removal of a snapshot waits for its clones. One that
// cannot be made here, for whatever reason, must not hold its parent up for ever.
const patienceForClones = time.Minute

// clonesFirst is a *WaitError while a snapshot that is to be removed has clones on the
// primary that are mirrored and not here yet. On the primary such a snapshot is in the
// trash; here it would be gone, for nobody needs it yet, and the clones could not be made
// any more. Snapshot, clone, remove the snapshot, all in a second, is what provisioners
// do to copy an image.
func (p *performer) clonesFirst(ctx context.Context, ev wire.SnapRemove) error {
	ns, err := snapNamespace(ev.Namespace)
	if err != nil || p.local.image.Header().Snapshot(ns, ev.Name) == nil {
		return err
	}
	h, err := image.ReadHeader(ctx, p.Remote.IO, p.remoteID)
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, s := range h.Snapshots {
		trash, ok := s.Namespace.(rbd.TrashSnapshot)
		if !ok || trash.OriginalName != ev.Name || s.ChildCount == 0 {
			continue
		}
		if err := p.clonesOf(ctx, s.ID, ev.Name); err != nil {
			return err
		}
	}
	return nil
}

func (p *performer) clonesOf(ctx context.Context, snap ceph.SnapID, name string) error {
	children, err := rados.Ask(ctx, p.Remote.IO, rbd.HeaderObject(p.remoteID), rbd.ChildrenList(snap))
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, child := range children {
		missing, err := p.lacks(ctx, child)
		if err != nil {
			return err
		}
		if !missing {
			continue
		}
		if p.awaited == nil {
			p.awaited = map[ceph.SnapID]time.Time{}
		}
		since, ok := p.awaited[snap]
		switch {
		case !ok:
			p.awaited[snap] = time.Now()
		case time.Since(since) > patienceForClones:
			p.Log.Warn().Str("snapshot", name).Str("clone", child.ImageID).Msg("removing a snapshot although a clone of it was not made here yet")
			return nil
		}
		return &WaitError{
			For: fmt.Sprintf("a clone of snapshot %q (image id %s in pool %d on the primary) to be made here", name, child.ImageID, child.Pool),
			Why: "the snapshot was removed on the primary after it, and is to be removed here, too",
		}
	}
	return nil
}

// lacks tells whether an image of the primary's side is mirrored to this site and was not
// created here yet.
func (p *performer) lacks(ctx context.Context, child rbd.ChildSpec) (bool, error) {
	there, err := p.Remote.IO.Cluster().OpenID(ctx, child.Pool, child.Namespace)
	if errors.Is(err, syscall.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer there.Close()
	record, err := mirrorpool.GetImage(ctx, there, child.ImageID)
	if errors.Is(err, syscall.ENOENT) || err == nil && record.State != mirror.ImageEnabled {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	here, err := p.Local.IO.Cluster().Open(ctx, there.Pool().Name, child.Namespace)
	if errors.Is(err, syscall.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer here.Close()
	mode, err := rados.Ask(ctx, here, mirror.Object, mirror.GetMode())
	if errors.Is(err, syscall.ENOENT) || err == nil && mode != mirror.ModePool && mode != mirror.ModeImage {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_, local, err := mirrorpool.FindImage(ctx, here, record.GlobalID)
	if errors.Is(err, syscall.ENOENT) {
		return true, nil
	}
	return err == nil && local.State == mirror.ImageCreating, err
}
