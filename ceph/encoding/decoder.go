package encoding

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Decoder reads encoded values from a buffer. The first error sticks: later
// reads return zero values, so a caller may decode a whole struct and look at
// Err once. Slices returned by Blob, Raw and Rest share the buffer's memory.
type Decoder struct {
	what string // name of the type, for errors
	buf  []byte
	pos  int
	end  int // reads stop here: the end of the innermost struct
	err  error
}

// NewDecoder decodes b; what names the type in errors.
func NewDecoder(what string, b []byte) *Decoder {
	return &Decoder{what: what, buf: b, end: len(b)}
}

// Err is the first error, a *CorruptError, or nil.
func (d *Decoder) Err() error { return d.err }

// Offset is the position in bytes from the start of the buffer.
func (d *Decoder) Offset() int { return d.pos }

// Remaining is how many bytes are left in the innermost struct, or in the buffer.
func (d *Decoder) Remaining() int { return d.end - d.pos }

// Fail records a *CorruptError at the current offset unless there is one already.
func (d *Decoder) Fail(format string, args ...any) {
	if d.err == nil {
		d.err = &CorruptError{What: d.what, Offset: d.pos, Reason: fmt.Sprintf(format, args...)}
	}
}

func (d *Decoder) take(n int) []byte {
	if d.err != nil {
		return nil
	}
	if n < 0 || n > d.end-d.pos {
		d.Fail("need %d bytes, have %d", n, d.end-d.pos)
		return nil
	}
	b := d.buf[d.pos : d.pos+n : d.pos+n]
	d.pos += n
	return b
}

// U8 reads an unsigned byte.
func (d *Decoder) U8() uint8 {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

// U16 reads a 16-bit integer.
func (d *Decoder) U16() uint16 {
	if b := d.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

// U32 reads a 32-bit integer.
func (d *Decoder) U32() uint32 {
	if b := d.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

// U64 reads a 64-bit integer.
func (d *Decoder) U64() uint64 {
	if b := d.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// I32 reads a signed 32-bit integer.
func (d *Decoder) I32() int32 { return int32(d.U32()) }

// I64 reads a signed 64-bit integer.
func (d *Decoder) I64() int64 { return int64(d.U64()) }

// Bool reads a byte; anything but 0 is true, as in Ceph.
func (d *Decoder) Bool() bool { return d.U8() != 0 }

// String reads a length and that many bytes.
func (d *Decoder) String() string { return string(d.Blob()) }

// Blob reads a length and that many bytes (a bufferlist); the result shares the
// buffer's memory.
func (d *Decoder) Blob() []byte {
	n := d.U32()
	if d.err != nil {
		return nil
	}
	return d.take(int(n))
}

// Raw reads n bytes.
func (d *Decoder) Raw(n int) []byte { return d.take(n) }

// Rest reads everything up to the end of the innermost struct.
func (d *Decoder) Rest() []byte { return d.take(d.Remaining()) }

// Time reads a utime; zero seconds and nanoseconds give the zero time.Time.
func (d *Decoder) Time() time.Time {
	s, ns := d.U32(), d.U32()
	if s == 0 && ns == 0 {
		return time.Time{}
	}
	return time.Unix(int64(s), int64(ns))
}

// Count reads a u32 element count and refuses one that cannot fit into what is
// left when each element takes at least minSize bytes (minSize > 0). So a
// damaged count never makes the caller allocate without bound.
func (d *Decoder) Count(minSize int) int {
	n := int(d.U32())
	if d.err == nil && n > d.Remaining()/minSize {
		d.Fail("count %d does not fit in %d bytes", n, d.Remaining())
		return 0
	}
	return n
}

// Struct reads a versioned struct: fn gets its version and reads the fields that
// it knows; what follows them is skipped. A struct that needs a reader newer than
// supported is an error.
func (d *Decoder) Struct(supported uint8, fn func(d *Decoder, version uint8)) {
	version, compat, n := d.U8(), d.U8(), d.U32()
	if d.err != nil {
		return
	}
	if compat > supported {
		d.Fail("needs a reader of version %d, this one knows %d", compat, supported)
		return
	}
	if int64(n) > int64(d.Remaining()) {
		d.Fail("struct of %d bytes, have %d", n, d.Remaining())
		return
	}
	outer, end := d.end, d.pos+int(n)
	d.end = end
	fn(d, version)
	d.end = outer
	if d.err == nil {
		d.pos = end
	}
}
