package rbd

import (
	"time"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// HeaderParent is the header's omap value "parent" (cls_rbd_parent in
// src/cls/rbd/cls_rbd.h).
type HeaderParent struct {
	Spec        ParentSpec
	HeadOverlap *uint64 // bytes; nil: the head was flattened, snapshots were not
}

// Encode appends the record in its form since Nautilus.
func (p HeaderParent) Encode(e *encoding.Encoder) {
	e.Struct(2, 2, func(e *encoding.Encoder) {
		e.I64(p.Spec.Pool)
		e.String(p.Spec.Namespace)
		e.String(p.Spec.ImageID)
		e.U64(uint64(p.Spec.Snap))
		encodeOptionalU64(e, p.HeadOverlap)
	})
}

func readHeaderParent(d *encoding.Decoder) (p HeaderParent) {
	d.Struct(2, func(d *encoding.Decoder, v uint8) {
		p.Spec.Pool = d.I64()
		if v >= 2 {
			p.Spec.Namespace = d.String()
		}
		p.Spec.ImageID = d.String()
		p.Spec.Snap = ceph.SnapID(d.U64())
		if v >= 2 {
			p.HeadOverlap = optionalU64(d)
		} else {
			overlap := d.U64()
			p.HeadOverlap = &overlap
		}
	})
	return p
}

// DecodeHeaderParent reads the record.
func DecodeHeaderParent(b []byte) (HeaderParent, error) {
	return decode("rbd.HeaderParent", b, readHeaderParent)
}

// HeaderSnapshot is the header's omap value of a snapshot, under SnapshotKey
// (cls_rbd_snap in src/cls/rbd/cls_rbd.h).
type HeaderSnapshot struct {
	ID            ceph.SnapID
	Name          string
	ImageSize     uint64 // bytes
	Protection    Protection
	Flags         Flags
	Namespace     SnapshotNamespace
	Timestamp     time.Time
	ChildCount    uint32
	ParentOverlap *uint64 // bytes
	// LegacyParent is set in records written before Nautilus.
	LegacyParent *HeaderParent
}

// Encode appends the record in its form since Nautilus, without LegacyParent.
func (s HeaderSnapshot) Encode(e *encoding.Encoder) {
	e.Struct(8, 8, func(e *encoding.Encoder) {
		e.U64(uint64(s.ID))
		e.String(s.Name)
		e.U64(s.ImageSize)
		e.U8(uint8(s.Protection))
		e.U64(uint64(s.Flags))
		EncodeSnapshotNamespace(e, s.Namespace)
		e.Time(s.Timestamp)
		e.U32(s.ChildCount)
		encodeOptionalU64(e, s.ParentOverlap)
	})
}

// DecodeHeaderSnapshot reads the record. Records of releases before Nautilus have
// other fields in their middle; they are told apart by the oldest compatible
// version, the struct's second byte.
func DecodeHeaderSnapshot(b []byte) (HeaderSnapshot, error) {
	legacy := len(b) > 1 && b[1] < 8
	return decode("rbd.HeaderSnapshot", b, func(d *encoding.Decoder) (s HeaderSnapshot) {
		d.Struct(8, func(d *encoding.Decoder, v uint8) { s.read(d, v, legacy) })
		return s
	})
}

func (s *HeaderSnapshot) read(d *encoding.Decoder, v uint8, legacy bool) {
	s.ID = ceph.SnapID(d.U64())
	s.Name = d.String()
	s.ImageSize = d.U64()
	if legacy {
		d.U64() // features of the image at that time, which nobody uses
		if v >= 2 {
			parent := readHeaderParent(d)
			s.LegacyParent = &parent
		}
	}
	s.Namespace = UserSnapshot{}
	if v >= 3 {
		s.Protection = Protection(d.U8())
	}
	if v >= 4 {
		s.Flags = Flags(d.U64())
	}
	if v >= 5 {
		s.Namespace = ReadSnapshotNamespace(d)
	}
	if v >= 6 {
		s.Timestamp = d.Time()
	}
	if v >= 7 {
		s.ChildCount = d.U32()
	}
	if v >= 8 {
		s.ParentOverlap = optionalU64(d)
	}
}
