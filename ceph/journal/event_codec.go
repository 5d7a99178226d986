package journal

import (
	"math"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// eventVersion is the version of the EventEntry encoding that is written: the
// one of Ceph 14 up to 20.
const eventVersion = 5

// Encode appends the event entry.
func (v EventEntry) Encode(e *encoding.Encoder) {
	e.Struct(eventVersion, 1, func(e *encoding.Encoder) {
		e.U32(uint32(v.Event.Type()))
		v.Event.encode(e)
	})
	e.Struct(1, 1, func(e *encoding.Encoder) { e.Time(v.Timestamp) })
}

// DecodeEvent reads an entry's payload. Data in the event shares b's memory. The
// error is a *encoding.CorruptError.
func DecodeEvent(b []byte) (EventEntry, error) {
	d := encoding.NewDecoder("journal.EventEntry", b)
	var v EventEntry
	var version uint8
	d.Struct(eventVersion, func(d *encoding.Decoder, ver uint8) {
		version = ver
		v.Event = decodeEvent(d, ver)
	})
	if version >= 4 {
		d.Struct(1, func(d *encoding.Decoder, _ uint8) { v.Timestamp = d.Time() })
	}
	if err := d.Err(); err != nil {
		return EventEntry{}, err
	}
	return v, nil
}

func decodeEvent(d *encoding.Decoder, version uint8) Event {
	op := func() OpTID { return OpTID(d.U64()) }
	switch t := EventType(d.U32()); t {
	case TypeAioDiscard:
		return decodeDiscard(d, version)
	case TypeAioWrite:
		return AioWrite{Offset: d.U64(), Length: d.U64(), Data: d.Blob()}
	case TypeAioWriteSame:
		return AioWriteSame{Offset: d.U64(), Length: d.U64(), Data: d.Blob()}
	case TypeAioCompareAndWrite:
		return AioCompareAndWrite{Offset: d.U64(), Length: d.U64(), CompareData: d.Blob(), WriteData: d.Blob()}
	case TypeAioFlush:
		return AioFlush{}
	case TypeOpFinish:
		// The id is stored twice: by the base class and by the class itself.
		first, v := op(), OpFinish{Op: op(), Result: d.I32()}
		if first != v.Op {
			d.Fail("operation is %d and %d", first, v.Op)
		}
		return v
	case TypeSnapCreate:
		v := SnapCreate{Op: op(), Name: d.String()}
		if version >= 3 { // only this event had the namespace in version 3
			v.Namespace.Decode(d)
		}
		return v
	case TypeSnapRemove:
		v := SnapRemove{Op: op(), Name: d.String()}
		decodeNamespace(d, version, &v.Namespace)
		return v
	case TypeSnapProtect:
		v := SnapProtect{Op: op(), Name: d.String()}
		decodeNamespace(d, version, &v.Namespace)
		return v
	case TypeSnapUnprotect:
		v := SnapUnprotect{Op: op(), Name: d.String()}
		decodeNamespace(d, version, &v.Namespace)
		return v
	case TypeSnapRollback:
		v := SnapRollback{Op: op(), Name: d.String()}
		decodeNamespace(d, version, &v.Namespace)
		return v
	case TypeSnapRename:
		v := SnapRename{Op: op(), NewName: d.String(), SnapID: d.U64()}
		if version >= 2 {
			v.OldName = d.String()
		}
		return v
	case TypeRename:
		return Rename{Op: op(), Name: d.String()}
	case TypeResize:
		return Resize{Op: op(), Size: d.U64()}
	case TypeFlatten:
		return Flatten{Op: op()}
	case TypeDemotePromote:
		return DemotePromote{}
	case TypeSnapLimit:
		return SnapLimit{Op: op(), Limit: d.U64()}
	case TypeUpdateFeatures:
		return UpdateFeatures{Op: op(), Features: d.U64(), Enabled: d.Bool()}
	case TypeMetadataSet:
		return MetadataSet{Op: op(), Key: d.String(), Value: d.String()}
	case TypeMetadataRemove:
		return MetadataRemove{Op: op(), Key: d.String()}
	default:
		return Unknown{EventType: t, Raw: d.Rest()}
	}
}

func decodeNamespace(d *encoding.Decoder, version uint8, n *SnapshotNamespace) {
	if version >= 4 {
		n.Decode(d)
	}
}

func decodeDiscard(d *encoding.Decoder, version uint8) AioDiscard {
	v := AioDiscard{Offset: d.U64(), Length: d.U64()}
	var skipPartial bool
	if version >= 4 {
		skipPartial = d.Bool()
	}
	switch {
	case version >= 5:
		v.Granularity = d.U32()
	case skipPartial:
		// Version 4 only said that parts of objects may be skipped: a granularity
		// above every object size means the same.
		v.Granularity = math.MaxUint32
	}
	return v
}

func (v AioDiscard) encode(e *encoding.Encoder) {
	e.U64(v.Offset)
	e.U64(v.Length)
	e.Bool(v.Granularity > 0)
	e.U32(v.Granularity)
}

func (v AioWrite) encode(e *encoding.Encoder) {
	e.U64(v.Offset)
	e.U64(v.Length)
	e.Blob(v.Data)
}

func (v AioWriteSame) encode(e *encoding.Encoder) {
	e.U64(v.Offset)
	e.U64(v.Length)
	e.Blob(v.Data)
}

func (v AioCompareAndWrite) encode(e *encoding.Encoder) {
	e.U64(v.Offset)
	e.U64(v.Length)
	e.Blob(v.CompareData)
	e.Blob(v.WriteData)
}

func (AioFlush) encode(*encoding.Encoder)      {}
func (DemotePromote) encode(*encoding.Encoder) {}

func (v OpFinish) encode(e *encoding.Encoder) {
	e.U64(uint64(v.Op))
	e.U64(uint64(v.Op))
	e.I32(v.Result)
}

func encodeSnap(e *encoding.Encoder, op OpTID, name string, n SnapshotNamespace) {
	e.U64(uint64(op))
	e.String(name)
	n.Encode(e)
}

func (v SnapCreate) encode(e *encoding.Encoder)    { encodeSnap(e, v.Op, v.Name, v.Namespace) }
func (v SnapRemove) encode(e *encoding.Encoder)    { encodeSnap(e, v.Op, v.Name, v.Namespace) }
func (v SnapProtect) encode(e *encoding.Encoder)   { encodeSnap(e, v.Op, v.Name, v.Namespace) }
func (v SnapUnprotect) encode(e *encoding.Encoder) { encodeSnap(e, v.Op, v.Name, v.Namespace) }
func (v SnapRollback) encode(e *encoding.Encoder)  { encodeSnap(e, v.Op, v.Name, v.Namespace) }

func (v SnapRename) encode(e *encoding.Encoder) {
	e.U64(uint64(v.Op))
	e.String(v.NewName)
	e.U64(v.SnapID)
	e.String(v.OldName)
}

func (v SnapLimit) encode(e *encoding.Encoder) {
	e.U64(uint64(v.Op))
	e.U64(v.Limit)
}

func (v Rename) encode(e *encoding.Encoder) {
	e.U64(uint64(v.Op))
	e.String(v.Name)
}

func (v Resize) encode(e *encoding.Encoder) {
	e.U64(uint64(v.Op))
	e.U64(v.Size)
}

func (v Flatten) encode(e *encoding.Encoder) { e.U64(uint64(v.Op)) }

func (v UpdateFeatures) encode(e *encoding.Encoder) {
	e.U64(uint64(v.Op))
	e.U64(v.Features)
	e.Bool(v.Enabled)
}

func (v MetadataSet) encode(e *encoding.Encoder) {
	e.U64(uint64(v.Op))
	e.String(v.Key)
	e.String(v.Value)
}

func (v MetadataRemove) encode(e *encoding.Encoder) {
	e.U64(uint64(v.Op))
	e.String(v.Key)
}

func (u Unknown) encode(e *encoding.Encoder) { e.Raw(u.Raw) }
