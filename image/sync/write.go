package imagesync

import (
	"fmt"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/rados"
)

// zeroBlock is the unit in which zeros are looked for in what was read, in bytes: the
// smallest piece that object stores leave out.
const zeroBlock = 4096

// piece is a run of an object's bytes; data is nil for zeros.
type piece struct {
	rados.Extent
	data []byte
}

// read adds the step's reads to an operation.
func (s step) read(op *rados.ReadOp) []*rados.ReadStep {
	op.Snap = s.readAt
	out := make([]*rados.ReadStep, len(s.ranges))
	for i, e := range s.ranges {
		out[i] = op.SparseRead(e.Offset, e.Length)
	}
	return out
}

// pieces cuts what sparse reads have answered into zeros and data.
func (s step) pieces(reads []*rados.ReadStep) ([]piece, error) {
	var out []piece
	for _, r := range reads {
		bad := func(format string, args ...any) error {
			return &ShortReadError{Offset: r.Offset, Length: r.Length, Reason: fmt.Sprintf(format, args...)}
		}
		at, data := r.Offset, r.Data
		for _, e := range r.Extents {
			if e.Offset < at || e.Length > r.Offset+r.Length-e.Offset || e.Offset > r.Offset+r.Length {
				return nil, bad("extent of %d bytes at %d is out of place", e.Length, e.Offset)
			}
			if uint64(len(data)) < e.Length {
				return nil, bad("%d bytes are missing at %d", e.Length-uint64(len(data)), e.Offset)
			}
			out = appendZeros(out, at, e.Offset)
			out = appendData(out, e.Offset, data[:e.Length])
			at, data = end(e), data[e.Length:]
		}
		if len(data) > 0 {
			return nil, bad("%d bytes too many", len(data))
		}
		out = appendZeros(out, at, r.Offset+r.Length)
	}
	return out, nil
}

func appendZeros(out []piece, from, to uint64) []piece {
	if from >= to {
		return out
	}
	if k := len(out) - 1; k >= 0 && out[k].data == nil && end(out[k].Extent) == from {
		out[k].Length += to - from
		return out
	}
	return append(out, piece{Extent: rados.Extent{Offset: from, Length: to - from}})
}

// appendData cuts data at the blocks that are all zeros.
func appendData(out []piece, offset uint64, data []byte) []piece {
	start := 0 // of the data that are not appended yet
	for at := 0; at < len(data); {
		// Blocks are those of the object, not of the extent.
		next := min(len(data), at+zeroBlock-int((offset+uint64(at))%zeroBlock))
		if next-at == zeroBlock && allZeros(data[at:next]) {
			out = appendBytes(out, offset+uint64(start), data[start:at])
			out = appendZeros(out, offset+uint64(at), offset+uint64(next))
			start = next
		}
		at = next
	}
	return appendBytes(out, offset+uint64(start), data[start:])
}

func appendBytes(out []piece, offset uint64, data []byte) []piece {
	if len(data) == 0 {
		return out
	}
	return append(out, piece{Extent: rados.Extent{Offset: offset, Length: uint64(len(data))}, data: data})
}

func allZeros(b []byte) bool {
	for len(b) >= 8 {
		if b[0]|b[1]|b[2]|b[3]|b[4]|b[5]|b[6]|b[7] != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// write builds the operation that carries the step out, nil if there is nothing to
// do. The object gets exactly the remote one's size, for "rbd diff" to say the same
// on both sides.
func (s step) write(pieces []piece, context ceph.SnapContext, objectSize uint64) *rados.WriteOp {
	op := &rados.WriteOp{SnapContext: context}
	if s.remove {
		return op.Remove()
	}
	size, exists := s.size, s.before == present
	switch {
	case s.before == unknown:
		op.Truncate(0) // does nothing to an object that does not exist
		size = 0
	case s.newSize < size:
		op.Truncate(s.newSize)
		size = s.newSize
	}
	for _, p := range pieces {
		switch {
		case p.data != nil:
			if !exists {
				op.AllocHint(objectSize, objectSize)
				exists = true
			}
			op.Write(p.Offset, p.data)
			size = max(size, end(p.Extent))
		case p.Offset < size:
			op.Zero(p.Offset, min(end(p.Extent), size)-p.Offset)
			if end(p.Extent) >= size {
				size = p.Offset // the OSD makes it a truncation (src/osd/PrimaryLogPG.cc)
			}
		}
	}
	if !exists {
		op.Create(false)
	}
	if size < s.newSize {
		op.Truncate(s.newSize)
	}
	if len(op.Steps) == 0 {
		return nil
	}
	return op
}

// payload is the number of bytes that an operation carries.
func payload(op *rados.WriteOp) uint64 {
	var n uint64
	for i := range op.Steps {
		n += uint64(len(op.Steps[i].Data))
	}
	return n
}
