package journal

import (
	"bytes"

	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// MaxReturn is the largest page that ClientList and TagList are asked for
// (JOURNAL_MAX_RETURN).
const MaxReturn = 256

// The calls below go to the header object (see HeaderObject), GuardAppend and
// Append to a data object. Source: ceph/ceph src/cls/journal/cls_journal.cc.

func call(method string, in func(e *encoding.Encoder)) class.Call {
	return class.New("journal", method, in)
}

func query[R any](method string, in func(e *encoding.Encoder), out func(d *encoding.Decoder) R) class.Query[R] {
	return class.Ask("journal", method, in, out)
}

// Create makes the header: objects of 1<<order bytes, splayWidth in a set, in the
// pool with that id (-1: the header's own). EEXIST if there is a journal.
func Create(order, splayWidth uint8, pool int64) class.Call {
	return call("create", func(e *encoding.Encoder) {
		e.U8(order)
		e.U8(splayWidth)
		e.I64(pool)
	})
}

// GetOrder asks for the binary logarithm of the data objects' size.
func GetOrder() class.Query[uint8] { return query("get_order", nil, (*encoding.Decoder).U8) }

// GetSplayWidth asks how many objects are in a set.
func GetSplayWidth() class.Query[uint8] { return query("get_splay_width", nil, (*encoding.Decoder).U8) }

// GetPoolID asks for the data objects' pool, -1 for the header's own.
func GetPoolID() class.Query[int64] { return query("get_pool_id", nil, (*encoding.Decoder).I64) }

func decodeSet(d *encoding.Decoder) ObjectSet { return ObjectSet(d.U64()) }

// GetMinimumSet asks for the oldest object set that is not trimmed.
func GetMinimumSet() class.Query[ObjectSet] { return query("get_minimum_set", nil, decodeSet) }

// SetMinimumSet moves the oldest object set forward. ESTALE if it is beyond s
// already, EINVAL if s is beyond the active set.
func SetMinimumSet(s ObjectSet) class.Call {
	return call("set_minimum_set", func(e *encoding.Encoder) { e.U64(uint64(s)) })
}

// GetActiveSet asks for the object set that is appended to.
func GetActiveSet() class.Query[ObjectSet] { return query("get_active_set", nil, decodeSet) }

// SetActiveSet moves the active set forward. ESTALE if it is beyond s already.
func SetActiveSet(s ObjectSet) class.Call {
	return call("set_active_set", func(e *encoding.Encoder) { e.U64(uint64(s)) })
}

func decodeClient(d *encoding.Decoder) Client {
	var c Client
	c.Decode(d)
	c.Data = bytes.Clone(c.Data)
	return c
}

// GetClient asks for a client; ENOENT if it is not registered.
func GetClient(id string) class.Query[Client] {
	return query("get_client", func(e *encoding.Encoder) { e.String(id) }, decodeClient)
}

// ClientRegister registers a client, connected, at the lowest commit position of all
// connected clients, or at none if one of them has none. EEXIST if it is registered.
// (Sources before 16 count disconnected clients, too; 16.2.15 was seen not to.)
func ClientRegister(id string, data []byte) class.Call {
	return call("client_register", func(e *encoding.Encoder) {
		e.String(id)
		e.Blob(data)
	})
}

// ClientUpdateData replaces a client's data; ENOENT if it is not registered.
func ClientUpdateData(id string, data []byte) class.Call {
	return call("client_update_data", func(e *encoding.Encoder) {
		e.String(id)
		e.Blob(data)
	})
}

// ClientUpdateState sets a client's state; ENOENT if it is not registered.
func ClientUpdateState(id string, s ClientState) class.Call {
	return call("client_update_state", func(e *encoding.Encoder) {
		e.String(id)
		e.U8(uint8(s))
	})
}

// ClientUnregister removes a client; ENOENT if it is not registered.
func ClientUnregister(id string) class.Call {
	return call("client_unregister", func(e *encoding.Encoder) { e.String(id) })
}

// ClientCommit stores how far a client has committed. EINVAL if there are more
// positions than the splay width, ENOENT if it is not registered. The class does
// not check that the position moves forward.
func ClientCommit(id string, p ObjectSetPosition) class.Call {
	return call("client_commit", func(e *encoding.Encoder) {
		e.String(id)
		p.Encode(e)
	})
}

// ClientList asks for up to max clients behind startAfter, ordered by id. The
// client "" is only listed when startAfter is "", which is where a listing begins.
func ClientList(startAfter string, max uint64) class.Query[[]Client] {
	const minClientSize = 6 + 4 + 4 + 10 + 1
	return query("client_list", func(e *encoding.Encoder) {
		e.String(startAfter)
		e.U64(max)
	}, func(d *encoding.Decoder) []Client {
		var clients []Client
		for n := d.Count(minClientSize); n > 0 && d.Err() == nil; n-- {
			clients = append(clients, decodeClient(d))
		}
		return clients
	})
}

// GetNextTagTID asks for the id that the next tag must have; tags below it exist
// or have expired.
func GetNextTagTID() class.Query[TagTID] {
	return query("get_next_tag_tid", nil, func(d *encoding.Decoder) TagTID { return TagTID(d.U64()) })
}

func decodeTag(d *encoding.Decoder) Tag {
	var t Tag
	t.Decode(d)
	t.Data = bytes.Clone(t.Data)
	return t
}

// GetTag asks for a tag; ENOENT if it does not exist or has expired.
func GetTag(t TagTID) class.Query[Tag] {
	return query("get_tag", func(e *encoding.Encoder) { e.U64(uint64(t)) }, decodeTag)
}

// TagCreate makes a tag. ESTALE if t is not the next id (ask again and retry),
// EEXIST if it exists. c may be NewTagClass. Tags that no client needs expire.
func TagCreate(t TagTID, c TagClass, data []byte) class.Call {
	return call("tag_create", func(e *encoding.Encoder) {
		e.U64(uint64(t))
		e.U64(uint64(c))
		e.Blob(data)
	})
}

// TagList asks for up to max tags behind startAfter, ascending, that the client
// may still need; c limits them to one class, nil does not. startAfter 0 means no
// limit, so tag 0 is in the answer then.
func TagList(startAfter TagTID, max uint64, clientID string, c *TagClass) class.Query[[]Tag] {
	const minTagSize = 6 + 8 + 8 + 4
	return query("tag_list", func(e *encoding.Encoder) {
		e.U64(uint64(startAfter))
		e.U64(max)
		e.String(clientID)
		e.Bool(c != nil)
		if c != nil {
			e.U64(uint64(*c))
		}
	}, func(d *encoding.Decoder) []Tag {
		var tags []Tag
		for n := d.Count(minTagSize); n > 0 && d.Err() == nil; n-- {
			tags = append(tags, decodeTag(d))
		}
		return tags
	})
}

// GuardAppend fails with EOVERFLOW if the data object has softMax bytes or more.
// Put it before a plain append in the same operation.
func GuardAppend(softMax uint64) class.Call {
	return call("guard_append", func(e *encoding.Encoder) { e.U64(softMax) })
}

// Append appends data unless the object has softMax bytes or more (EOVERFLOW),
// and pads with zeros up to the OSD's allocation unit. Since Ceph 15.
func Append(softMax uint64, data []byte) class.Call {
	return call("append", func(e *encoding.Encoder) {
		e.U64(softMax)
		e.Blob(data)
	})
}
