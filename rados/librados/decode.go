package librados

/*
#include "shim.h"
*/
import "C"

import (
	"syscall"
	"time"
	"unsafe"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	"github.com/rbdwarden/rbdwarden/rados"
)

// results reads what encode_results in shim.cc laid out. The memory is the
// operation's; everything is copied out of it, once.
type results struct {
	d    *encoding.Decoder
	segs []C.warden_seg
}

func openResults(op *C.warden_op) *results {
	r := C.warden_op_results(op)
	return &results{
		d:    encoding.NewDecoder("results of librados", unsafe.Slice((*byte)(unsafe.Pointer(r.flat)), int(r.flat_len))),
		segs: unsafe.Slice(r.segs, int(r.nsegs)),
	}
}

func (r *results) data() []byte {
	n := r.d.U64()
	if n == 0 {
		return nil
	}
	out := make([]byte, 0, n)
	for uint64(len(out)) < n && len(r.segs) > 0 {
		s := r.segs[0]
		r.segs = r.segs[1:]
		out = append(out, unsafe.Slice((*byte)(unsafe.Pointer(s.data)), int(s.len))...)
	}
	if uint64(len(out)) != n {
		r.d.Fail("data of %d bytes, have %d", n, len(out))
		return nil
	}
	return out
}

func (r *results) extents() []rados.Extent {
	n := r.d.Count(16)
	if n == 0 {
		return nil
	}
	out := make([]rados.Extent, n)
	for i := range out {
		out[i] = rados.Extent{Offset: r.d.U64(), Length: r.d.U64()}
	}
	return out
}

func (r *results) pairs() map[string][]byte {
	n := r.d.Count(8)
	out := make(map[string][]byte, n)
	for range n {
		k := r.d.String()
		v := r.d.Blob()
		out[k] = append(make([]byte, 0, len(v)), v...)
	}
	return out
}

func (r *results) clones() []rados.Clone {
	out := make([]rados.Clone, r.d.Count(24))
	for i := range out {
		c := &out[i]
		c.ID = ceph.SnapID(r.d.U64())
		c.Snaps = make([]ceph.SnapID, r.d.Count(8))
		for j := range c.Snaps {
			c.Snaps[j] = ceph.SnapID(r.d.U64())
		}
		c.Overlap = r.extents()
		c.Size = r.d.U64()
	}
	return out
}

func (r *results) watchers() []rados.Watcher {
	out := make([]rados.Watcher, r.d.Count(20))
	for i := range out {
		out[i] = rados.Watcher{ClientID: r.d.U64(), Cookie: r.d.U64(), Address: r.d.String()}
	}
	return out
}

// step fills in one step's answer; a step that failed within an operation that
// succeeded (bytes that librados could not decode) is an error too.
func (r *results) step(s *rados.ReadStep) error {
	rval := r.d.I32()
	switch s.Kind {
	case rados.ReadData, rados.ReadExec, rados.ReadChecksum:
		s.Data = r.data()
	case rados.ReadSparse:
		s.Extents = r.extents()
		s.Data = r.data()
	case rados.ReadStat:
		s.Size = r.d.U64()
		s.ModTime = time.Unix(r.d.I64(), int64(r.d.U32()))
	case rados.ReadXattrs, rados.ReadOmapList, rados.ReadOmapKeys:
		s.More = r.d.Bool()
		s.Pairs = r.pairs()
	case rados.ReadListWatchers:
		s.Watchers = r.watchers()
	case rados.ReadListSnaps:
		s.Seq = ceph.SnapID(r.d.U64())
		s.Clones = r.clones()
	}
	if err := r.d.Err(); err != nil {
		return err
	}
	if rval < 0 {
		return syscall.Errno(-rval)
	}
	return nil
}
