package mem

import (
	"errors"
	"maps"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
)

// The class rbd. Source: ceph/ceph src/cls/rbd/cls_rbd.cc. Here: the header of an
// image but for snapshots and parents; other subjects are in class_rbd_*.go.

func rbdMethods() map[string]method {
	all := map[string]method{}
	for _, m := range []map[string]method{rbdHeaderMethods, rbdSnapshotMethods, rbdParentMethods,
		rbdDirectoryMethods, rbdObjectMapMethods, rbdMetadataMethods, rbdTrashMethods,
		mirrorPoolMethods, mirrorImageMethods, mirrorStatusMethods, mirrorPlacementMethods} {
		maps.Copy(all, m)
	}
	return all
}

var rbdHeaderMethods = map[string]method{
	"create":                rbdCreate,
	"get_size":              rbdGetSize,
	"set_size":              rbdSetSize,
	"get_features":          rbdGetFeatures,
	"set_features":          rbdSetFeatures,
	"get_object_prefix":     rbdGet("object_prefix"),
	"get_data_pool":         rbdGetDataPool,
	"get_stripe_unit_count": rbdGetStriping,
	"set_stripe_unit_count": rbdSetStriping,
	"get_flags":             rbdGetFlags,
	"set_flags":             rbdSetFlags,
	"op_features_get":       rbdGetU64Or("op_features", 0),
	"op_features_set":       rbdSetOpFeatures,
	"get_create_timestamp":  rbdGetTime("create_timestamp"),
	"get_access_timestamp":  rbdGetTime("access_timestamp"),
	"get_modify_timestamp":  rbdGetTime("modify_timestamp"),
	"set_access_timestamp":  rbdSetTime("access_timestamp"),
	"set_modify_timestamp":  rbdSetTime("modify_timestamp"),
}

// rbdGet answers with a stored value as it is.
func rbdGet(key string) method {
	return func(c *classContext, _ *encoding.Decoder, out *encoding.Encoder) error {
		v, err := c.omap(key)
		out.Raw(v)
		return err
	}
}

func rbdGetU64Or(key string, none uint64) method {
	return func(c *classContext, _ *encoding.Decoder, out *encoding.Encoder) error {
		v, err := c.u64Or(key, none)
		out.U64(v)
		return err
	}
}

func rbdGetTime(key string) method {
	return func(c *classContext, _ *encoding.Decoder, out *encoding.Encoder) error {
		if v, err := c.omap(key); err == nil {
			out.Raw(v)
		} else {
			out.U64(0)
		}
		return nil
	}
}

func rbdSetTime(key string) method {
	return func(c *classContext, _ *encoding.Decoder, _ *encoding.Encoder) error {
		if err := c.mustExist(); err != nil {
			return err
		}
		return c.put(key, func(e *encoding.Encoder) { e.Time(c.now()) })
	}
}

func rbdCreate(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	size, order, features, prefix, pool := in.U64(), in.U8(), rbd.Features(in.U64()), in.String(), rbd.NoDataPool
	if c.more() {
		pool = in.I64()
	}
	if err := c.input(); err != nil {
		return err
	}
	switch {
	case features&^rbd.FeaturesAll != 0:
		return syscall.ENOSYS
	case prefix == "":
		return syscall.EINVAL
	}
	if _, err := c.omap("object_prefix"); err == nil {
		return syscall.EEXIST
	}
	if features.Has(rbd.FeatureOperations) || features.Has(rbd.FeatureDataPool) != (pool != rbd.NoDataPool) {
		return syscall.EINVAL
	}
	if err := c.putU64("size", size); err != nil {
		return err
	}
	_ = c.put("order", func(e *encoding.Encoder) { e.U8(order) })
	_ = c.putU64("features", uint64(features))
	_ = c.put("object_prefix", func(e *encoding.Encoder) { e.String(prefix) })
	_ = c.putU64("snap_seq", 0)
	for _, key := range []string{"create_timestamp", "access_timestamp", "modify_timestamp"} {
		_ = c.put(key, func(e *encoding.Encoder) { e.Time(c.now()) })
	}
	if pool != rbd.NoDataPool {
		_ = c.put("data_pool_id", func(e *encoding.Encoder) { e.I64(pool) })
	}
	return nil
}

func rbdGetSize(c *classContext, in *encoding.Decoder, out *encoding.Encoder) error {
	snap := in.U64()
	if err := c.input(); err != nil {
		return err
	}
	order, err := c.omap("order")
	if err != nil {
		return err
	}
	size, err := c.sizeAt(snap)
	out.Raw(order)
	out.U64(size)
	return err
}

func (c *classContext) sizeAt(snap uint64) (uint64, error) {
	if snap == noSnap {
		return c.u64("size")
	}
	s, err := c.snapshot(snap)
	return s.ImageSize, err
}

func rbdSetSize(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	size := in.U64()
	if err := c.input(); err != nil {
		return err
	}
	old, err := c.u64("size")
	if err != nil {
		return err
	}
	if err := c.putU64("size", size); err != nil || size >= old {
		return err
	}
	parent, err := c.parent()
	if err == nil && parent.Spec.Exists() && parent.HeadOverlap != nil && *parent.HeadOverlap > size {
		parent.HeadOverlap = &size
		return c.put("parent", parent.Encode)
	}
	return ignoreMissing(err)
}

func ignoreMissing(err error) error {
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	return err
}

