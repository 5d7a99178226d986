package rbd

import (
	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// Calls on rbd_object_map objects. Sources: src/cls/rbd/cls_rbd.cc,
// src/cls/rbd/cls_rbd_client.cc. Whoever changes the map of a head holds the lock
// LockName on the object, and asserts it in the same operation.

// ObjectMapLoad asks for the whole map. A missing object gives ENOENT, a damaged one
// EINVAL.
func ObjectMapLoad() class.Query[*ObjectMap] { return query("object_map_load", nil, readObjectMap) }

// ObjectMapSave replaces the map and creates the object if needed.
func ObjectMapSave(m *ObjectMap) class.Call {
	return call("object_map_save", m.encodeForCall)
}

// ObjectMapResize changes the number of objects; new ones get the state. ESTALE if
// it would cut off objects that are not nonexistent.
func ObjectMapResize(objects uint64, state ObjectState) class.Call {
	return call("object_map_resize", func(e *encoding.Encoder) {
		e.U64(objects)
		e.U8(uint8(state))
	})
}

// ObjectMapUpdate gives objects from start up to but not including end the new
// state; if current is not nil only those that are in it, where ObjectExists also
// stands for ObjectExistsClean. ERANGE if the range is empty or beyond the map's end.
func ObjectMapUpdate(start, end uint64, state ObjectState, current *ObjectState) class.Call {
	return call("object_map_update", func(e *encoding.Encoder) {
		e.U64(start)
		e.U64(end)
		e.U8(uint8(state))
		e.Bool(current != nil)
		if current != nil {
			e.U8(uint8(*current))
		}
	})
}

// ObjectMapSnapAdd turns ObjectExists into ObjectExistsClean: the head as it is has
// just been saved as a snapshot's map.
func ObjectMapSnapAdd() class.Call { return call("object_map_snap_add", nil) }

// ObjectMapSnapRemove prepares the next newer map for the end of a snapshot with map
// m: what was dirty there is dirty here.
func ObjectMapSnapRemove(m *ObjectMap) class.Call {
	return call("object_map_snap_remove", m.encodeForCall)
}
