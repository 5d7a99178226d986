package mem

import (
	"fmt"
	"slices"
	"strconv"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
)

var rbdParentMethods = map[string]method{
	"parent_get":         rbdParentGet,
	"parent_overlap_get": rbdParentOverlapGet,
	"parent_attach":      rbdParentAttach,
	"parent_detach":      rbdParentDetach,
	"child_attach":       rbdChildAttach,
	"child_detach":       rbdChildDetach,
	"children_list":      rbdChildrenList,
	"add_child":          rbdAddChild,
	"remove_child":       rbdRemoveChild,
	"get_children":       rbdGetChildren,
	"copyup":             rbdCopyUp,
	"sparse_copyup":      rbdSparseCopyUp,
}

func (c *classContext) parent() (rbd.HeaderParent, error) {
	b, err := c.omap("parent")
	if err != nil {
		return rbd.HeaderParent{Spec: rbd.NoParent}, err
	}
	return rbd.DecodeHeaderParent(b)
}

func rbdParentGet(c *classContext, _ *encoding.Decoder, out *encoding.Encoder) error {
	if err := c.mustExist(); err != nil {
		return err
	}
	spec := rbd.NoParent
	if c.requireFeature(rbd.FeatureLayering) == nil {
		p, err := c.parent()
		if ignoreMissing(err) != nil {
			return err
		}
		spec = p.Spec
	}
	spec.Encode(out)
	return nil
}

func encodeOptional(out *encoding.Encoder, v *uint64) {
	out.Bool(v != nil)
	if v != nil {
		out.U64(*v)
	}
}

func rbdParentOverlapGet(c *classContext, in *encoding.Decoder, out *encoding.Encoder) error {
	snap := in.U64()
	if err := c.input(); err != nil {
		return err
	}
	var overlap *uint64
	if c.requireFeature(rbd.FeatureLayering) == nil {
		if snap == noSnap {
			p, err := c.parent()
			if ignoreMissing(err) != nil {
				return err
			}
			overlap = p.HeadOverlap
		} else {
			s, err := c.snapshot(snap)
			if err != nil {
				return err
			}
			overlap = s.ParentOverlap
		}
	}
	encodeOptional(out, overlap)
	return nil
}

func rbdParentAttach(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	spec, overlap := rbd.ReadParentSpec(in), in.U64()
	reattach := c.more() && in.Bool()
	if err := c.input(); err != nil {
		return err
	}
	if err := c.mustExist(); err != nil {
		return err
	}
	if err := c.requireFeature(rbd.FeatureLayering); err != nil {
		return err
	}
	if !spec.Exists() || overlap == 0 {
		return syscall.EINVAL
	}
	old, err := c.parent()
	if ignoreMissing(err) != nil {
		return err
	}
	if err == nil && !reattach && (old.HeadOverlap != nil || old.Spec != spec) {
		return syscall.EEXIST
	}
	size, err := c.u64("size")
	if err != nil {
		return err
	}
	overlap = min(overlap, size)
	return c.put("parent", rbd.HeaderParent{Spec: spec, HeadOverlap: &overlap}.Encode)
}

func rbdParentDetach(c *classContext, _ *encoding.Decoder, _ *encoding.Encoder) error {
	if err := c.mustExist(); err != nil {
		return err
	}
	if err := c.requireFeature(rbd.FeatureLayering); err != nil {
		return err
	}
	p, err := c.parent()
	if err != nil {
		return err
	}
	if p.HeadOverlap == nil {
		return syscall.ENOENT
	}
	kept, err := c.detachSnapshots()
	if err != nil {
		return err
	}
	if kept {
		p.HeadOverlap = nil
		return c.put("parent", p.Encode)
	}
	if err := c.remove("parent"); err != nil {
		return err
	}
	return c.setOpFeatures(0, rbd.OpFeatureCloneChild)
}

// detachSnapshots ends the snapshots' being clones, too, if the image has the feature
// for it; kept says that there are some and it has not.
func (c *classContext) detachSnapshots() (kept bool, err error) {
	snaps, err := c.snapshots()
	if err != nil {
		return false, err
	}
	deep := c.requireFeature(rbd.FeatureDeepFlatten) == nil
	for _, s := range snaps {
		if s.ParentOverlap == nil {
			continue
		}
		if !deep {
			return true, nil
		}
		s.ParentOverlap = nil
		if err := c.putSnapshot(s); err != nil {
			return false, err
		}
	}
	return false, nil
}

func childrenKey(snap uint64) string { return fmt.Sprintf("snap_children_%016x", snap) }

func (c *classContext) children(snap uint64) ([]rbd.ChildSpec, error) {
	b, err := c.omap(childrenKey(snap))
	if err != nil {
		return nil, err
	}
	return rbd.ChildrenList(ceph.SnapID(snap)).Decode(b)
}

func (c *classContext) putChildren(snap uint64, list []rbd.ChildSpec) error {
	if len(list) == 0 {
		return c.remove(childrenKey(snap))
	}
	slices.SortFunc(list, compareChildren)
	return c.put(childrenKey(snap), func(e *encoding.Encoder) {
		e.U32(uint32(len(list)))
		for _, child := range list {
			child.Encode(e)
		}
	})
}

