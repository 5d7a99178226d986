// Package class describes calls of RADOS object-class methods ("cls_rbd",
// "cls_journal", "cls_lock" ...) as data.
//
// An object class is code that the OSD runs beside an object. A call names the
// class and the method and carries the encoded input; some calls answer with
// bytes. The packages under ceph/ build calls and decode replies; package rados
// carries them. Nothing here does I/O.
package class

// Call is one invocation of an object-class method. It may be put in a write
// operation, or, if it only reads, in a read operation.
type Call struct {
	Class  string // for example "rbd"
	Method string // for example "get_features"
	In     []byte // encoded input, empty for methods without arguments
}

// Query is a Call that answers, together with the decoder of its reply.
//
// Decode gets the whole reply; trailing bytes are the decoder's business (newer
// OSDs may append fields). It must not keep the slice.
type Query[R any] struct {
	Call
	Decode func(reply []byte) (R, error)
}
