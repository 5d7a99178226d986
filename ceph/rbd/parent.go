package rbd

import (
	"maps"
	"slices"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// Parents of clones and children of snapshots. Sources: src/cls/rbd/cls_rbd.cc,
// src/cls/rbd/cls_rbd.h, src/cls/rbd/cls_rbd_client.cc,
// src/cls/rbd/cls_rbd_types.cc.

// ParentSpec names the snapshot that a clone was made of
// (cls::rbd::ParentImageSpec).
type ParentSpec struct {
	Pool      int64 // negative: no parent
	Namespace string
	ImageID   string
	Snap      ceph.SnapID
}

// NoParent is the spec of an image that is not a clone.
var NoParent = ParentSpec{Pool: -1, Snap: ceph.NoSnap}

// Exists tells whether the spec names a parent.
func (p ParentSpec) Exists() bool { return p.Pool >= 0 && p.ImageID != "" && p.Snap != ceph.NoSnap }

// Encode appends the record.
func (p ParentSpec) Encode(e *encoding.Encoder) {
	e.Struct(1, 1, func(e *encoding.Encoder) {
		e.I64(p.Pool)
		e.String(p.Namespace)
		e.String(p.ImageID)
		e.U64(uint64(p.Snap))
	})
}

// ReadParentSpec reads the record.
func ReadParentSpec(d *encoding.Decoder) (p ParentSpec) {
	d.Struct(1, func(d *encoding.Decoder, _ uint8) {
		p.Pool = d.I64()
		p.Namespace = d.String()
		p.ImageID = d.String()
		p.Snap = ceph.SnapID(d.U64())
	})
	return p
}

// DecodeParentSpec reads the record from b.
func DecodeParentSpec(b []byte) (ParentSpec, error) {
	return decode("rbd.ParentSpec", b, ReadParentSpec)
}

// ChildSpec names a clone (cls::rbd::ChildImageSpec).
type ChildSpec struct {
	Pool      int64
	Namespace string
	ImageID   string
}

// Encode appends the record.
func (c ChildSpec) Encode(e *encoding.Encoder) {
	e.Struct(2, 1, func(e *encoding.Encoder) {
		e.I64(c.Pool)
		e.String(c.ImageID)
		e.String(c.Namespace)
	})
}

func readChildSpec(d *encoding.Decoder) (c ChildSpec) {
	d.Struct(2, func(d *encoding.Decoder, v uint8) {
		c.Pool = d.I64()
		c.ImageID = d.String()
		if v >= 2 {
			c.Namespace = d.String()
		}
	})
	return c
}

// DecodeChildSpec reads the record from b.
func DecodeChildSpec(b []byte) (ChildSpec, error) { return decode("rbd.ChildSpec", b, readChildSpec) }

// ParentGet asks the header for the image's parent; NoParent if it is no clone.
func ParentGet() class.Query[ParentSpec] { return query("parent_get", nil, ReadParentSpec) }

// ParentOverlapGet asks how many bytes of the head or a snapshot may come from the
// parent; nil if none may (never a clone, or flattened).
func ParentOverlapGet(snap ceph.SnapID) class.Query[*uint64] {
	return query("parent_overlap_get", snapInput(snap), optionalU64)
}

// ParentAttach makes the image a clone; EEXIST if it has a parent already and
// reattach is false. overlap is in bytes.
func ParentAttach(parent ParentSpec, overlap uint64, reattach bool) class.Call {
	return call("parent_attach", func(e *encoding.Encoder) {
		parent.Encode(e)
		e.U64(overlap)
		e.Bool(reattach)
	})
}

// ParentDetach ends the head's being a clone; ENOENT if it is none.
func ParentDetach() class.Call { return call("parent_detach", nil) }

// Parent is the answer to GetParent.
type Parent struct {
	Spec    ParentSpec // the namespace is always the default one
	Overlap uint64     // bytes
}

// GetParent asks for the parent in the way of releases before Nautilus, which do
// not know namespaces: EXDEV if the parent is in one.
func GetParent(snap ceph.SnapID) class.Query[Parent] {
	return query("get_parent", snapInput(snap), func(d *encoding.Decoder) (p Parent) {
		p.Spec.Pool = d.I64()
		p.Spec.ImageID = d.String()
		p.Spec.Snap = ceph.SnapID(d.U64())
		p.Overlap = d.U64()
		return p
	})
}

// SetParent is ParentAttach in the way of releases before Nautilus; the parent's
// namespace is not sent.
func SetParent(parent ParentSpec, overlap uint64) class.Call {
	return call("set_parent", func(e *encoding.Encoder) {
		encodeLegacyParent(e, parent)
		e.U64(overlap)
	})
}

// RemoveParent is ParentDetach in the way of releases before Nautilus.
func RemoveParent() class.Call { return call("remove_parent", nil) }

// ChildAttach notes on a parent's header that a snapshot has a clone of format 2;
// EEXIST if it is noted already.
func ChildAttach(snap ceph.SnapID, child ChildSpec) class.Call {
	return call("child_attach", func(e *encoding.Encoder) {
		e.U64(uint64(snap))
		child.Encode(e)
	})
}

// ChildDetach undoes ChildAttach; ENOENT if it is not noted.
func ChildDetach(snap ceph.SnapID, child ChildSpec) class.Call {
	return call("child_detach", func(e *encoding.Encoder) {
		e.U64(uint64(snap))
		child.Encode(e)
	})
}

// ChildrenList asks a parent's header for a snapshot's clones of format 2; ENOENT if
// it never had any.
func ChildrenList(snap ceph.SnapID) class.Query[[]ChildSpec] {
	return query("children_list", snapInput(snap), func(d *encoding.Decoder) []ChildSpec {
		n := d.Count(6)
		list := make([]ChildSpec, 0, n)
		for i := 0; i < n && d.Err() == nil; i++ {
			list = append(list, readChildSpec(d))
		}
		return list
	})
}

// AddChild notes a clone of format 1 in rbd_children of the clone's pool; EEXIST if
// it is noted already.
func AddChild(parent ParentSpec, child string) class.Call {
	return call("add_child", func(e *encoding.Encoder) {
		encodeLegacyParent(e, parent)
		e.String(child)
	})
}

// RemoveChild undoes AddChild; ENOENT if it is not noted.
func RemoveChild(parent ParentSpec, child string) class.Call {
	return call("remove_child", func(e *encoding.Encoder) {
		encodeLegacyParent(e, parent)
		e.String(child)
	})
}

// GetChildren asks rbd_children for the ids of the clones of format 1 that the pool
// has of a snapshot; ENOENT if it has none.
func GetChildren(parent ParentSpec) class.Query[[]string] {
	return query("get_children", func(e *encoding.Encoder) { encodeLegacyParent(e, parent) }, readStrings)
}

// encodeLegacyParent appends a parent the way it was before namespaces: no struct.
func encodeLegacyParent(e *encoding.Encoder, p ParentSpec) {
	e.I64(p.Pool)
	e.String(p.ImageID)
	e.U64(uint64(p.Snap))
}

// CopyUp fills a data object with the parent's bytes if the object does not exist;
// the operation goes on to its other steps in either case.
func CopyUp(data []byte) class.Call { return class.Call{Class: "rbd", Method: "copyup", In: data} }

// SparseCopyUp is CopyUp with holes: extents maps object offsets to lengths, data has
// their bytes in order of offset.
func SparseCopyUp(extents map[uint64]uint64, data []byte) class.Call {
	return call("sparse_copyup", func(e *encoding.Encoder) {
		e.U32(uint32(len(extents)))
		for _, off := range slices.Sorted(maps.Keys(extents)) {
			e.U64(off)
			e.U64(extents[off])
		}
		e.Blob(data)
	})
}
