package image

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/rbdwarden/rbdwarden/ceph/rbd"
)

// ObjectNumber counts an image's data objects from 0.
type ObjectNumber uint64

// Limits of an image's order (src/librbd/image/CreateRequest.cc).
const (
	MinOrder = 12
	MaxOrder = 25
)

// Layout says how an image's bytes lie in its data objects. The facts are those
// of src/osdc/Striper.cc: the image is cut into stripe units; StripeCount objects
// form an object set that is filled row by row, one unit from each object in turn.
//
//	object 0   object 1   object 2        StripeCount = 3
//	unit 0     unit 1     unit 2     row 0
//	unit 3     unit 4     unit 5     row 1 ... until the objects are full
type Layout struct {
	Order        uint8  // object size is 1<<Order bytes
	StripeUnit   uint64 // bytes; 0 means the object size
	StripeCount  uint64 // objects in a set; 0 means 1
	ObjectPrefix string // of data objects' names, "rbd_data.<id>"
	DataPool     int64  // id of the pool with the data objects, -1: the image's own
}

// Validate says what is wrong with the layout, or nil.
func (l Layout) Validate() error {
	size := l.ObjectSize()
	switch {
	case l.Order < MinOrder || l.Order > MaxOrder:
		return fmt.Errorf("image order %d is not in [%d, %d]", l.Order, MinOrder, MaxOrder)
	case (l.StripeUnit == 0) != (l.StripeCount == 0):
		return fmt.Errorf("stripe unit %d and stripe count %d: both or neither must be set", l.StripeUnit, l.StripeCount)
	case l.StripeUnit != 0 && (l.StripeUnit > size || size%l.StripeUnit != 0):
		return fmt.Errorf("stripe unit %d does not divide the object size %d", l.StripeUnit, size)
	case l.StripeCount > 1<<32-1:
		return fmt.Errorf("stripe count %d is too large", l.StripeCount)
	}
	return nil
}

// ObjectSize is the size of a full data object in bytes.
func (l Layout) ObjectSize() uint64 { return 1 << l.Order }

// ObjectName is the name of a data object.
func (l Layout) ObjectName(n ObjectNumber) string {
	return rbd.DataObject(l.ObjectPrefix, uint64(n))
}

// Fancy reports whether the image was made with stripes other than whole objects, and
// so has the feature "striping": also one with stripes over a single object, which lies
// in its objects like any other (src/librbd/image/CreateRequest.cc).
func (l Layout) Fancy() bool {
	return l.StripeUnit != 0 && (l.StripeUnit != l.ObjectSize() || l.StripeCount != 1)
}

// units gives stripe unit and count with the defaults filled in. With one object
// in a set the rows follow each other in the object, so the unit is the object.
func (l Layout) units() (unit, count uint64) {
	if l.StripeCount <= 1 || l.StripeUnit == 0 {
		return l.ObjectSize(), 1
	}
	return l.StripeUnit, l.StripeCount
}

// Period is the number of bytes in one object set.
func (l Layout) Period() uint64 {
	_, count := l.units()
	return l.ObjectSize() * count
}

// ObjectCount is the number of data objects that an image of size bytes can have.
func (l Layout) ObjectCount(size uint64) uint64 {
	unit, count := l.units()
	period := l.Period()
	full, rest := size/period, size%period
	n := full * count
	if rest > 0 {
		n += min(count, (rest+unit-1)/unit)
	}
	return n
}

// Span is a piece of the image's address space, in bytes.
type Span struct {
	Offset, Length uint64
}

// ObjectExtent is a contiguous piece of one data object, and where its bytes are
// in the image extent that it came from.
type ObjectExtent struct {
	Object ObjectNumber
	Offset uint64 // in the object
	Length uint64
	// Buffer lists, in the order of the object's bytes, the pieces of the image
	// extent: offsets are relative to that extent's start.
	Buffer []Span
}

// Extents maps an image extent to extents of its objects, ordered by object and
// then by offset. Neighbouring stripe units of one object are one extent.
func (l Layout) Extents(offset, length uint64) []ObjectExtent {
	unit, count := l.units()
	rows := l.ObjectSize() / unit
	var out []ObjectExtent
	var last map[ObjectNumber]int // object → index of its newest extent in out
	if count > 1 {
		last = make(map[ObjectNumber]int)
	}
	for at := offset; at < offset+length; {
		block := at / unit
		row, column := block/count, block%count
		object := ObjectNumber(row/rows*count + column)
		inBlock := at % unit
		n := min(unit-inBlock, offset+length-at)
		inObject := row%rows*unit + inBlock
		piece := Span{Offset: at - offset, Length: n}

		i, seen := last[object] // without striping an object comes up once
		if seen && out[i].Offset+out[i].Length == inObject {
			out[i].Length += n
			out[i].Buffer = append(out[i].Buffer, piece)
		} else {
			if count > 1 {
				last[object] = len(out)
			}
			out = append(out, ObjectExtent{Object: object, Offset: inObject, Length: n, Buffer: []Span{piece}})
		}
		at += n
	}
	if count > 1 {
		slices.SortFunc(out, func(a, b ObjectExtent) int {
			return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Offset, b.Offset))
		})
	}
	return out
}

// ImageSpans maps an extent of a data object back to the image, in the order of
// the object's bytes.
func (l Layout) ImageSpans(object ObjectNumber, offset, length uint64) []Span {
	unit, count := l.units()
	rows := l.ObjectSize() / unit
	set, column := uint64(object)/count, uint64(object)%count
	var out []Span
	for length > 0 {
		row := set*rows + offset/unit
		inBlock := offset % unit
		n := min(unit-inBlock, length)
		at := (row*count+column)*unit + inBlock
		if k := len(out); k > 0 && out[k-1].Offset+out[k-1].Length == at {
			out[k-1].Length += n
		} else {
			out = append(out, Span{Offset: at, Length: n})
		}
		offset += n
		length -= n
	}
	return out
}
