package rados

import (
	"context"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/class"
)

// ReadOp is a list of read steps on one object, seen at one moment. Each method
// adds a step and returns where its result will be after IOContext.Read.
type ReadOp struct {
	// Snap is the snapshot to read at; 0 and ceph.NoSnap mean the head.
	Snap  ceph.SnapID
	Steps []*ReadStep
}

// ReadKind says what a ReadStep does, and which of its fields count.
type ReadKind uint8

// The kinds of read steps, with the fields that are their input → output.
const (
	ReadAssertExists  ReadKind = iota + 1 //
	ReadAssertVersion                     // Offset (the version)
	ReadCmpXattr                          // Name, Value
	ReadData                              // Offset, Length → Data
	ReadSparse                            // Offset, Length → Extents, Data
	ReadStat                              // → Size, ModTime
	ReadXattrs                            // → Pairs
	ReadOmapList                          // After, Prefix, Max → Pairs, More
	ReadOmapKeys                          // Keys → Pairs
	ReadExec                              // Call → Data
	ReadChecksum                          // Offset, Length, Chunk, Checksum, Seed → Data (see Checksums)
	ReadListWatchers                      // → Watchers
	ReadListSnaps                         // → Clones, Seq
)

// ReadStep is one step of a ReadOp: its inputs, then what the object answered.
type ReadStep struct {
	Kind   ReadKind
	Offset uint64
	Length uint64
	Chunk  uint64 // ReadChecksum: bytes per checksum; 0: one checksum of all
	Name   string
	Value  []byte
	After  string // ReadOmapList: keys after this one
	Prefix string // ReadOmapList: only keys that start so
	Max    uint64 // ReadOmapList: at most so many
	Keys   []string
	Call   class.Call
	// Checksum and Seed belong to ReadChecksum.
	Checksum ChecksumType
	Seed     uint64

	Data     []byte
	Extents  []Extent // ReadSparse: where the bytes of Data belong, in order
	Size     uint64
	ModTime  time.Time
	Pairs    map[string][]byte
	More     bool // ReadOmapList: there are keys behind these
	Watchers []Watcher
	Seq      ceph.SnapID // ReadListSnaps: newest snapshot the object has seen
	Clones   []Clone
}

// Extent is a range of an object, in bytes.
type Extent struct {
	Offset, Length uint64
}

// Clone is one stored state of an object (librados::clone_info_t).
type Clone struct {
	ID      ceph.SnapID   // ceph.NoSnap for the head
	Snaps   []ceph.SnapID // snapshots that share this state, ascending
	Overlap []Extent      // what is equal in the next newer state
	Size    uint64
}

func (op *ReadOp) add(s *ReadStep) *ReadStep {
	op.Steps = append(op.Steps, s)
	return s
}

// AssertExists fails with ENOENT unless the object exists.
func (op *ReadOp) AssertExists() { op.add(&ReadStep{Kind: ReadAssertExists}) }

// AssertVersion fails unless the object has that version.
func (op *ReadOp) AssertVersion(v uint64) { op.add(&ReadStep{Kind: ReadAssertVersion, Offset: v}) }

// CmpXattr fails with ECANCELED unless the attribute equals value.
func (op *ReadOp) CmpXattr(name string, value []byte) {
	op.add(&ReadStep{Kind: ReadCmpXattr, Name: name, Value: value})
}

// Read reads up to length bytes from offset into Data, fewer at the object's end.
func (op *ReadOp) Read(offset, length uint64) *ReadStep {
	return op.add(&ReadStep{Kind: ReadData, Offset: offset, Length: length})
}

// SparseRead reads only what is allocated: Data holds the bytes of Extents, one
// behind the other.
func (op *ReadOp) SparseRead(offset, length uint64) *ReadStep {
	return op.add(&ReadStep{Kind: ReadSparse, Offset: offset, Length: length})
}

// Stat gives Size and ModTime.
func (op *ReadOp) Stat() *ReadStep { return op.add(&ReadStep{Kind: ReadStat}) }

// Xattrs gives all attributes in Pairs.
func (op *ReadOp) Xattrs() *ReadStep { return op.add(&ReadStep{Kind: ReadXattrs}) }

// ListOmap gives up to max keys behind after that start with prefix, in Pairs.
func (op *ReadOp) ListOmap(after, prefix string, max uint64) *ReadStep {
	return op.add(&ReadStep{Kind: ReadOmapList, After: after, Prefix: prefix, Max: max})
}

// GetOmap gives those of the keys that exist, in Pairs.
func (op *ReadOp) GetOmap(keys ...string) *ReadStep {
	return op.add(&ReadStep{Kind: ReadOmapKeys, Keys: keys})
}

// Exec calls a class method; its reply is in Data.
func (op *ReadOp) Exec(call class.Call) *ReadStep {
	return op.add(&ReadStep{Kind: ReadExec, Call: call})
}

// ListWatchers gives the object's Watchers.
func (op *ReadOp) ListWatchers() *ReadStep { return op.add(&ReadStep{Kind: ReadListWatchers}) }

// ListSnaps gives the object's Clones, oldest first, the head last if it exists.
// Set Snap to 0: the whole history is always listed.
func (op *ReadOp) ListSnaps() *ReadStep { return op.add(&ReadStep{Kind: ReadListSnaps}) }

// Ask performs one class query on an object and decodes its reply.
func Ask[R any](ctx context.Context, io IOContext, object string, q class.Query[R]) (R, error) {
	var op ReadOp
	reply := op.Exec(q.Call)
	var none R
	if err := io.Read(ctx, object, &op); err != nil {
		return none, err
	}
	r, err := q.Decode(reply.Data)
	if err != nil {
		return none, &Error{Op: q.Class + "." + q.Method, Pool: io.Pool().Name, Namespace: io.Namespace(), Object: object, Err: err}
	}
	return r, nil
}

// Tell performs class calls on an object as one write operation.
func Tell(ctx context.Context, io IOContext, object string, calls ...class.Call) error {
	var op WriteOp
	for _, c := range calls {
		op.Exec(c)
	}
	return io.Write(ctx, object, &op)
}
