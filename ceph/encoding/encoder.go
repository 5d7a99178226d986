package encoding

import (
	"encoding/binary"
	"time"
)

// Encoder appends encoded values to a buffer. The zero value is ready to use.
type Encoder struct {
	buf []byte
}

// NewEncoder returns an encoder with room for size bytes.
func NewEncoder(size int) *Encoder { return &Encoder{buf: make([]byte, 0, size)} }

// Bytes returns what was encoded. The encoder keeps using the same memory.
func (e *Encoder) Bytes() []byte { return e.buf }

// Len is the number of bytes encoded so far.
func (e *Encoder) Len() int { return len(e.buf) }

// U8 appends an unsigned byte.
func (e *Encoder) U8(v uint8) { e.buf = append(e.buf, v) }

// U16 appends a 16-bit integer.
func (e *Encoder) U16(v uint16) { e.buf = binary.LittleEndian.AppendUint16(e.buf, v) }

// U32 appends a 32-bit integer.
func (e *Encoder) U32(v uint32) { e.buf = binary.LittleEndian.AppendUint32(e.buf, v) }

// U64 appends a 64-bit integer.
func (e *Encoder) U64(v uint64) { e.buf = binary.LittleEndian.AppendUint64(e.buf, v) }

// I32 appends a signed 32-bit integer.
func (e *Encoder) I32(v int32) { e.U32(uint32(v)) }

// I64 appends a signed 64-bit integer.
func (e *Encoder) I64(v int64) { e.U64(uint64(v)) }

// Bool appends a boolean as one byte.
func (e *Encoder) Bool(v bool) {
	if v {
		e.U8(1)
	} else {
		e.U8(0)
	}
}

// String appends a length and the bytes of s.
func (e *Encoder) String(s string) {
	e.U32(uint32(len(s)))
	e.buf = append(e.buf, s...)
}

// Blob appends a length and b (a bufferlist).
func (e *Encoder) Blob(b []byte) {
	e.U32(uint32(len(b)))
	e.buf = append(e.buf, b...)
}

// Raw appends b as it is, without a length.
func (e *Encoder) Raw(b []byte) { e.buf = append(e.buf, b...) }

// Time appends a utime: seconds and nanoseconds since the epoch. The zero
// time.Time is Ceph's zero utime.
func (e *Encoder) Time(t time.Time) {
	if t.IsZero() {
		e.U64(0)
		return
	}
	e.U32(uint32(t.Unix()))
	e.U32(uint32(t.Nanosecond()))
}

// Struct appends a versioned struct whose body fn encodes.
func (e *Encoder) Struct(version, compat uint8, fn func(*Encoder)) {
	e.U8(version)
	e.U8(compat)
	at := len(e.buf)
	e.U32(0)
	fn(e)
	binary.LittleEndian.PutUint32(e.buf[at:], uint32(len(e.buf)-at-4))
}
