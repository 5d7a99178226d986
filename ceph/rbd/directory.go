package rbd

import (
	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// Calls on rbd_id.<name> and rbd_directory. Sources: src/cls/rbd/cls_rbd.cc,
// src/cls/rbd/cls_rbd_client.cc.

// GetID asks an rbd_id object for the image's id; ENOENT if it has none.
func GetID() class.Query[string] { return query("get_id", nil, readText) }

// SetID stores the image's id in its rbd_id object: EEXIST if it holds one already,
// ENOENT if the object does not exist (create it in the same operation).
func SetID(id string) class.Call { return call("set_id", text(id)) }

// DirGetID asks the directory for the id of an image by name; ENOENT if unknown.
func DirGetID(name string) class.Query[string] { return query("dir_get_id", text(name), readText) }

// DirGetName asks the directory for the name of an image by id; ENOENT if unknown.
func DirGetName(id string) class.Query[string] { return query("dir_get_name", text(id), readText) }

// DirList lists up to max images whose names come after start: name to id.
// Page on with the last name, in byte order, until fewer than max come back.
func DirList(start string, max uint64) class.Query[map[string]string] {
	return query("dir_list", page(start, max), func(d *encoding.Decoder) map[string]string {
		n := d.Count(8)
		m := make(map[string]string, n)
		for i := 0; i < n && d.Err() == nil; i++ {
			k := d.String()
			m[k] = d.String()
		}
		return m
	})
}

// DirAddImage enters an image; EEXIST if the name is taken, EBADF if the id is.
func DirAddImage(name, id string) class.Call {
	return call("dir_add_image", func(e *encoding.Encoder) {
		e.String(name)
		e.String(id)
	})
}

// DirRemoveImage deletes an image's entry; ESTALE if name and id do not belong
// together, ENOENT if there is none.
func DirRemoveImage(name, id string) class.Call {
	return call("dir_remove_image", func(e *encoding.Encoder) {
		e.String(name)
		e.String(id)
	})
}

// DirRenameImage changes the name of an image: ESTALE if id does not have the name
// from, EEXIST if to is taken.
func DirRenameImage(from, to, id string) class.Call {
	return call("dir_rename_image", func(e *encoding.Encoder) {
		e.String(from)
		e.String(to)
		e.String(id)
	})
}

// DirectoryState says whether images may be added (a namespace that is being
// removed takes no more).
type DirectoryState uint8

// The states of a directory.
const (
	DirectoryReady       DirectoryState = 0
	DirectoryAddDisabled DirectoryState = 1
)

// DirStateAssert fails the operation with ENOENT unless the directory has that
// state stored; it works in reads and writes. Only namespaces have a stored state.
func DirStateAssert(s DirectoryState) class.Call {
	return call("dir_state_assert", func(e *encoding.Encoder) { e.U8(uint8(s)) })
}

// DirStateSet stores the directory's state; EBUSY if adding is to be disabled and
// there still are images.
func DirStateSet(s DirectoryState) class.Call {
	return call("dir_state_set", func(e *encoding.Encoder) { e.U8(uint8(s)) })
}

// NamespaceAdd enters a namespace in the pool's rbd_namespace; EEXIST if it is there.
func NamespaceAdd(name string) class.Call { return call("namespace_add", text(name)) }

// NamespaceRemove deletes a namespace from the pool's rbd_namespace.
func NamespaceRemove(name string) class.Call { return call("namespace_remove", text(name)) }

// NamespaceList lists up to max namespaces after start, in byte order. The default
// namespace is not listed. ENOENT if the pool never had any.
func NamespaceList(start string, max uint64) class.Query[[]string] {
	return query("namespace_list", page(start, max), readStrings)
}

// text encodes a string as a call's only input.
func text(s string) func(e *encoding.Encoder) {
	return func(e *encoding.Encoder) { e.String(s) }
}

// page encodes where a listing starts and how many entries it may return.
func page(start string, max uint64) func(e *encoding.Encoder) {
	return func(e *encoding.Encoder) {
		e.String(start)
		e.U64(max)
	}
}
