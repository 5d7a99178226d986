package rbd

import (
	"maps"
	"slices"

	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// Image metadata ("rbd image-meta"): key/value pairs in the header, and of the pool
// in rbd_info. Keys that start with "conf_" override configuration options,
// those with ".rbd" are librbd's own. Sources: src/cls/rbd/cls_rbd.cc,
// src/cls/rbd/cls_rbd_client.cc.

// MetadataSet stores pairs and keeps the others.
func MetadataSet(pairs map[string][]byte) class.Call {
	return call("metadata_set", func(e *encoding.Encoder) {
		e.U32(uint32(len(pairs)))
		for _, k := range slices.Sorted(maps.Keys(pairs)) {
			e.String(k)
			e.Blob(pairs[k])
		}
	})
}

// MetadataRemove deletes one pair. One that is not there is no error: the class
// removes the omap key without looking.
func MetadataRemove(key string) class.Call { return call("metadata_remove", text(key)) }

// MetadataGet asks for one value; ENOENT if it is not there.
func MetadataGet(key string) class.Query[string] { return query("metadata_get", text(key), readText) }

// MetadataList lists up to max pairs (0: 64) whose keys come after start.
func MetadataList(start string, max uint64) class.Query[map[string][]byte] {
	return query("metadata_list", page(start, max), func(d *encoding.Decoder) map[string][]byte {
		n := d.Count(8)
		m := make(map[string][]byte, n)
		for i := 0; i < n && d.Err() == nil; i++ {
			k := d.String()
			m[k] = slices.Clone(d.Blob())
		}
		return m
	})
}