// featuresForReading are those that even a reader has to know
// (RBD_FEATURES_INCOMPATIBLE), all others but these a writer
// (RBD_FEATURES_RW_INCOMPATIBLE).
const featuresForReading = rbd.FeatureLayering | rbd.FeatureStriping | rbd.FeatureDataPool

func rbdGetFeatures(c *classContext, in *encoding.Decoder, out *encoding.Encoder) error {
	in.U64()
	readOnly := c.more() && in.Bool()
	if err := c.input(); err != nil {
		return err
	}
	features, err := c.u64("features")
	if err != nil {
		return err
	}
	incompatible := rbd.Features(features) & rbd.FeaturesAll
	if readOnly {
		incompatible &= featuresForReading
	}
	out.U64(features)
	out.U64(uint64(incompatible))
	return nil
}

func rbdSetFeatures(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	features, mask := rbd.Features(in.U64()), rbd.Features(in.U64())
	if err := c.input(); err != nil {
		return err
	}
	stored, err := c.u64Or("features", 0)
	if err != nil {
		return err
	}
	if mask&rbd.FeaturesInternal != 0 {
		return syscall.EINVAL
	}
	mask &= rbd.FeaturesAll
	on, off := features&mask, ^features&mask
	if on&^rbd.FeaturesMutable != 0 || off&^(rbd.FeaturesMutable|rbd.FeaturesDisableOnly) != 0 {
		return syscall.EINVAL
	}
	return c.putU64("features", stored&^uint64(mask)|uint64(on))
}

// requireFeature is ENOEXEC if the image has not got it.
func (c *classContext) requireFeature(f rbd.Features) error {
	features, err := c.u64Or("features", 0)
	if err == nil && !rbd.Features(features).Has(f) {
		return syscall.ENOEXEC
	}
	return err
}

func rbdSetOpFeatures(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	features, mask := rbd.OpFeatures(in.U64()), rbd.OpFeatures(in.U64())
	if err := c.input(); err != nil {
		return err
	}
	const all = rbd.OpFeatureCloneParent | rbd.OpFeatureCloneChild | rbd.OpFeatureGroup | rbd.OpFeatureSnapTrash
	if mask&^all != 0 {
		return syscall.EINVAL
	}
	return c.setOpFeatures(features, mask)
}

func (c *classContext) setOpFeatures(on, mask rbd.OpFeatures) error {
	features, err := c.u64("features")
	if err != nil {
		return err
	}
	stored, err := c.u64Or("op_features", 0)
	if err != nil {
		return err
	}
	op := rbd.OpFeatures(stored)&^mask | on&mask
	if op == rbd.OpFeatures(stored) {
		return nil
	}
	changed := features | uint64(rbd.FeatureOperations)
	if op == 0 {
		changed = features &^ uint64(rbd.FeatureOperations)
		err = c.remove("op_features")
	} else {
		err = c.putU64("op_features", uint64(op))
	}
	if err != nil || changed == features {
		return err
	}
	return c.putU64("features", changed)
}

func rbdGetDataPool(c *classContext, _ *encoding.Decoder, out *encoding.Encoder) error {
	if v, err := c.omap("data_pool_id"); err == nil {
		out.Raw(v)
	} else {
		out.I64(rbd.NoDataPool)
	}
	return nil
}

func rbdGetStriping(c *classContext, _ *encoding.Decoder, out *encoding.Encoder) error {
	if err := c.mustExist(); err != nil {
		return err
	}
	if err := c.requireFeature(rbd.FeatureStriping); err != nil {
		return err
	}
	order, err := c.omap("order")
	if err != nil {
		return syscall.EIO
	}
	unit, err := c.u64Or("stripe_unit", 1<<order[0])
	if err != nil {
		return err
	}
	count, err := c.u64Or("stripe_count", 1)
	out.U64(unit)
	out.U64(count)
	return err
}

func rbdSetStriping(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	s := rbd.Striping{Unit: in.U64(), Count: in.U64()}
	if err := c.input(); err != nil {
		return err
	}
	if s.Unit == 0 || s.Count == 0 {
		return syscall.EINVAL
	}
	if err := c.mustExist(); err != nil {
		return err
	}
	if err := c.requireFeature(rbd.FeatureStriping); err != nil {
		return err
	}
	order, err := c.omap("order")
	if err != nil {
		return err
	}
	if object := uint64(1) << order[0]; object%s.Unit != 0 || s.Unit > object {
		return syscall.EINVAL
	}
	if err := c.putU64("stripe_unit", s.Unit); err != nil {
		return err
	}
	return c.putU64("stripe_count", s.Count)
}

func rbdGetFlags(c *classContext, in *encoding.Decoder, out *encoding.Encoder) error {
	snap := in.U64()
	if err := c.input(); err != nil {
		return err
	}
	flags, err := c.flagsAt(snap)
	out.U64(flags)
	return err
}

func (c *classContext) flagsAt(snap uint64) (uint64, error) {
	if snap == noSnap {
		return c.u64Or("flags", 0)
	}
	s, err := c.snapshot(snap)
	return uint64(s.Flags), err
}

func rbdSetFlags(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	flags, mask, snap := in.U64(), in.U64(), noSnap
	if c.more() {
		snap = in.U64()
	}
	if err := c.input(); err != nil {
		return err
	}
	stored, err := c.flagsAt(snap)
	if err != nil {
		return err
	}
	flags = stored&^mask | flags&mask
	if snap == noSnap {
		return c.putU64("flags", flags)
	}
	return c.changeSnapshot(snap, func(s *rbd.HeaderSnapshot) { s.Flags = rbd.Flags(flags) })
}