func compareChildren(a, b rbd.ChildSpec) int {
	return slices.Compare([]string{strconv.FormatInt(a.Pool, 10), a.Namespace, a.ImageID},
		[]string{strconv.FormatInt(b.Pool, 10), b.Namespace, b.ImageID})
}

func readChild(c *classContext, in *encoding.Decoder) (snap uint64, child rbd.ChildSpec, err error) {
	snap = in.U64()
	child, err = rbd.DecodeChildSpec(in.Rest())
	if err != nil || c.input() != nil {
		return 0, child, syscall.EINVAL
	}
	return snap, child, nil
}

func rbdChildAttach(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	snap, child, err := readChild(c, in)
	if err != nil {
		return err
	}
	s, err := c.snapshot(snap)
	if err != nil {
		return err
	}
	if s.Namespace.Kind() == rbd.SnapshotTrash {
		return syscall.ENOENT
	}
	list, err := c.children(snap)
	if ignoreMissing(err) != nil {
		return err
	}
	if slices.Contains(list, child) {
		return syscall.EEXIST
	}
	if err := c.putChildren(snap, append(list, child)); err != nil {
		return err
	}
	s.ChildCount++
	if err := c.putSnapshot(s); err != nil {
		return err
	}
	return c.setOpFeatures(rbd.OpFeatureCloneParent, rbd.OpFeatureCloneParent)
}

func rbdChildDetach(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	snap, child, err := readChild(c, in)
	if err != nil {
		return err
	}
	s, err := c.snapshot(snap)
	if err != nil {
		return err
	}
	list, err := c.children(snap)
	if ignoreMissing(err) != nil {
		return err
	}
	if int(s.ChildCount) != len(list) {
		return syscall.EINVAL
	}
	i := slices.Index(list, child)
	if i < 0 {
		return syscall.ENOENT
	}
	if err := c.putChildren(snap, slices.Delete(list, i, i+1)); err != nil {
		return err
	}
	s.ChildCount--
	if err := c.putSnapshot(s); err != nil || s.ChildCount > 0 {
		return err
	}
	snaps, err := c.snapshots()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(snaps, func(o rbd.HeaderSnapshot) bool { return o.ID != s.ID && o.ChildCount > 0 }) {
		return nil
	}
	return c.setOpFeatures(0, rbd.OpFeatureCloneParent)
}

func rbdChildrenList(c *classContext, in *encoding.Decoder, out *encoding.Encoder) error {
	snap := in.U64()
	if err := c.input(); err != nil {
		return err
	}
	if _, err := c.snapshot(snap); err != nil {
		return err
	}
	v, err := c.omap(childrenKey(snap))
	out.Raw(v)
	return err
}

// parentKey is the key of rbd_children: the parent, encoded.
func parentKey(in *encoding.Decoder) string {
	var e encoding.Encoder
	e.I64(in.I64())
	e.String(in.String())
	e.U64(in.U64())
	return string(e.Bytes())
}

func (c *classContext) clones(key string) ([]string, error) {
	b, err := c.omap(key)
	if err != nil {
		return nil, err
	}
	return rbd.GetChildren(rbd.NoParent).Decode(b)
}

func (c *classContext) putClones(key string, list []string) error {
	if len(list) == 0 {
		return c.remove(key)
	}
	slices.Sort(list)
	return c.put(key, func(e *encoding.Encoder) {
		e.U32(uint32(len(list)))
		for _, id := range list {
			e.String(id)
		}
	})
}

func rbdAddChild(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	key, id := parentKey(in), in.String()
	if err := c.input(); err != nil {
		return err
	}
	list, err := c.clones(key)
	if ignoreMissing(err) != nil {
		return err
	}
	if slices.Contains(list, id) {
		return syscall.EEXIST
	}
	return c.putClones(key, append(list, id))
}

func rbdRemoveChild(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	key, id := parentKey(in), in.String()
	if err := c.input(); err != nil {
		return err
	}
	list, err := c.clones(key)
	if err != nil {
		return err
	}
	i := slices.Index(list, id)
	if i < 0 {
		return syscall.ENOENT
	}
	return c.putClones(key, slices.Delete(list, i, i+1))
}

func rbdGetChildren(c *classContext, in *encoding.Decoder, out *encoding.Encoder) error {
	key := parentKey(in)
	if err := c.input(); err != nil {
		return err
	}
	v, err := c.omap(key)
	out.Raw(v)
	return err
}

func rbdCopyUp(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	if c.exists() {
		return nil
	}
	return c.write(0, in.Rest())
}

func rbdSparseCopyUp(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	type extent struct{ offset, length uint64 }
	var list []extent
	for n := in.Count(16); n > 0; n-- {
		list = append(list, extent{in.U64(), in.U64()})
	}
	data := in.Blob()
	if err := c.input(); err != nil {
		return err
	}
	if c.exists() {
		return nil
	}
	if len(list) == 0 {
		return c.create(true)
	}
	for _, x := range list {
		if x.length > uint64(len(data)) {
			return syscall.EINVAL
		}
		if err := c.write(x.offset, data[:x.length]); err != nil {
			return err
		}
		data = data[x.length:]
	}
	return nil
}
