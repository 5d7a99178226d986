package rados

import (
	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/class"
)

// WriteOp is an atomic list of steps on one object. Build it with its methods and
// hand it to IOContext.Write once. Payloads are not copied: they must not change
// until Write returns.
type WriteOp struct {
	// SnapContext goes with data writes: see ceph.SnapContext. A class method or
	// omap write on metadata objects leaves it zero.
	SnapContext ceph.SnapContext
	// Steps are applied in order.
	Steps []WriteStep
}

// WriteKind says what a WriteStep does, and which of its fields count.
type WriteKind uint8

// The kinds of write steps.
const (
	WriteCreate        WriteKind = iota + 1 // Exclusive
	WriteAssertExists                       // ENOENT otherwise
	WriteAssertVersion                      // Offset is the version
	WriteCmpExt                             // Offset, Data; -MAX_ERRNO-offset on mismatch, see MismatchError
	WriteCmpXattr                           // Name, Data; ECANCELED unless equal
	WriteData                               // Offset, Data
	WriteFull                               // Data
	WriteSame                               // Offset, Length, Data
	WriteAppend                             // Data
	WriteZero                               // Offset, Length
	WriteTruncate                           // Offset is the new size
	WriteRemove                             //
	WriteSetXattr                           // Name, Data
	WriteRemoveXattr                        // Name
	WriteOmapSet                            // Pairs
	WriteOmapRemove                         // Keys
	WriteOmapClear                          //
	WriteExec                               // Call
	WriteAllocHint                          // Offset is the expected object size, Length the expected write size
	WriteRollback                           // Offset is the snapshot id
	WriteCmpOmap                            // Name, Data; ECANCELED unless equal
)

// WriteStep is one step of a WriteOp.
type WriteStep struct {
	Kind      WriteKind
	Exclusive bool   // WriteCreate: EEXIST if the object exists
	Offset    uint64 // bytes, or as the kind says
	Length    uint64 // bytes
	Name      string
	Data      []byte
	Pairs     map[string][]byte
	Keys      []string
	Call      class.Call
	// FAdvise flags are not used so far.
}

func (op *WriteOp) add(s WriteStep) *WriteOp {
	op.Steps = append(op.Steps, s)
	return op
}

// Create creates the object; exclusive fails with EEXIST if it exists.
func (op *WriteOp) Create(exclusive bool) *WriteOp {
	return op.add(WriteStep{Kind: WriteCreate, Exclusive: exclusive})
}

// AssertExists fails with ENOENT unless the object exists.
func (op *WriteOp) AssertExists() *WriteOp { return op.add(WriteStep{Kind: WriteAssertExists}) }

// AssertVersion fails unless the object has that version (ERANGE, EOVERFLOW).
func (op *WriteOp) AssertVersion(v uint64) *WriteOp {
	return op.add(WriteStep{Kind: WriteAssertVersion, Offset: v})
}

// CmpExt fails with a *MismatchError unless the object holds data at offset;
// what is beyond its end compares as zeros.
func (op *WriteOp) CmpExt(offset uint64, data []byte) *WriteOp {
	return op.add(WriteStep{Kind: WriteCmpExt, Offset: offset, Data: data})
}

// CmpXattr fails with ECANCELED unless the attribute equals value.
func (op *WriteOp) CmpXattr(name string, value []byte) *WriteOp {
	return op.add(WriteStep{Kind: WriteCmpXattr, Name: name, Data: value})
}

// CmpOmap fails with ECANCELED unless the value of the omap key equals value; a key that is not there has an empty one.
func (op *WriteOp) CmpOmap(key string, value []byte) *WriteOp {
	return op.add(WriteStep{Kind: WriteCmpOmap, Name: key, Data: value})
}

// Write writes data at offset.
func (op *WriteOp) Write(offset uint64, data []byte) *WriteOp {
	return op.add(WriteStep{Kind: WriteData, Offset: offset, Data: data})
}

// WriteFull replaces the object's data.
func (op *WriteOp) WriteFull(data []byte) *WriteOp {
	return op.add(WriteStep{Kind: WriteFull, Data: data})
}

// WriteSame fills length bytes from offset with repetitions of pattern; length is
// a multiple of the pattern's.
func (op *WriteOp) WriteSame(offset, length uint64, pattern []byte) *WriteOp {
	return op.add(WriteStep{Kind: WriteSame, Offset: offset, Length: length, Data: pattern})
}

// Append writes data at the object's end.
func (op *WriteOp) Append(data []byte) *WriteOp {
	return op.add(WriteStep{Kind: WriteAppend, Data: data})
}

// Zero makes length bytes from offset read as zeros, without allocating them.
func (op *WriteOp) Zero(offset, length uint64) *WriteOp {
	return op.add(WriteStep{Kind: WriteZero, Offset: offset, Length: length})
}

// Truncate sets the object's size.
func (op *WriteOp) Truncate(size uint64) *WriteOp {
	return op.add(WriteStep{Kind: WriteTruncate, Offset: size})
}

// Remove removes the object (its head; clones of snapshots stay). ENOENT if there is none.
func (op *WriteOp) Remove() *WriteOp { return op.add(WriteStep{Kind: WriteRemove}) }

// SetXattr sets an attribute.
func (op *WriteOp) SetXattr(name string, value []byte) *WriteOp {
	return op.add(WriteStep{Kind: WriteSetXattr, Name: name, Data: value})
}

// RemoveXattr removes an attribute.
func (op *WriteOp) RemoveXattr(name string) *WriteOp {
	return op.add(WriteStep{Kind: WriteRemoveXattr, Name: name})
}

// SetOmap sets keys of the object map ("omap"; not RBD's object map).
func (op *WriteOp) SetOmap(pairs map[string][]byte) *WriteOp {
	return op.add(WriteStep{Kind: WriteOmapSet, Pairs: pairs})
}

// RemoveOmap removes keys; those that do not exist are no error.
func (op *WriteOp) RemoveOmap(keys ...string) *WriteOp {
	return op.add(WriteStep{Kind: WriteOmapRemove, Keys: keys})
}

// ClearOmap removes all keys.
func (op *WriteOp) ClearOmap() *WriteOp { return op.add(WriteStep{Kind: WriteOmapClear}) }

// Exec calls a class method. A method's error fails the whole operation.
func (op *WriteOp) Exec(call class.Call) *WriteOp {
	return op.add(WriteStep{Kind: WriteExec, Call: call})
}

// AllocHint tells the OSD the sizes to expect, as librbd does before data writes.
func (op *WriteOp) AllocHint(objectSize, writeSize uint64) *WriteOp {
	return op.add(WriteStep{Kind: WriteAllocHint, Offset: objectSize, Length: writeSize})
}

// Rollback sets the head to the object's state at a self-managed snapshot.
func (op *WriteOp) Rollback(snap ceph.SnapID) *WriteOp {
	return op.add(WriteStep{Kind: WriteRollback, Offset: uint64(snap)})
}
