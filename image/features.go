package image

import (
	"context"
	"fmt"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/rados"
)

const mapFeatures = rbd.FeatureObjectMap | rbd.FeatureFastDiff

// UpdateFeatures switches features on or off. Object map and fast-diff go together;
// a new object map knows nothing and is marked invalid until "rbd object-map
// rebuild". Deep flatten can be switched off only. Exclusive lock and journaling
// cannot be switched off while the image is mirrored: EINVAL.
//
// Steps, as src/librbd/operation/{Enable,Disable}FeaturesRequest.cc. On: flags,
// feature, object maps. Off: object maps, feature, flags.
func (im *Image) UpdateFeatures(ctx context.Context, features rbd.Features, on bool) (Outcome, error) {
	verb := map[bool]string{true: "enable", false: "disable"}[on]
	return im.operate(ctx, fmt.Sprintf("%s features %v", verb, features), func(ctx context.Context, h *Header) (Outcome, error) {
		if features&mapFeatures != 0 {
			features |= mapFeatures
		}
		if on {
			return im.enable(ctx, h, features&^h.Features)
		}
		return im.disable(ctx, h, features&h.Features)
	})
}

func (im *Image) enable(ctx context.Context, h *Header, features rbd.Features) (Outcome, error) {
	switch {
	case features == 0:
		return AlreadyDone, nil
	case features&^mapFeatures != 0:
		return 0, fmt.Errorf("%v cannot be enabled: %w", features&^mapFeatures, syscall.EINVAL)
	}
	for _, id := range states(h) {
		if h.Layout.ObjectCount(sizeAt(h, id)) > rbd.MaxObjects {
			return 0, fmt.Errorf("too many objects for an object map: %w", syscall.EINVAL)
		}
	}
	if err := im.flagMaps(ctx, h, rbd.FlagObjectMapInvalid|rbd.FlagFastDiffInvalid); err != nil {
		return 0, err
	}
	if err := im.tellHeader(ctx, rbd.SetFeatures(mapFeatures, mapFeatures)); err != nil {
		return 0, err
	}
	return Done, im.object.create(ctx, h)
}

func (im *Image) disable(ctx context.Context, h *Header, features rbd.Features) (Outcome, error) {
	allowed := mapFeatures | rbd.FeaturesDisableOnly
	switch {
	case features == 0:
		return AlreadyDone, nil
	case features&^allowed != 0:
		return 0, fmt.Errorf("%v cannot be disabled: %w", features&^allowed, syscall.EINVAL)
	}
	if features&mapFeatures != 0 {
		if err := im.object.discard(ctx, h); err != nil {
			return 0, err
		}
	}
	if err := im.tellHeader(ctx, rbd.SetFeatures(0, features)); err != nil {
		return 0, err
	}
	if features&mapFeatures == 0 {
		return Done, nil
	}
	return Done, im.flagMaps(ctx, h, 0)
}

// flagMaps sets the flags of the object maps of head and snapshots
// (src/librbd/image/SetFlagsRequest.cc).
func (im *Image) flagMaps(ctx context.Context, h *Header, flags rbd.Flags) error {
	for _, id := range states(h) {
		if err := im.tellHeader(ctx, rbd.SetFlags(id, flags, rbd.FlagObjectMapInvalid|rbd.FlagFastDiffInvalid)); err != nil {
			return err
		}
	}
	return nil
}

// states lists what has an object map: the head and the snapshots.
func states(h *Header) []ceph.SnapID {
	ids := []ceph.SnapID{ceph.NoSnap}
	return append(ids, h.SnapContext.Snaps...)
}

// sizeAt is the image's size in bytes at a snapshot or at the head.
func sizeAt(h *Header, id ceph.SnapID) uint64 {
	if s := h.SnapshotByID(id); s != nil {
		return s.ImageSize
	}
	return h.Size
}

// create makes the maps of an image that is just getting the feature, and begins
// to keep the head's up (src/librbd/object_map/CreateRequest.cc).
func (o *objectMap) create(ctx context.Context, h *Header) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fastDiff = true
	for _, id := range states(h) {
		if err := o.owned(); err != nil {
			return err
		}
		m := rbd.NewObjectMap(h.Layout.ObjectCount(sizeAt(h, id)))
		if err := rados.Tell(ctx, o.io, rbd.ObjectMapObject(o.id, id), rbd.ObjectMapSave(m)); err != nil {
			return fmt.Errorf("create object map: %w", err)
		}
	}
	return o.take(ctx, h.Layout.ObjectCount(h.Size), rbd.FlagObjectMapInvalid)
}

// discard removes the maps of an image that is about to lose the feature
// (src/librbd/object_map/RemoveRequest.cc).
func (o *objectMap) discard(ctx context.Context, h *Header) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.m, o.valid, o.locked, o.fastDiff = nil, false, false, false
	for _, id := range states(h) {
		if err := o.owned(); err != nil {
			return err
		}
		if err := removeObject(ctx, o.io, rbd.ObjectMapObject(o.id, id)); err != nil {
			return fmt.Errorf("remove object map: %w", err)
		}
	}
	return nil
}
