package rbd

import "github.com/rbdwarden/rbdwarden/ceph/encoding"

// Limits of the object order (src/librbd/internal.cc refuses others at creation).
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

func (h Header) corrupt(reason string) error {
	return &encoding.CorruptError{What: "rbd.Header", Reason: reason}
}
