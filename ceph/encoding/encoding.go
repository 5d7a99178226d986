// Package encoding reads and writes the primitives of Ceph's wire format.
//
// Everything is little-endian and unaligned:
//
//	u8 u16 u32 u64 i64   fixed width
//	bool                 u8, 0 or 1
//	string, bufferlist   u32 length, that many bytes
//	vector, set, map     u32 count, then the elements
//	utime                u32 seconds, u32 nanoseconds
//	versioned struct     u8 version, u8 oldest compatible version,
//	                     u32 length of the body, body
//
// A versioned struct may be longer than its reader knows: the reader skips what
// it does not understand and refuses only if the compatible version is above
// its own.
//
// Source of the facts: ceph/ceph src/include/encoding.h, src/include/utime.h.
package encoding

import (
	"fmt"
)

// CorruptError says that bytes are not what they ought to be.
type CorruptError struct {
	What   string // the type that was being decoded, for example "journal.Entry"
	Offset int    // where, in bytes from the start of the buffer given to the decoder
	Reason string // for example "need 8 bytes, have 3"
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("corrupt %s at offset %d: %s", e.What, e.Offset, e.Reason)
}
