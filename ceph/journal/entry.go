package journal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

const (
	entryPreamble   = 0x3141592653589793
	entryVersion    = 1
	entryHeaderSize = 8 + 1 + 8 + 8 // preamble, version, entry tid, tag tid

	// EntryOverhead is how many bytes an entry takes beside its payload.
	EntryOverhead = entryHeaderSize + 4 + 4

	// padUnit is the alignment that padding fills up to.
	padUnit = 8
)

// Entry is one record of a journal.
type Entry struct {
	Tag     TagTID
	TID     EntryTID
	Payload []byte // an EventEntry, encoded
}

// NeedMore says that what was given is right so far but ends too early: at least
// that many bytes are missing. At the end of a journal object it means that the
// rest has not been written yet.
type NeedMore int

func (n NeedMore) Error() string { return fmt.Sprintf("need %d more bytes", int(n)) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// CRC is Ceph's crc32c of b with seed 0: without the usual inversions.
func CRC(b []byte) uint32 { return ^crc32.Update(0xffffffff, castagnoli, b) }

// Size is the number of bytes that e takes in a data object.
func (e Entry) Size() int { return EntryOverhead + len(e.Payload) }

// Encode appends e.
func (e Entry) Encode(enc *encoding.Encoder) {
	start := enc.Len()
	enc.U64(entryPreamble)
	enc.U8(entryVersion)
	enc.U64(uint64(e.TID))
	enc.U64(uint64(e.Tag))
	enc.Blob(e.Payload)
	enc.U32(CRC(enc.Bytes()[start:]))
}

// DecodeEntry reads the entry at the start of b and tells its size. The error is
// a NeedMore if b ends before the entry does, and a *encoding.CorruptError if b is
// not an entry or its checksum is wrong. The payload shares b's memory.
//
// A damaged length looks like NeedMore: the caller knows how long an entry can be
// (see MaxEntrySize) and whether more bytes can still come.
func DecodeEntry(b []byte) (e Entry, size int, err error) {
	le := binary.LittleEndian
	if len(b) >= 8 && le.Uint64(b) != entryPreamble {
		return Entry{}, 0, corruptEntry(0, "preamble %#x", le.Uint64(b))
	}
	if len(b) >= 9 && b[8] != entryVersion {
		return Entry{}, 0, corruptEntry(8, "version %d", b[8])
	}
	const lengthEnd = entryHeaderSize + 4
	if len(b) < lengthEnd {
		return Entry{}, 0, NeedMore(lengthEnd - len(b))
	}
	length := int64(le.Uint32(b[entryHeaderSize:]))
	total := int64(EntryOverhead) + length
	if int64(len(b)) < total {
		return Entry{}, 0, NeedMore(total - int64(len(b)))
	}
	crcAt := lengthEnd + int(length)
	stored, actual := le.Uint32(b[crcAt:]), CRC(b[:crcAt])
	if stored != actual {
		return Entry{}, 0, corruptEntry(crcAt, "checksum is %#x, stored is %#x", actual, stored)
	}
	return Entry{
		TID:     EntryTID(le.Uint64(b[9:])),
		Tag:     TagTID(le.Uint64(b[17:])),
		Payload: b[lengthEnd:crcAt:crcAt],
	}, int(total), nil
}

// MaxEntrySize bounds an entry in a journal whose objects are 1<<order bytes: the
// writer splits what would not fit (Journaler::get_max_append_size).
func MaxEntrySize(order uint8) int64 { return 1 << order }

// Padding tells how many bytes of padding b starts with, where b is at that
// offset of its object. Padding is zeros up to the next multiple of 8, any number
// of times. No entry starts with a zero byte. The error is a NeedMore if b ends
// before a multiple of 8, and a *encoding.CorruptError if something else than
// zeros comes before it; n is the whole units seen before that.
func Padding(b []byte, offset uint64) (n int, err error) {
	for n < len(b) && b[n] == 0 {
		unit := padUnit - int((offset+uint64(n))%padUnit)
		for i := 1; i < unit; i++ {
			if n+i >= len(b) {
				return n, NeedMore(unit - i)
			}
			if b[n+i] != 0 {
				return n, corruptEntry(n+i, "byte %#x in padding", b[n+i])
			}
		}
		n += unit
	}
	return n, nil
}

func corruptEntry(offset int, format string, args ...any) error {
	return &encoding.CorruptError{What: "journal.Entry", Offset: offset, Reason: fmt.Sprintf(format, args...)}
}

// EntryMagic is how every entry begins: for tools that look for entries behind
// damaged bytes.
func EntryMagic() []byte { return binary.LittleEndian.AppendUint64(nil, entryPreamble) }
