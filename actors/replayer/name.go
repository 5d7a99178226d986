package replayer

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	"github.com/rbdwarden/rbdwarden/image"
)

// renameAgain is the time between attempts to take a name that another image has.
const renameAgain = 10 * time.Second

// adoptName gives the local image the name that the primary has now. Renamings are in
// the journal; but one that came between the making of the local image and its sync
// point is not replayed, and one may have found its name taken.
func (p *performer) adoptName(ctx context.Context) error {
	name, err := image.Name(ctx, p.Remote.IO, p.remoteID)
	if errors.Is(err, syscall.ENOENT) { // in the trash
		return nil
	}
	if err != nil {
		return err
	}
	return p.rename(ctx, name)
}

// rename renames the local image. Where another image has the name, replay goes on (as
// upstream's does: a copy under an old name is better than an old copy) and the name is
// tried for again: two images that swap their names on the primary get in each other's
// way here for a while.
func (p *performer) rename(ctx context.Context, name string) error {
	p.wanted.Store(&name)
	err := p.takeName(ctx, p.local)
	var taken *image.NameTakenError
	if !errors.As(err, &taken) {
		return err
	}
	p.Log.Warn().Err(err).Msg("cannot rename the local image; trying again")
	if p.renaming.CompareAndSwap(false, true) {
		local, open := p.local, p.open
		p.looks.Go(func() {
			defer p.renaming.Store(false)
			p.keepRenaming(open, local)
		})
	}
	return nil
}

// takeName gives the local image the name that is wanted, if one is.
func (p *performer) takeName(ctx context.Context, local *localImage) error {
	name := p.wanted.Load()
	if name == nil {
		return nil
	}
	out, err := local.image.Rename(ctx, *name)
	if err != nil {
		return err
	}
	p.wanted.CompareAndSwap(name, nil)
	if out == image.Done {
		p.notify(core.Renamed{Name: *name})
	}
	return nil
}

// keepRenaming tries until the name is free, or the image is closed.
func (p *performer) keepRenaming(ctx context.Context, local *localImage) {
	for p.wanted.Load() != nil {
		select {
		case <-ctx.Done():
			return
		case <-time.After(renameAgain):
		}
		done, err := local.enter(ctx)
		if err != nil {
			return
		}
		err = p.takeName(ctx, local)
		done()
		var taken *image.NameTakenError
		if err != nil && !errors.As(err, &taken) {
			return // whatever it is, replay meets it, too
		}
	}
}

// renameBeforeReplay is adoptName as a step of its own.
func (p *performer) renameBeforeReplay(ctx context.Context) error {
	done, err := p.local.enter(ctx)
	if errors.Is(err, errPromoted) {
		return nil // told by what follows
	}
	if err != nil {
		return err
	}
	defer done()
	return p.adoptName(ctx)
}
