package replayer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/journal"
	mirrorpool "github.com/rbdwarden/rbdwarden/mirror"
	"github.com/rbdwarden/rbdwarden/rados"
)

// role is what an image's journal says about who writes to it.
type role struct {
	tagClass wire.TagClass
	tag      wire.TagTID
	data     wire.TagData
	resync   bool // an operator asked for a re-sync
}

func (r role) promotion() core.Promotion {
	switch r.data.MirrorUUID {
	case wire.LocalMirrorUUID:
		return core.Primary
	case wire.OrphanMirrorUUID:
		return core.Orphan
	}
	return core.NonPrimary
}

// readRole reads the image client's registration and the journal's newest tag
// (librbd::Journal::get_tag_owner).
func readRole(ctx context.Context, j *journal.Journal) (role, error) {
	own, err := j.ImageMeta(ctx)
	if err != nil {
		return role{}, err
	}
	tags, err := j.ImageTags(ctx, wire.MasterClientID, own.TagClass)
	if err != nil {
		return role{}, err
	}
	if len(tags) == 0 {
		return role{}, fmt.Errorf("%s has no tag: %w", j.HeaderObject(), syscall.EBADMSG)
	}
	newest := tags[len(tags)-1]
	return role{tagClass: own.TagClass, tag: newest.TID, data: newest.TagData, resync: own.ResyncRequested}, nil
}

// roleOf opens the journal of an image only to read its role.
func roleOf(ctx context.Context, io rados.IOContext, imageID string) (role, error) {
	j, err := journal.Open(ctx, io, imageID)
	if err != nil {
		return role{}, err
	}
	defer j.Close()
	return readRole(ctx, j)
}

// prepareLocal is PREPARE_LOCAL_IMAGE.
func (p *performer) prepareLocal(ctx context.Context) (core.Msg, error) {
	io := p.Local.IO
	id, record, err := mirrorpool.FindImage(ctx, io, p.GlobalID)
	if errors.Is(err, syscall.ENOENT) {
		return core.LocalPrepared{}, nil
	}
	if err != nil {
		return nil, err
	}
	local := core.Local{
		Exists: true, ImageID: id, HalfMade: record.State == mirror.ImageCreating, Disabling: record.State == mirror.ImageDisabling,
		Snapshot: record.Mode == mirror.ImageSnapshot,
	}
	local.Name, err = image.Name(ctx, io, id)
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		return nil, err
	}
	if local.HalfMade || local.Snapshot {
		return core.LocalPrepared{Local: local}, nil
	}
	r, err := roleOf(ctx, io, id)
	switch {
	case errors.Is(err, syscall.ENOENT):
		local.Promotion = core.PromotionUnknown // the image itself may be missing: OPEN_LOCAL_IMAGE finds out
	case err != nil:
		return nil, err
	default:
		local.Promotion, local.PrimaryUUID, local.ResyncRequested = r.promotion(), r.data.MirrorUUID, r.resync
	}
	if local.Disabling {
		if local.Trashed, err = image.IsTrashed(ctx, io, id); err != nil {
			return nil, err
		}
	}
	o, err := p.options(ctx, id)
	if err != nil {
		return nil, err
	}
	local.ResyncAfterDisconnect = o.ResyncAfterDisconnect
	if local.ResyncRequested || local.ResyncAfterDisconnect {
		if local.ResyncInPlace, err = p.resyncsInPlace(ctx, id, o); err != nil {
			return nil, err
		}
	}
	return core.LocalPrepared{Local: local}, nil
}

// prepareRemote is PREPARE_REMOTE_IMAGE.
func (p *performer) prepareRemote(ctx context.Context) (core.Msg, error) {
	io := p.Remote.IO
	id, record, err := mirrorpool.FindImage(ctx, io, p.GlobalID)
	if errors.Is(err, syscall.ENOENT) {
		return p.remoteGone(ctx)
	}
	if err != nil {
		return nil, err
	}
	remote := core.Remote{
		Exists: true, ImageID: id, Disabling: record.State == mirror.ImageDisabling,
		Snapshot: record.Mode == mirror.ImageSnapshot,
	}
	if remote.Disabling || remote.Snapshot {
		return core.RemotePrepared{Remote: remote}, nil
	}
	if p.remoteMode, err = mirrorpool.ReadMode(ctx, io); err != nil {
		return nil, err
	}
	p.modeChanged = time.Time{}
	r, err := roleOf(ctx, io, id)
	if err != nil {
		return nil, err
	}
	remote.Promotion = r.promotion()
	return core.RemotePrepared{Remote: remote}, nil
}

// remoteGone makes sure that "no such image" means that: a pool that was deleted, or
// whose mirroring was disabled as a whole, answers ENOENT for every image, and the local
// copies must not be removed for that.
//
// rbd disables a pool's mirroring in steps: the pool must have no peers; its mode, if that was
// "pool", becomes "image"; then one image after the other is disabled; then the mode becomes
// "disabled" (Mirror<I>::mode_set). So images that are gone from a pool which has just become
// one of mode "image", or has no peers, do not say yet whether somebody removed them.
func (p *performer) remoteGone(ctx context.Context) (core.Msg, error) {
	pool, err := mirrorpool.ReadPool(ctx, p.Remote.IO)
	if err != nil {
		return nil, fmt.Errorf("the remote pool does not say whether it has the image: %w", err)
	}
	keep := func(why string) (core.Msg, error) {
		return nil, &rados.Error{
			Op: "look for the image", Pool: p.Remote.IO.Pool().Name, Namespace: p.Remote.IO.Namespace(),
			Object: rbd.MirroringObject, Err: fmt.Errorf("%s: %w", why, syscall.EAGAIN),
		}
	}
	switch {
	case !pool.Mirrors():
		return keep(fmt.Sprintf("mirroring is %v there", pool.Mode))
	case pool.Mode != mirror.ModeImage:
		return core.RemotePrepared{}, nil
	case p.Remote.IO.Namespace() == "" && len(pool.Peers) == 0:
		return keep("mirroring is being disabled there, for the pool has no peers any more")
	case p.remoteMode == mirror.ModePool && p.modeChanged.IsZero():
		p.modeChanged = time.Now()
		fallthrough
	case p.remoteMode == mirror.ModePool && time.Since(p.modeChanged) < dismantling:
		return keep(fmt.Sprintf("mirroring is being disabled there, or has become image by image; the copy is kept until %s",
			p.modeChanged.Add(dismantling).UTC().Format(time.TimeOnly)))
	}
	return core.RemotePrepared{}, nil
}

// dismantling is for how long images that are gone are not believed to be removed when the
// remote pool has ceased to be mirrored as a whole. Disabling a pool's mirroring takes part of
// a second for each image.
const dismantling = 5 * time.Minute

// openRemote is OPEN_REMOTE_IMAGE.
func (p *performer) openRemote(ctx context.Context, imageID string) (core.Msg, error) {
	h, err := image.ReadHeader(ctx, p.Remote.IO, imageID)
	if err != nil {
		return nil, err
	}
	p.remoteHeader = h
	p.stray = slices.ContainsFunc(h.Snapshots, func(s image.Snapshot) bool { return p.ourSyncPoint(s.Name) })
	return core.RemoteOpened{}, nil
}
