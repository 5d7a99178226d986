package replayer

import (
	"context"
	"errors"
	"fmt"
	"syscall"

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
	_, err = image.Create(ctx, p.Local.IO, image.CreateSpec{
		ID: imageID, Name: name, GlobalID: p.GlobalID, RemoteMirrorUUID: p.Remote.MirrorUUID,
		Size: h.Size, Order: h.Layout.Order, Features: h.Features,
		StripeUnit: h.Layout.StripeUnit, StripeCount: h.Layout.StripeCount, DataPool: dataPool,
	})
	var taken *image.IDTakenError
	if errors.As(err, &taken) {
		return core.LocalImageIDTaken{}, nil
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

// removeLocal is REMOVE_LOCAL_IMAGE.
func (p *performer) removeLocal(ctx context.Context, imageID string) (core.Msg, error) {
	if err := image.Remove(ctx, p.Local.IO, imageID, p.Lock); err != nil {
		return nil, err
	}
	p.Log.Info().Str("id", imageID).Msg("removed the local image")
	return core.LocalRemoved{}, nil
}
