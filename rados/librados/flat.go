package librados

import (
	"encoding/binary"
	"math"
	"runtime"
	"syscall"
	"unsafe"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/rados"
)

// The flat form of an operation: one array of bytes, so that an operation is one
// cgo call however many steps it has. Integers are 64 bits, little-endian (cgo
// crosses no network); flat_reader in shim.cc reads it.
//
//	write: seq, number of snapshots, snapshots..., number of steps, steps...
//	read:  snapshot, number of steps, steps...
//	step:  u8 kind, fields as the kind needs them
//	bytes: length, bytes; or for large payloads length|byAddress, address
const byAddress = 1 << 63

// Payloads from this size on are passed by address, so that they are copied once
// (into librados' buffer, which outlives a cancelled call) and not twice. Below
// it, pinning costs more than copying.
const pinFrom = 2048

// flatten builds one flat operation. It is reused: see pending.
type flatten struct {
	buf    []byte
	pins   runtime.Pinner
	pinned bool
}

func (f *flatten) reset() {
	if cap(f.buf) > 64<<10 {
		f.buf = nil
	}
	f.buf = f.buf[:0]
	f.unpin()
}

// unpin lets go of the payloads; the C side has copied them.
func (f *flatten) unpin() {
	if f.pinned {
		f.pins.Unpin()
		f.pinned = false
	}
}

func (f *flatten) u8(v uint8)   { f.buf = append(f.buf, v) }
func (f *flatten) u64(v uint64) { f.buf = binary.LittleEndian.AppendUint64(f.buf, v) }

func (f *flatten) flag(v bool) {
	if v {
		f.u8(1)
	} else {
		f.u8(0)
	}
}

func (f *flatten) str(s string) {
	f.u64(uint64(len(s)))
	f.buf = append(f.buf, s...)
}

func (f *flatten) blob(b []byte) {
	if len(b) < pinFrom {
		f.u64(uint64(len(b)))
		f.buf = append(f.buf, b...)
		return
	}
	p := unsafe.SliceData(b)
	f.pins.Pin(p)
	f.pinned = true
	f.u64(uint64(len(b)) | byAddress)
	f.u64(uint64(uintptr(unsafe.Pointer(p))))
}

func (f *flatten) keys(keys []string) {
	f.u64(uint64(len(keys)))
	for _, k := range keys {
		f.str(k)
	}
}

func (f *flatten) write(op *rados.WriteOp) error {
	f.u64(uint64(op.SnapContext.Seq))
	f.u64(uint64(len(op.SnapContext.Snaps)))
	for _, s := range op.SnapContext.Snaps {
		f.u64(uint64(s))
	}
	f.u64(uint64(len(op.Steps)))
	for i := range op.Steps {
		if err := f.writeStep(&op.Steps[i]); err != nil {
			return err
		}
	}
	return nil
}

func (f *flatten) writeStep(s *rados.WriteStep) error {
	f.u8(uint8(s.Kind))
	switch s.Kind {
	case rados.WriteCreate:
		f.flag(s.Exclusive)
	case rados.WriteAssertExists, rados.WriteRemove, rados.WriteOmapClear:
	case rados.WriteAssertVersion, rados.WriteTruncate, rados.WriteRollback:
		f.u64(s.Offset)
	case rados.WriteCmpExt, rados.WriteData:
		f.u64(s.Offset)
		f.blob(s.Data)
	case rados.WriteCmpXattr, rados.WriteSetXattr, rados.WriteCmpOmap:
		f.str(s.Name)
		f.blob(s.Data)
	case rados.WriteFull, rados.WriteAppend:
		f.blob(s.Data)
	case rados.WriteSame:
		f.u64(s.Offset)
		f.u64(s.Length)
		f.blob(s.Data)
	case rados.WriteZero, rados.WriteAllocHint:
		f.u64(s.Offset)
		f.u64(s.Length)
	case rados.WriteRemoveXattr:
		f.str(s.Name)
	case rados.WriteOmapSet:
		f.u64(uint64(len(s.Pairs)))
		for k, v := range s.Pairs {
			f.str(k)
			f.blob(v)
		}
	case rados.WriteOmapRemove:
		f.keys(s.Keys)
	case rados.WriteExec:
		f.str(s.Call.Class)
		f.str(s.Call.Method)
		f.blob(s.Call.In)
	default:
		return syscall.EINVAL
	}
	return nil
}

func (f *flatten) read(op *rados.ReadOp) error {
	snap := op.Snap
	if snap == ceph.NoSnap {
		snap = 0
	}
	f.u64(uint64(snap))
	f.u64(uint64(len(op.Steps)))
	for _, s := range op.Steps {
		if err := f.readStep(s); err != nil {
			return err
		}
	}
	return nil
}

func (f *flatten) readStep(s *rados.ReadStep) error {
	f.u8(uint8(s.Kind))
	switch s.Kind {
	case rados.ReadAssertExists, rados.ReadStat, rados.ReadXattrs, rados.ReadListWatchers, rados.ReadListSnaps:
	case rados.ReadAssertVersion:
		f.u64(s.Offset)
	case rados.ReadCmpXattr:
		f.str(s.Name)
		f.blob(s.Value)
	case rados.ReadData, rados.ReadSparse:
		f.u64(s.Offset)
		f.u64(s.Length)
	case rados.ReadOmapList:
		f.str(s.After)
		f.str(s.Prefix)
		f.u64(s.Max)
	case rados.ReadOmapKeys:
		f.keys(s.Keys)
	case rados.ReadExec:
		f.str(s.Call.Class)
		f.str(s.Call.Method)
		f.blob(s.Call.In)
	case rados.ReadChecksum:
		width := s.Checksum.Bytes()
		if width == 0 || s.Chunk > math.MaxUint32 {
			return syscall.EINVAL // librados has 32 bits for the chunk
		}
		f.u8(uint8(s.Checksum))
		f.blob(binary.LittleEndian.AppendUint64(nil, s.Seed)[:width])
		f.u64(s.Offset)
		f.u64(s.Length)
		f.u64(s.Chunk)
	default:
		return syscall.EINVAL
	}
	return nil
}
