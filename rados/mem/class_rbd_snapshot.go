package mem

import (
	"errors"
	"reflect"
	"slices"
	"syscall"

	"github.com/google/uuid"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
)

const (
	noSnap         = uint64(ceph.NoSnap)
	maxSnap        = noSnap - 2 // CEPH_MAXSNAP: above it are the special ids
	prefixSnapshot = "snapshot_"
)

var rbdSnapshotMethods = map[string]method{
	"get_snapcontext":        rbdGetSnapContext,
	"snapshot_get":           rbdSnapshotGet,
	"get_snapshot_name":      rbdOfSnapshot(func(s rbd.HeaderSnapshot, out *encoding.Encoder) { out.String(s.Name) }),
	"get_snapshot_timestamp": rbdOfSnapshot(func(s rbd.HeaderSnapshot, out *encoding.Encoder) { out.Time(s.Timestamp) }),
	"get_protection_status":  rbdOfSnapshot(func(s rbd.HeaderSnapshot, out *encoding.Encoder) { out.U8(uint8(s.Protection)) }),
	"set_protection_status":  rbdSetProtection,
	"snapshot_add":           rbdSnapshotAdd,
	"snapshot_remove":        rbdSnapshotRemove,
	"snapshot_rename":        rbdSnapshotRename,
	"snapshot_trash_add":     rbdSnapshotTrashAdd,
	"snapshot_get_limit":     rbdGetU64Or("snap_limit", rbd.NoSnapshotLimit),
	"snapshot_set_limit":     rbdSnapshotSetLimit,
	"assert_snapc_seq":       rbdAssertSnapSeq,
}

func (c *classContext) snapshot(id uint64) (rbd.HeaderSnapshot, error) {
	b, err := c.omap(rbd.SnapshotKey(ceph.SnapID(id)))
	if err != nil {
		return rbd.HeaderSnapshot{}, err
	}
	return rbd.DecodeHeaderSnapshot(b)
}

func (c *classContext) putSnapshot(s rbd.HeaderSnapshot) error {
	return c.put(rbd.SnapshotKey(s.ID), s.Encode)
}

func (c *classContext) changeSnapshot(id uint64, change func(*rbd.HeaderSnapshot)) error {
	s, err := c.snapshot(id)
	if err != nil {
		return err
	}
	change(&s)
	return c.putSnapshot(s)
}

