package mirror

import (
	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// Names of the objects of a pool (and namespace) that mirroring uses
// (src/include/rbd_types.h).
const (
	Object       = "rbd_mirroring"
	LeaderObject = "rbd_mirror_leader" // in the default namespace: the lock and instances; image map in each
)

// InstanceObject is where the daemons of a pool talk to the one with that instance id.
func InstanceObject(instanceID string) string { return "rbd_mirror_instance." + instanceID }

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

// text encodes strings as a call's input.
func text(list ...string) func(e *encoding.Encoder) {
	return func(e *encoding.Encoder) {
		for _, s := range list {
			e.String(s)
		}
	}
}

// page encodes where a listing starts and how many entries it may return.
func page(start string, max uint64) func(e *encoding.Encoder) {
	return func(e *encoding.Encoder) {
		e.String(start)
		e.U64(max)
	}
}

func readText(d *encoding.Decoder) string { return d.String() }

// readMap reads a map with string keys; minValue is the least size of a value.
func readMap[V any](d *encoding.Decoder, minValue int, read func(d *encoding.Decoder) V) map[string]V {
	n := d.Count(4 + minValue)
	m := make(map[string]V, n)
	for i := 0; i < n && d.Err() == nil; i++ {
		k := d.String()
		m[k] = read(d)
	}
	return m
}

func readList[V any](d *encoding.Decoder, minValue int, read func(d *encoding.Decoder) V) []V {
	n := d.Count(minValue)
	list := make([]V, 0, n)
	for i := 0; i < n && d.Err() == nil; i++ {
		list = append(list, read(d))
	}
	return list
}
