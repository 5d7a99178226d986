package class

import "github.com/rbdwarden/rbdwarden/ceph/encoding"

// New describes a call of a method; in encodes its input and may be nil.
func New(class, method string, in func(e *encoding.Encoder)) Call {
	c := Call{Class: class, Method: method}
	if in != nil {
		var e encoding.Encoder
		in(&e)
		c.In = e.Bytes()
	}
	return c
}

// Ask describes a call whose reply read decodes. What follows the fields that read
// takes is ignored: newer OSDs may append. A damaged reply is a
// *encoding.CorruptError that names class and method.
func Ask[R any](class, method string, in func(e *encoding.Encoder), read func(d *encoding.Decoder) R) Query[R] {
	return Query[R]{Call: New(class, method, in), Decode: func(reply []byte) (R, error) {
		return Decode(class+"."+method+" reply", reply, read)
	}}
}

// Decode reads one value, named what in errors; on an error the zero value is
// returned with it.
func Decode[R any](what string, b []byte, read func(d *encoding.Decoder) R) (R, error) {
	d := encoding.NewDecoder(what, b)
	r := read(d)
	if err := d.Err(); err != nil {
		var none R
		return none, err
	}
	return r, nil
}