// snapshots are all, oldest first.
func (c *classContext) snapshots() ([]rbd.HeaderSnapshot, error) {
	keys, pairs := c.list("", prefixSnapshot, everything)
	var out []rbd.HeaderSnapshot
	for _, k := range keys {
		s, err := rbd.DecodeHeaderSnapshot(pairs[k])
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

func rbdGetSnapContext(c *classContext, _ *encoding.Decoder, out *encoding.Encoder) error {
	snaps, err := c.snapshots()
	if err != nil {
		return err
	}
	seq, err := c.u64("snap_seq")
	if err != nil {
		return err
	}
	out.U64(seq)
	out.U32(uint32(len(snaps)))
	for _, s := range slices.Backward(snaps) {
		out.U64(uint64(s.ID))
	}
	return nil
}

func rbdOfSnapshot(answer func(rbd.HeaderSnapshot, *encoding.Encoder)) method {
	return func(c *classContext, in *encoding.Decoder, out *encoding.Encoder) error {
		id := in.U64()
		if err := c.input(); err != nil {
			return err
		}
		if id == noSnap {
			return syscall.EINVAL
		}
		s, err := c.snapshot(id)
		if err != nil {
			return err
		}
		answer(s, out)
		return nil
	}
}

func rbdSnapshotGet(c *classContext, in *encoding.Decoder, out *encoding.Encoder) error {
	return rbdOfSnapshot(func(s rbd.HeaderSnapshot, out *encoding.Encoder) {
		rbd.SnapshotInfo{ID: s.ID, Namespace: s.Namespace, Name: s.Name, ImageSize: s.ImageSize,
			Timestamp: s.Timestamp, ChildCount: s.ChildCount}.Encode(out)
	})(c, in, out)
}

func rbdSetProtection(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	id, protection := in.U64(), rbd.Protection(in.U8())
	if err := c.input(); err != nil {
		return err
	}
	if err := c.mustExist(); err != nil {
		return err
	}
	if err := c.requireFeature(rbd.FeatureLayering); err != nil {
		return err
	}
	if id == noSnap || protection > rbd.Protected {
		return syscall.EINVAL
	}
	return c.changeSnapshot(id, func(s *rbd.HeaderSnapshot) { s.Protection = protection })
}

func rbdSnapshotAdd(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	s := rbd.HeaderSnapshot{Name: in.String(), ID: ceph.SnapID(in.U64()), Namespace: rbd.UserSnapshot{}}
	if c.more() {
		s.Namespace = rbd.ReadSnapshotNamespace(in)
	}
	if err := c.input(); err != nil {
		return err
	}
	if _, unknown := s.Namespace.(rbd.UnknownSnapshot); unknown || uint64(s.ID) > maxSnap {
		return syscall.EINVAL
	}
	seq, err := c.u64("snap_seq")
	if err != nil {
		return err
	}
	if uint64(s.ID) < seq {
		return syscall.ESTALE
	}
	if s.ImageSize, err = c.u64("size"); err != nil {
		return err
	}
	flags, err := c.u64Or("flags", 0)
	if err != nil {
		return err
	}
	s.Flags, s.Timestamp = rbd.Flags(flags), c.now()
	if err := c.checkNewSnapshot(s); err != nil {
		return err
	}
	parent, err := c.parent()
	if ignoreMissing(err) != nil {
		return err
	}
	if err == nil {
		s.ParentOverlap = parent.HeadOverlap
	}
	if _, trash := s.Namespace.(rbd.TrashSnapshot); trash {
		if err := c.setOpFeatures(rbd.OpFeatureSnapTrash, rbd.OpFeatureSnapTrash); err != nil {
			return err
		}
	}
	if err := c.putU64("snap_seq", uint64(s.ID)); err != nil {
		return err
	}
	return c.putSnapshot(s)
}

// checkNewSnapshot compares with the snapshots that there are. The limit is looked
// at before each comparison, as in the class.
func (c *classContext) checkNewSnapshot(s rbd.HeaderSnapshot) error {
	limit, err := c.u64Or("snap_limit", rbd.NoSnapshotLimit)
	if err != nil {
		return err
	}
	snaps, err := c.snapshots()
	if err != nil {
		return err
	}
	for i, old := range snaps {
		if uint64(i+1) >= limit {
			return syscall.EDQUOT
		}
		if old.ID == s.ID || old.Name == s.Name && reflect.DeepEqual(old.Namespace, s.Namespace) {
			return syscall.EEXIST
		}
	}
	return nil
}

func rbdSnapshotRemove(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	id := in.U64()
	if err := c.input(); err != nil {
		return err
	}
	s, err := c.snapshot(id)
	if err != nil {
		return err
	}
	if s.Protection != rbd.Unprotected || s.ChildCount > 0 {
		return syscall.EBUSY
	}
	if err := c.remove(rbd.SnapshotKey(s.ID)); err != nil {
		return err
	}
	others, err := c.snapshots()
	if err != nil {
		return err
	}
	others = slices.DeleteFunc(others, func(o rbd.HeaderSnapshot) bool { return o.ID == s.ID })
	child := slices.ContainsFunc(others, func(o rbd.HeaderSnapshot) bool { return o.ParentOverlap != nil || o.LegacyParent != nil })
	trash := slices.ContainsFunc(others, func(o rbd.HeaderSnapshot) bool { return o.Namespace.Kind() == rbd.SnapshotTrash })
	parent, err := c.parent()
	if ignoreMissing(err) != nil {
		return err
	}
	hasParent := err == nil && parent.Spec.Exists()
	headChild := hasParent && parent.HeadOverlap != nil
	if hasParent && !headChild && !child {
		if err := c.remove("parent"); err != nil {
			return err
		}
	}
	var off rbd.OpFeatures
	if !child && !headChild {
		off |= rbd.OpFeatureCloneChild
	}
	if !trash {
		off |= rbd.OpFeatureSnapTrash
	}
	return c.setOpFeatures(0, off)
}

func rbdSnapshotRename(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	id, name := in.U64(), in.String()
	if err := c.input(); err != nil {
		return err
	}
	snaps, err := c.snapshots()
	if err != nil {
		return err
	}
	for _, s := range snaps {
		if s.Namespace.Kind() == rbd.SnapshotUser && s.Name == name {
			return syscall.EEXIST
		}
	}
	s, err := c.snapshot(id)
	if err != nil {
		return err
	}
	if s.Namespace.Kind() != rbd.SnapshotUser {
		return syscall.EINVAL
	}
	s.Name = name
	return c.putSnapshot(s)
}

func rbdSnapshotTrashAdd(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	id := in.U64()
	if err := c.input(); err != nil {
		return err
	}
	s, err := c.snapshot(id)
	if err != nil {
		return err
	}
	if s.Protection != rbd.Unprotected {
		return syscall.EBUSY
	}
	if s.Namespace.Kind() == rbd.SnapshotTrash {
		return syscall.EEXIST
	}
	if err := c.setOpFeatures(rbd.OpFeatureSnapTrash, rbd.OpFeatureSnapTrash); err != nil {
		return err
	}
	s.Namespace = rbd.TrashSnapshot{OriginalKind: s.Namespace.Kind(), OriginalName: s.Name}
	s.Name = uuid.NewString()
	return c.putSnapshot(s)
}

func rbdSnapshotSetLimit(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	limit := in.U64()
	if err := c.input(); err != nil {
		return err
	}
	if limit == rbd.NoSnapshotLimit {
		return c.remove("snap_limit")
	}
	if keys, _ := c.list("", prefixSnapshot, everything); limit < uint64(len(keys)) {
		return syscall.ERANGE
	}
	return c.putU64("snap_limit", limit)
}

func rbdAssertSnapSeq(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	seq, condition := ceph.SnapID(in.U64()), rbd.SnapSeqCondition(in.U8())
	if err := c.input(); err != nil {
		return err
	}
	seen, err := c.snapSeq()
	above := errors.Is(err, syscall.ENOENT) || seq > seen
	switch {
	case condition > rbd.SnapSeqNotAbove:
		return syscall.EOPNOTSUPP
	case above == (condition == rbd.SnapSeqAbove):
		return nil
	}
	return syscall.ERANGE
}
