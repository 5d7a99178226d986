package image

import "fmt"

// Kind says what an IO does.
type Kind uint8

// The kinds of I/O, which are those of the journal (src/librbd/journal/Types.h).
const (
	// Write puts Data at Offset.
	Write Kind = iota + 1
	// Discard makes the range read as zeros and gives its space back. With a
	// DiscardGranularity it is only a hint: parts of an object that are not
	// aligned to it keep their bytes (as librbd's skip of partial discards; the
	// journal carries the granularity so that all copies skip the same). Without
	// one (0) every byte of the range is zeroed: librbd's "write zeroes".
	Discard
	// WriteSame fills the range with repetitions of Data.
	WriteSame
	// CompareAndWrite puts Data at Offset if the image holds Compare there.
	CompareAndWrite
)

func (k Kind) String() string {
	switch k {
	case Write:
		return "write"
	case Discard:
		return "discard"
	case WriteSame:
		return "write same"
	case CompareAndWrite:
		return "compare and write"
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// IO is one modification of the image's data. Offset and Length are bytes of the
// image. Data and Compare must not change until Apply has returned.
type IO struct {
	Kind               Kind
	Offset             uint64
	Length             uint64
	Data               []byte // Write, CompareAndWrite: Length bytes; WriteSame: the pattern
	Compare            []byte // CompareAndWrite: Length bytes
	DiscardGranularity uint64 // Discard: bytes, see there
}

// InvalidIOError says that an IO contradicts itself, so that it cannot have been
// written by librbd. Nothing of its batch was applied.
type InvalidIOError struct {
	Index  int // in the slice given to Apply
	IO     IO
	Reason string
}

func (e *InvalidIOError) Error() string {
	return fmt.Sprintf("invalid %v of %d bytes at %d (number %d of its batch): %s", e.IO.Kind, e.IO.Length, e.IO.Offset, e.Index, e.Reason)
}

// Mismatch says that a CompareAndWrite found other bytes and wrote nothing. It is
// a result like any other: the primary saw the same.
type Mismatch struct {
	Index  int    // in the slice given to Apply
	Offset uint64 // first byte of the image that differs
}

// check finds what is contradictory in an IO.
func (io IO) check() string {
	switch {
	case io.Offset+io.Length < io.Offset:
		return "range overflows"
	case io.Kind == Write && uint64(len(io.Data)) != io.Length:
		return fmt.Sprintf("has %d bytes of data", len(io.Data))
	case io.Kind == WriteSame && len(io.Data) == 0:
		return "has no pattern"
	case io.Kind == CompareAndWrite && (uint64(len(io.Data)) != io.Length || uint64(len(io.Compare)) != io.Length):
		return fmt.Sprintf("has %d bytes of data and %d to compare", len(io.Data), len(io.Compare))
	case io.Kind < Write || io.Kind > CompareAndWrite:
		return "unknown kind"
	}
	return ""
}

// clip cuts the IO to an image of size bytes; what was written beyond the end
// belongs to a size that the image no longer has (src/librbd/journal/Replay.cc,
// clipped_io). ok is false if nothing is left.
func (io IO) clip(size uint64) (_ IO, ok bool) {
	if io.Length == 0 || io.Offset >= size {
		return IO{}, false
	}
	if left := size - io.Offset; io.Length > left {
		io.Length = left
		if io.Kind == Write || io.Kind == CompareAndWrite {
			io.Data = io.Data[:left]
		}
		if io.Kind == CompareAndWrite {
			io.Compare = io.Compare[:left]
		}
	}
	return io, true
}
