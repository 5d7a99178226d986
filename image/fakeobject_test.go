package image

import (
	"bytes"
	"fmt"

	"github.com/rbdwarden/rbdwarden/rados"
)

// fakeObject does to bytes in memory what an OSD does to an object for the steps
// of data writes (src/osd/PrimaryLogPG.cc): Zero and Truncate of a missing object
// do nothing, Zero that reaches the end truncates and does not grow an object,
// everything past its end reads as zeros.
type fakeObject struct {
	exists bool
	data   []byte
}

func (o *fakeObject) apply(op *rados.WriteOp) error {
	for _, s := range op.Steps {
		switch s.Kind {
		case rados.WriteData:
			o.write(s.Offset, s.Data)
		case rados.WriteSame:
			if len(s.Data) == 0 || s.Length%uint64(len(s.Data)) != 0 {
				return fmt.Errorf("write same of %d bytes with a pattern of %d", s.Length, len(s.Data))
			}
			o.write(s.Offset, bytes.Repeat(s.Data, int(s.Length)/len(s.Data)))
		case rados.WriteZero:
			switch size := uint64(len(o.data)); {
			case s.Offset >= size || s.Length == 0:
			case s.Offset+s.Length >= size:
				o.resize(s.Offset)
			default:
				clear(o.data[s.Offset : s.Offset+s.Length])
			}
		case rados.WriteTruncate:
			if o.exists {
				o.resize(s.Offset)
			}
		case rados.WriteRemove:
			*o = fakeObject{}
		case rados.WriteAllocHint:
		default:
			return fmt.Errorf("unexpected step %+v", s)
		}
	}
	return nil
}

func (o *fakeObject) write(offset uint64, data []byte) {
	o.exists = true
	if end := offset + uint64(len(data)); end > uint64(len(o.data)) {
		o.resize(end)
	}
	copy(o.data[offset:], data)
}

func (o *fakeObject) resize(size uint64) {
	if size <= uint64(len(o.data)) {
		o.data = o.data[:size:size]
		return
	}
	o.data = append(o.data, make([]byte, size-uint64(len(o.data)))...)
}

// read gives length bytes, with zeros where there is nothing.
func (o *fakeObject) read(offset, length uint64) []byte {
	out := make([]byte, length)
	if offset < uint64(len(o.data)) {
		copy(out, o.data[offset:])
	}
	return out
}
