package replayer

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/rados"
)

// createLocal is CREATE_LOCAL_IMAGE.
func (p *performer) createLocal(ctx context.Context, imageID string) (core.Msg, error) {
	h := p.remoteHeader
	name, err := image.Name(ctx, p.Remote.IO, h.ID)
	if err != nil {
		return nil, fmt.Errorf("name of the remote image: %w", err)
	}
	dataPool, err := poolName(ctx, p.Remote.IO, h.Layout.DataPool)
	if err != nil {
		return nil, err
	}
	spec := image.CreateSpec{
		ID: imageID, Name: name, GlobalID: p.GlobalID, RemoteMirrorUUID: p.Remote.MirrorUUID,
		Size: h.Size, Order: h.Layout.Order, Features: h.Features,
		StripeUnit: h.Layout.StripeUnit, StripeCount: h.Layout.StripeCount, DataPool: dataPool,
	}
	if h.HasParent() {
		parent, err := p.localParent(ctx, h)
		if err != nil {
			return nil, err
		}
		defer parent.IO.Close()
		spec.Clone = &parent
	}
	_, err = image.Create(ctx, p.Local.IO, spec)
	var taken *image.IDTakenError
	if errors.As(err, &taken) {
		return core.LocalImageIDTaken{}, nil
	}
	var parent *image.ParentError
	if errors.As(err, &parent) { // the snapshot has changed since it was looked at
		return nil, &WaitError{For: "the parent image", Why: err.Error(), Err: err}
	}
	if err != nil {
		return nil, err
	}
	return core.LocalCreated{ImageID: imageID}, nil
}

// poolName finds the name of a separate data pool; "" if there is none.
func poolName(ctx context.Context, io rados.IOContext, id int64) (string, error) {
	if id < 0 || id == io.Pool().ID {
		return "", nil
	}
	pools, err := io.Cluster().Pools(ctx)
	if err != nil {
		return "", err
	}
	for _, p := range pools {
		if p.ID == id {
			return p.Name, nil
		}
	}
	return "", fmt.Errorf("data pool %d of the remote image: %w", id, syscall.ENOENT)
}

// removeLocal is REMOVE_LOCAL_IMAGE: into the trash, from where the pool deletes it
// after rbd_mirroring_delete_delay.
func (p *performer) removeLocal(ctx context.Context, imageID string) (core.Msg, error) {
	o, err := p.options(ctx, imageID)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	if err := image.MoveToTrash(ctx, p.Local.IO, imageID, now, now.Add(o.DeleteDelay), p.Lock); err != nil {
		return nil, err
	}
	p.Log.Info().Str("id", imageID).Dur("delete_delay", o.DeleteDelay).Msg("moved the local image to the trash")
	p.Trashed()
	return core.LocalRemoved{}, nil
}

// options are the options of mirroring for the local image.
func (p *performer) options(ctx context.Context, imageID string) (image.MirroringOptions, error) {
	o, bad, err := image.ReadMirroringOptions(ctx, p.Local.IO, imageID, p.Mirroring)
	if len(bad) > 0 {
		p.Log.Warn().Strs("options", bad).Msg("ignored options of the image or its pool that have no valid value")
	}
	return o, err
}
