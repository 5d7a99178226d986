package rbd

import (
	"fmt"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/class"
)

// Header is what an image's header says of its head, seen at one moment.
type Header struct {
	Size          uint64 // bytes
	Order         uint8  // an object has 1<<Order bytes
	Features      Features
	Incompatible  Features // see FeatureSet
	ObjectPrefix  string
	DataPool      int64 // NoDataPool: the header's pool
	Flags         Flags
	OpFeatures    OpFeatures
	SnapContext   ceph.SnapContext
	Parent        ParentSpec // NoParent unless the image is a clone
	ParentOverlap *uint64    // bytes of the head that may come from the parent; nil: flattened
	Created       time.Time
	Accessed      time.Time
	Modified      time.Time
}

// ObjectSize is the size of a data object in bytes.
func (h Header) ObjectSize() uint64 { return 1 << h.Order }

// ObjectCount is how many data objects an image of size bytes has with this order.
// The striping does not matter: it only permutes bytes within whole object sets,
// as long as the size is a multiple of the stripe; otherwise see StripedObjects.
func (h Header) ObjectCount(size uint64) uint64 {
	n := size >> h.Order
	if size&(h.ObjectSize()-1) != 0 {
		n++
	}
	return n
}

// StripedObjects is how many data objects an image of size bytes has when it is
// striped: whole sets of count objects, and of the last set as many as its stripe
// units reach. The zero Striping means one object after the other; any other must
// be valid. (src/osdc/Striper.cc, get_num_objects)
func StripedObjects(size, objectSize uint64, s Striping) uint64 {
	if s == (Striping{}) {
		s = Striping{Unit: objectSize, Count: 1}
	}
	set := objectSize * s.Count
	sets, rest := size/set, size%set
	objects := sets * s.Count
	switch {
	case rest == 0:
	case rest < s.Unit*s.Count:
		objects += (rest + s.Unit - 1) / s.Unit
	default:
		objects += s.Count
	}
	return objects
}

// HeaderCalls are the calls that one read operation on the header makes to learn a
// Header; give their replies, in the same order, to DecodeHeader. All of them work on
// every image of format 2 and every release since Nautilus. Striping is not among
// them because its call fails on images without FeatureStriping.
func HeaderCalls(readOnly bool) []class.Call {
	return []class.Call{
		GetSize(ceph.NoSnap).Call,
		GetFeatures(readOnly).Call,
		GetObjectPrefix().Call,
		GetDataPool().Call,
		GetFlags(ceph.NoSnap).Call,
		GetOpFeatures().Call,
		GetSnapContext().Call,
		ParentGet().Call,
		ParentOverlapGet(ceph.NoSnap).Call,
		GetCreateTimestamp().Call,
		GetAccessTimestamp().Call,
		GetModifyTimestamp().Call,
	}
}

// DecodeHeader decodes the replies to HeaderCalls. A header that no image can have
// is a *encoding.CorruptError.
func DecodeHeader(replies [][]byte) (Header, error) {
	var h Header
	r := replyReader{replies: replies}
	size := next(&r, GetSize(ceph.NoSnap))
	h.Size, h.Order = size.Bytes, size.Order
	features := next(&r, GetFeatures(false))
	h.Features, h.Incompatible = features.Features, features.Incompatible
	h.ObjectPrefix = next(&r, GetObjectPrefix())
	h.DataPool = next(&r, GetDataPool())
	h.Flags = next(&r, GetFlags(ceph.NoSnap))
	h.OpFeatures = next(&r, GetOpFeatures())
	h.SnapContext = next(&r, GetSnapContext())
	h.Parent = next(&r, ParentGet())
	h.ParentOverlap = next(&r, ParentOverlapGet(ceph.NoSnap))
	h.Created = next(&r, GetCreateTimestamp())
	h.Accessed = next(&r, GetAccessTimestamp())
	h.Modified = next(&r, GetModifyTimestamp())
	if r.err == nil {
		r.err = h.check()
	}
	if r.err != nil {
		return Header{}, r.err
	}
	return h, nil
}

// replyReader hands out replies in order; its first error sticks.
type replyReader struct {
	replies [][]byte
	err     error
}

func next[R any](r *replyReader, q class.Query[R]) R {
	var none R
	if r.err != nil {
		return none
	}
	if len(r.replies) == 0 {
		r.err = fmt.Errorf("rbd: no reply to %s.%s", q.Class, q.Method)
		return none
	}
	v, err := q.Decode(r.replies[0])
	if err != nil {
		r.err = err
	}
	r.replies = r.replies[1:]
	return v
}
