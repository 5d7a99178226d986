package rbd

import "github.com/rbdwarden/rbdwarden/ceph/encoding"

// Limits of the object order (src/librbd/image/CreateRequest.cc refuses others).
const (
	MinOrder = 12 // objects of 4 KiB
	MaxOrder = 25 // objects of 32 MiB
)

// check refuses a header that would lead to damage if somebody relied on it.
func (h Header) check() error {
	switch {
	case h.Order < MinOrder || h.Order > MaxOrder:
		return h.corrupt("object order is out of range")
	case h.ObjectPrefix == "":
		return h.corrupt("the object prefix is empty")
	}
	return nil
}

// Valid tells whether an image with objects of objectSize bytes can be striped so.
// (src/cls/rbd/cls_rbd.cc and src/librbd/image/CreateRequest.cc refuse others.)
func (s Striping) Valid(objectSize uint64) bool {
	return s.Unit > 0 && s.Unit <= objectSize && objectSize%s.Unit == 0 &&
		s.Count > 0 && s.Count <= maxStripeCount
}

// maxStripeCount keeps the size of an object set, in bytes, within 64 bits. The
// stripe count is a u32 in the layouts that librbd computes with.
const maxStripeCount = 1<<32 - 1

func (h Header) corrupt(reason string) error {
	return &encoding.CorruptError{What: "rbd.Header", Reason: reason}
}
