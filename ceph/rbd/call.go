package rbd

import (
	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// call describes a call of the object class "rbd"; see class.New.
func call(method string, fill func(e *encoding.Encoder)) class.Call {
	return class.New("rbd", method, fill)
}

// query is a call whose reply read decodes; see class.Ask.
func query[R any](method string, fill func(e *encoding.Encoder), read func(d *encoding.Decoder) R) class.Query[R] {
	return class.Ask("rbd", method, fill, read)
}

func decode[R any](what string, b []byte, read func(d *encoding.Decoder) R) (R, error) {
	return class.Decode(what, b, read)
}

// optionalU64 reads a std::optional<uint64_t>: a bool and, if true, the value.
func optionalU64(d *encoding.Decoder) *uint64 {
	if !d.Bool() {
		return nil
	}
	v := d.U64()
	return &v
}

func encodeOptionalU64(e *encoding.Encoder, v *uint64) {
	e.Bool(v != nil)
	if v != nil {
		e.U64(*v)
	}
}

func readU64(d *encoding.Decoder) uint64 { return d.U64() }
func readI64(d *encoding.Decoder) int64  { return d.I64() }
func readText(d *encoding.Decoder) string {
	return d.String()
}

func readStrings(d *encoding.Decoder) []string {
	n := d.Count(4)
	list := make([]string, 0, n)
	for i := 0; i < n && d.Err() == nil; i++ {
		list = append(list, d.String())
	}
	return list
}
