package mem

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"
	"slices"
	"syscall"

	"github.com/cespare/xxhash/v2"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	"github.com/rbdwarden/rbdwarden/rados"
)

// checksum answers as do_checksum and finish_checksum do (src/osd/PrimaryLogPG.cc).
func checksum(at *state, s *rados.ReadStep) ([]byte, error) {
	size, length := at.data.size, s.Length
	if s.Chunk > 0 && (length == 0 || length%s.Chunk != 0) {
		return nil, syscall.EINVAL
	}
	switch {
	case s.Offset == 0 && length == 0:
		length = size
	case s.Offset >= size:
		return nil, nil
	case s.Offset+length > size:
		if length = size - s.Offset; s.Chunk > 0 && length%s.Chunk != 0 {
			return nil, syscall.EINVAL
		}
	}
	width := s.Checksum.Bytes()
	if width == 0 {
		return nil, syscall.EINVAL
	}
	data := at.data.read(s.Offset, length)
	chunk := int(s.Chunk)
	if chunk == 0 {
		chunk = len(data)
	}
	var e encoding.Encoder
	if chunk == 0 {
		e.U32(0)
		return e.Bytes(), nil
	}
	e.U32(uint32(len(data) / chunk))
	for c := range slices.Chunk(data, chunk) {
		switch s.Checksum {
		case rados.CRC32C:
			e.U32(^crc32.Update(^uint32(s.Seed), castagnoli, c))
		case rados.XXHash32:
			e.U32(xxh32(c, uint32(s.Seed)))
		case rados.XXHash64:
			h := xxhash.NewWithSeed(s.Seed)
			_, _ = h.Write(c) // never fails
			e.U64(h.Sum64())
		}
	}
	return e.Bytes(), nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// xxh32 is the 32 bit form of xxHash, by its specification
// (https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md).
func xxh32(b []byte, seed uint32) uint32 {
	const p1, p2, p3, p4, p5 = 2654435761, 2246822519, 3266489917, 668265263, 374761393
	n := uint32(len(b))
	h := seed + p5
	if len(b) >= 16 {
		first := uint32(p1)
		lanes := [4]uint32{seed + first + p2, seed + p2, seed, seed - first}
		for ; len(b) >= 16; b = b[16:] {
			for i := range lanes {
				lanes[i] = bits.RotateLeft32(lanes[i]+binary.LittleEndian.Uint32(b[4*i:])*p2, 13) * p1
			}
		}
		h = bits.RotateLeft32(lanes[0], 1) + bits.RotateLeft32(lanes[1], 7) +
			bits.RotateLeft32(lanes[2], 12) + bits.RotateLeft32(lanes[3], 18)
	}
	h += n
	for ; len(b) >= 4; b = b[4:] {
		h = bits.RotateLeft32(h+binary.LittleEndian.Uint32(b)*p3, 17) * p4
	}
	for _, c := range b {
		h = bits.RotateLeft32(h+uint32(c)*p5, 11) * p1
	}
	h = (h ^ h>>15) * p2
	h = (h ^ h>>13) * p3
	return h ^ h>>16
}
