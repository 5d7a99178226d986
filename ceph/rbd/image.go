package rbd

import (
	"time"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// Calls on rbd_header.<id>. Sources: src/cls/rbd/cls_rbd.cc,
// src/cls/rbd/cls_rbd_client.cc.

// NoDataPool stands for "the data are in the header's pool".
const NoDataPool int64 = -1

// Create makes the header of a new image: EEXIST if it has one. size is in bytes,
// an object has 1<<order bytes. dataPool is NoDataPool, or the id of a separate
// pool, in which case features must have FeatureDataPool and prefix the header
// pool's id (see ObjectPrefix). Unknown features give ENOSYS.
func Create(size uint64, order uint8, features Features, prefix string, dataPool int64) class.Call {
	return call("create", func(e *encoding.Encoder) {
		e.U64(size)
		e.U8(order)
		e.U64(uint64(features))
		e.String(prefix)
		e.I64(dataPool)
	})
}

// Size is the size of an image or snapshot.
type Size struct {
	Order uint8  // an object has 1<<Order bytes
	Bytes uint64 // size of the image
}

// GetSize asks for the size of the head (ceph.NoSnap) or of a snapshot.
func GetSize(snap ceph.SnapID) class.Query[Size] {
	return query("get_size", snapInput(snap), func(d *encoding.Decoder) Size {
		order := d.U8()
		return Size{Order: order, Bytes: d.U64()}
	})
}

// SetSize changes the size of the head, in bytes. Data and object map are the
// caller's business.
func SetSize(size uint64) class.Call {
	return call("set_size", func(e *encoding.Encoder) { e.U64(size) })
}

// FeatureSet is the answer to GetFeatures.
type FeatureSet struct {
	Features     Features
	Incompatible Features // those of them that a client must know to open the image
}

// GetFeatures asks for the features of the head; readOnly leaves those out of
// Incompatible that matter to writers only.
func GetFeatures(readOnly bool) class.Query[FeatureSet] {
	return query("get_features", func(e *encoding.Encoder) {
		e.U64(uint64(ceph.NoSnap))
		e.Bool(readOnly)
	}, func(d *encoding.Decoder) FeatureSet {
		f := Features(d.U64())
		return FeatureSet{Features: f, Incompatible: Features(d.U64())}
	})
}

// SetFeatures sets those features that mask selects. Only mutable ones may
// change, else EINVAL.
func SetFeatures(features, mask Features) class.Call {
	return call("set_features", func(e *encoding.Encoder) {
		e.U64(uint64(features))
		e.U64(uint64(mask))
	})
}

// GetObjectPrefix asks for the prefix of the data objects' names.
func GetObjectPrefix() class.Query[string] { return query("get_object_prefix", nil, readText) }

// GetDataPool asks for the id of the pool with the data; NoDataPool if that is the
// header's pool.
func GetDataPool() class.Query[int64] { return query("get_data_pool", nil, readI64) }

// Striping says how the image's bytes are spread over its objects.
type Striping struct {
	Unit  uint64 // bytes
	Count uint64 // objects that a stripe covers
}

// GetStriping asks for the striping; ENOEXEC without FeatureStriping, which means
// one object after the other.
func GetStriping() class.Query[Striping] {
	return query("get_stripe_unit_count", nil, func(d *encoding.Decoder) Striping {
		unit := d.U64()
		return Striping{Unit: unit, Count: d.U64()}
	})
}

// SetStriping stores the striping of an image with FeatureStriping. Both numbers
// must be positive, and the unit must divide the object size.
func SetStriping(s Striping) class.Call {
	return call("set_stripe_unit_count", func(e *encoding.Encoder) {
		e.U64(s.Unit)
		e.U64(s.Count)
	})
}

// GetFlags asks for the flags of the head or of a snapshot.
func GetFlags(snap ceph.SnapID) class.Query[Flags] {
	return query("get_flags", snapInput(snap), func(d *encoding.Decoder) Flags { return Flags(d.U64()) })
}

// SetFlags sets those flags of the head or a snapshot that mask selects.
func SetFlags(snap ceph.SnapID, flags, mask Flags) class.Call {
	return call("set_flags", func(e *encoding.Encoder) {
		e.U64(uint64(flags))
		e.U64(uint64(mask))
		e.U64(uint64(snap))
	})
}

// GetOpFeatures asks for the operation features.
func GetOpFeatures() class.Query[OpFeatures] {
	return query("op_features_get", nil, func(d *encoding.Decoder) OpFeatures { return OpFeatures(d.U64()) })
}

// SetOpFeatures sets those operation features that mask selects, and with them
// FeatureOperations.
func SetOpFeatures(features, mask OpFeatures) class.Call {
	return call("op_features_set", func(e *encoding.Encoder) {
		e.U64(uint64(features))
		e.U64(uint64(mask))
	})
}

// GetCreateTimestamp asks when the image was created; the zero time if unknown.
func GetCreateTimestamp() class.Query[time.Time] {
	return query("get_create_timestamp", nil, (*encoding.Decoder).Time)
}

// GetAccessTimestamp asks when the image was last read, roughly.
func GetAccessTimestamp() class.Query[time.Time] {
	return query("get_access_timestamp", nil, (*encoding.Decoder).Time)
}

// GetModifyTimestamp asks when the image was last written, roughly.
func GetModifyTimestamp() class.Query[time.Time] {
	return query("get_modify_timestamp", nil, (*encoding.Decoder).Time)
}

// SetAccessTimestamp stores the OSD's clock as the time of the last read.
func SetAccessTimestamp() class.Call { return call("set_access_timestamp", nil) }

// SetModifyTimestamp stores the OSD's clock as the time of the last write.
func SetModifyTimestamp() class.Call { return call("set_modify_timestamp", nil) }

// snapInput encodes a snapshot id as a call's only input.
func snapInput(snap ceph.SnapID) func(e *encoding.Encoder) {
	return func(e *encoding.Encoder) { e.U64(uint64(snap)) }
}
