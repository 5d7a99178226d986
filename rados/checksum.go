package rados

import (
	"fmt"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// ChecksumType says how an OSD computes a checksum. The numbers are librados'
// (rados_checksum_type_t in src/include/rados/librados.h).
type ChecksumType uint8

// The types of checksums.
const (
	XXHash32 ChecksumType = 0 // 32 bits; the seed is its initial value
	XXHash64 ChecksumType = 1 // 64 bits; the seed is its initial value
	CRC32C   ChecksumType = 2 // 32 bits, without final inversion; the usual seed is 0xffffffff
)

// Bytes is the length of one checksum, and of its seed, as they are encoded: 0 for an
// unknown type.
func (t ChecksumType) Bytes() int {
	switch t {
	case XXHash32, CRC32C:
		return 4
	case XXHash64:
		return 8
	}
	return 0
}

// Checksum lets the OSD compute checksums of the range's chunks, so that contents can
// be compared without moving them (Checksums gives them). What it does at the edges, by
// do_checksum and finish_checksum in src/osd/PrimaryLogPG.cc:
//
//   - The range ends where the object ends. With a chunk, what is left of the range
//     must be whole chunks, else the operation fails with EINVAL: know the size first.
//   - A range behind the object's end has no checksums, and is no error.
//   - EINVAL if chunk is not 0 and length is 0 or not a multiple of it.
//   - Offset, length and chunk of 0 mean one checksum of the whole object; an empty
//     object has none.
func (op *ReadOp) Checksum(kind ChecksumType, seed, offset, length, chunk uint64) *ReadStep {
	return op.add(&ReadStep{Kind: ReadChecksum, Checksum: kind, Seed: seed, Offset: offset, Length: length, Chunk: chunk})
}

// Checksums decodes the answer of a Checksum step, a checksum a chunk. Bytes that are
// no such answer are EBADMSG.
func (s *ReadStep) Checksums() ([]uint64, error) {
	width := s.Checksum.Bytes()
	if width == 0 {
		return nil, fmt.Errorf("checksum of type %d: %w", s.Checksum, syscall.EINVAL)
	}
	if len(s.Data) == 0 {
		return nil, nil // the range is behind the object's end
	}
	d := encoding.NewDecoder("checksums", s.Data)
	sums := make([]uint64, d.Count(width))
	for i := range sums {
		if width == 4 {
			sums[i] = uint64(d.U32())
		} else {
			sums[i] = d.U64()
		}
	}
	if d.Remaining() > 0 {
		d.Fail("%d bytes too many", d.Remaining())
	}
	return sums, d.Err()
}
