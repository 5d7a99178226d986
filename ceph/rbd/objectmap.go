package rbd

import (
	"fmt"
	"hash/crc32"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// ObjectState is what an object map knows of one data object
// (src/include/rbd/object_map_types.h).
type ObjectState uint8

// The states of a data object.
const (
	ObjectNonexistent ObjectState = 0
	ObjectExists      ObjectState = 1
	ObjectPending     ObjectState = 2 // its removal is under way
	ObjectExistsClean ObjectState = 3 // unchanged since the newest snapshot (fast-diff)
)

// String is the state's name.
func (s ObjectState) String() string {
	switch s {
	case ObjectNonexistent:
		return "nonexistent"
	case ObjectExists:
		return "exists"
	case ObjectPending:
		return "pending"
	case ObjectExistsClean:
		return "exists_clean"
	}
	return fmt.Sprintf("ObjectState(%d)", uint8(s))
}

// MaxObjects is the largest number of objects that an object map may have; larger
// images cannot have the feature (MAX_OBJECT_MAP_OBJECT_COUNT).
const MaxObjects = 256_000_000

// objectMapBlock is the number of data bytes that one checksum covers.
const objectMapBlock = 4096

// ObjectMap is the object map of an image or snapshot in memory: two bits for each
// object. The zero value is a map of no objects. It is not safe for concurrent use.
//
// Stored (BitVector<2> in src/common/bit_vector.hpp):
//
//	u32 n              length of the header
//	header             struct of version 1: u64 number of objects
//	data               4 objects a byte, the first in the highest two bits
//	u32 n              length of the footer, 0 in arguments and replies of calls
//	footer             u32 crc of the header
//	                   u32 number of blocks
//	                   u32 crc of each 4096 bytes of data, the last may be shorter
//
// The crcs are crc32c with seed 0 and without the final inversion.
type ObjectMap struct {
	size uint64
	data []byte
}

// NewObjectMap makes a map of that many objects, all of them nonexistent. It panics
// beyond MaxObjects.
func NewObjectMap(objects uint64) *ObjectMap {
	m := &ObjectMap{}
	m.Resize(objects, ObjectNonexistent)
	return m
}

// Size is the number of objects.
func (m *ObjectMap) Size() uint64 { return m.size }

// Bytes is the memory that the map's data take.
func (m *ObjectMap) Bytes() int { return len(m.data) }

// At is the state of an object; it panics beyond the map's end.
func (m *ObjectMap) At(object uint64) ObjectState {
	m.check(object)
	return ObjectState(m.data[object/4] >> shift(object) & 3)
}

// Set changes the state of an object; it panics beyond the map's end.
func (m *ObjectMap) Set(object uint64, s ObjectState) {
	m.check(object)
	b := &m.data[object/4]
	*b = *b&^(3<<shift(object)) | byte(s&3)<<shift(object)
}

func (m *ObjectMap) check(object uint64) {
	if object >= m.size {
		panic(fmt.Sprintf("object %d of an object map of %d", object, m.size))
	}
}

func shift(object uint64) uint { return uint(3-object%4) * 2 }

// Resize changes the number of objects; new ones get the state. It panics beyond
// MaxObjects.
func (m *ObjectMap) Resize(objects uint64, s ObjectState) {
	if objects > MaxObjects {
		panic(fmt.Sprintf("object map of %d objects", objects))
	}
	old := m.size
	n := int((objects + 3) / 4)
	if n <= len(m.data) {
		m.data = m.data[:n:n]
	} else {
		m.data = append(m.data, make([]byte, n-len(m.data))...)
	}
	m.size = objects
	for i := old; i < objects; i++ {
		m.Set(i, s)
	}
}

// Update gives objects from start up to but not including end the new state, with
// the same condition as ObjectMapUpdate, and tells whether any has changed.
func (m *ObjectMap) Update(start, end uint64, s ObjectState, current *ObjectState) bool {
	changed := false
	for i := start; i < end; i++ {
		was := m.At(i)
		if was == s || !matches(was, current) {
			continue
		}
		m.Set(i, s)
		changed = true
	}
	return changed
}

func matches(s ObjectState, current *ObjectState) bool {
	return current == nil || s == *current || (*current == ObjectExists && s == ObjectExistsClean)
}

// SnapAdd does to the map what ObjectMapSnapAdd does to the stored one.
func (m *ObjectMap) SnapAdd() {
	for i := uint64(0); i < m.size; i++ {
		if m.At(i) == ObjectExists {
			m.Set(i, ObjectExistsClean)
		}
	}
}

// SnapRemove does to the map what ObjectMapSnapRemove does to the stored one.
func (m *ObjectMap) SnapRemove(removed *ObjectMap) {
	for i := uint64(0); i < m.size; i++ {
		if m.At(i) == ObjectExistsClean && (i >= removed.size || removed.At(i) == ObjectExists) {
			m.Set(i, ObjectExists)
		}
	}
}

// Clone copies the map.
func (m *ObjectMap) Clone() *ObjectMap {
	return &ObjectMap{size: m.size, data: append([]byte(nil), m.data...)}
}

// Encode appends the map as it is stored, with checksums.
func (m *ObjectMap) Encode(e *encoding.Encoder) {
	header := m.encodeData(e)
	blocks := (len(m.data) + objectMapBlock - 1) / objectMapBlock
	e.U32(uint32(8 + 4*blocks))
	e.U32(rawCRC(header))
	e.U32(uint32(blocks))
	for b := range blocks {
		e.U32(rawCRC(m.block(b)))
	}
}

// encodeForCall appends the map without checksums, as calls carry it.
func (m *ObjectMap) encodeForCall(e *encoding.Encoder) {
	m.encodeData(e)
	e.U32(0)
}

func (m *ObjectMap) encodeData(e *encoding.Encoder) (header []byte) {
	var h encoding.Encoder
	h.Struct(1, 1, func(h *encoding.Encoder) { h.U64(m.size) })
	e.Blob(h.Bytes())
	e.Raw(m.data)
	return h.Bytes()
}

func (m *ObjectMap) block(i int) []byte {
	return m.data[i*objectMapBlock : min((i+1)*objectMapBlock, len(m.data))]
}

// DecodeObjectMap reads a stored map and checks its checksums, if it has them.
func DecodeObjectMap(b []byte) (*ObjectMap, error) { return decode("rbd.ObjectMap", b, readObjectMap) }

func readObjectMap(d *encoding.Decoder) *ObjectMap {
	m := &ObjectMap{}
	header := d.Blob()
	h := encoding.NewDecoder("rbd.ObjectMap header", header)
	h.Struct(1, func(h *encoding.Decoder, _ uint8) { m.size = h.U64() })
	switch {
	case d.Err() != nil:
	case h.Err() != nil:
		d.Fail("header: %v", h.Err())
	case m.size > MaxObjects:
		d.Fail("%d objects, at most %d can be", m.size, uint64(MaxObjects))
	}
	if d.Err() != nil {
		return nil
	}
	m.data = append([]byte(nil), d.Raw(int((m.size+3)/4))...)
	footer := d.Blob()
	if d.Err() != nil || len(footer) == 0 {
		return m
	}
	m.verify(d, header, footer)
	return m
}

// verify compares the footer's checksums and reports the first that differs to d.
func (m *ObjectMap) verify(d *encoding.Decoder, header, footer []byte) {
	f := encoding.NewDecoder("rbd.ObjectMap footer", footer)
	if crc := f.U32(); f.Err() == nil && crc != rawCRC(header) {
		d.Fail("checksum of the header is %#x, stored is %#x", rawCRC(header), crc)
		return
	}
	want := (len(m.data) + objectMapBlock - 1) / objectMapBlock
	if n := f.Count(4); f.Err() == nil && n != want {
		d.Fail("%d checksums for %d blocks", n, want)
		return
	}
	for b := 0; b < want && f.Err() == nil; b++ {
		if crc := f.U32(); f.Err() == nil && crc != rawCRC(m.block(b)) {
			d.Fail("checksum of the block at object %d is %#x, stored is %#x",
				b*objectMapBlock*4, rawCRC(m.block(b)), crc)
			return
		}
	}
	if f.Err() != nil {
		d.Fail("footer: %v", f.Err())
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// rawCRC is crc32c with seed 0 and without the final inversion, Ceph's crc32c(0, b).
func rawCRC(b []byte) uint32 { return ^crc32.Update(0xffffffff, castagnoli, b) }
