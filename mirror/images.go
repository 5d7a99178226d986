package mirror

import (
	"context"
	"errors"
	"maps"
	"slices"
	"syscall"
	"time"

	cephmirror "github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/rados"
)

// imagePage is how many images one call lists, as in rbd-mirror.
const imagePage = 1024

// ListImages calls fn for every mirrored image of the pool and namespace of io, in
// byte order of the image ids, until fn returns false. A pool that was never mirrored
// has none. Images that come or go meanwhile may or may not be among them.
func ListImages(ctx context.Context, io rados.IOContext, fn func(imageID, globalID string) bool) error {
	for after := ""; ; {
		images, err := rados.Ask(ctx, io, cephmirror.Object, cephmirror.ImageList(after, imagePage))
		if errors.Is(err, syscall.ENOENT) {
			return nil
		} else if err != nil {
			return err
		}
		ids := slices.Sorted(maps.Keys(images))
		for _, id := range ids {
			if !fn(id, images[id]) {
				return nil
			}
		}
		if len(ids) < imagePage {
			return nil
		}
		after = ids[len(ids)-1]
	}
}

// FindImage finds the record of the image with a global id; ENOENT if there is none
// here.
func FindImage(ctx context.Context, io rados.IOContext, globalID string) (imageID string, record cephmirror.Image, err error) {
	imageID, err = rados.Ask(ctx, io, cephmirror.Object, cephmirror.ImageGetID(globalID))
	if err != nil {
		return "", cephmirror.Image{}, err
	}
	record, err = GetImage(ctx, io, imageID)
	return imageID, record, err
}

// GetImage reads the record of an image; ENOENT if it is not mirrored.
func GetImage(ctx context.Context, io rados.IOContext, imageID string) (cephmirror.Image, error) {
	return rados.Ask(ctx, io, cephmirror.Object, cephmirror.ImageGet(imageID))
}

// SetImage stores the record of an image and tells the watchers. Storing what is
// there already does nothing. A new local image is ImageCreating from before its
// first object until it is complete, then ImageEnabled: what a crash leaves behind is
// known by it. (src/librbd/mirror/ImageStateUpdateRequest.cc)
func SetImage(ctx context.Context, io rados.IOContext, imageID string, record cephmirror.Image) error {
	was, err := GetImage(ctx, io, imageID)
	if err == nil && was == record {
		return nil
	} else if err != nil && !errors.Is(err, syscall.ENOENT) {
		return err
	}
	if err := rados.Tell(ctx, io, cephmirror.Object, cephmirror.ImageSet(imageID, record)); err != nil {
		return err
	}
	return announce(ctx, io, cephmirror.ImageUpdated{State: record.State, ImageID: imageID, GlobalID: record.GlobalID})
}

// RemoveImage ends an image's mirroring: the state ImageDisabling, then the end of the
// record and all statuses. An image without a record is no error.
// (src/librbd/mirror/ImageRemoveRequest.cc)
func RemoveImage(ctx context.Context, io rados.IOContext, imageID string) error {
	record, err := GetImage(ctx, io, imageID)
	if errors.Is(err, syscall.ENOENT) {
		return nil
	} else if err != nil {
		return err
	}
	record.State = cephmirror.ImageDisabling
	if err := SetImage(ctx, io, imageID, record); err != nil && !errors.Is(err, syscall.ENOENT) {
		return err
	}
	err = rados.Tell(ctx, io, cephmirror.Object, cephmirror.ImageRemove(imageID))
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		return err
	}
	return announce(ctx, io, cephmirror.ImageUpdated{State: cephmirror.ImageDisabled, ImageID: imageID, GlobalID: record.GlobalID})
}

// notifyTimeout is how long librbd waits for the watchers (MirroringWatcher.cc).
const notifyTimeout = 5 * time.Second

// Notify tells the watchers of rbd_mirroring. Those who do not answer in time are no
// error; a missing object is ENOENT.
func Notify(ctx context.Context, io rados.IOContext, ev cephmirror.Event) error {
	_, err := io.Notify(ctx, cephmirror.Object, cephmirror.EncodeEvent(ev), notifyTimeout)
	return err
}

// announce is Notify after a change that has been stored: watchers that miss it find
// the change when they list again, so only being fenced or cancelled is an error.
func announce(ctx context.Context, io rados.IOContext, ev cephmirror.Event) error {
	err := Notify(ctx, io, ev)
	if errors.Is(err, rados.Blocklisted) || ctx.Err() != nil {
		return err
	}
	return nil
}
