package rbd

import (
	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// call builds a call of the object class; fill (may be nil) encodes its input.
func call(method string, fill func(e *encoding.Encoder)) class.Call {
	c := class.Call{Class: "rbd", Method: method}
	if fill != nil {
		var e encoding.Encoder
		fill(&e)
		c.In = e.Bytes()
	}
	return c
}

// query is a call whose reply read decodes. What follows the known fields is
// ignored: newer OSDs may append.
func query[R any](method string, fill func(e *encoding.Encoder), read func(d *encoding.Decoder) R) class.Query[R] {
	return class.Query[R]{Call: call(method, fill), Decode: func(reply []byte) (R, error) {
		return decode("rbd."+method+" reply", reply, read)
	}}
}

// decode reads one value; on an error the zero value is returned with it.
func decode[R any](what string, b []byte, read func(d *encoding.Decoder) R) (R, error) {
	d := encoding.NewDecoder(what, b)
	r := read(d)
	if err := d.Err(); err != nil {
		var none R
		return none, err
	}
	return r, nil
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
