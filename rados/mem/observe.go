package mem

import (
	"bytes"
	"maps"
	"slices"
	"strings"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/lock"
)

// View is a Store as Options.Observe sees it, between two operations. It is only valid
// during that call. Objects are named within the pool and namespace of the operation.
type View struct {
	store *Store
	in    objectKey
}

func (v View) object(name string) *object {
	return v.store.objects[objectKey{v.in.pool, v.in.namespace, name}]
}

// Exists tells whether an object's head exists.
func (v View) Exists(name string) bool {
	o := v.object(name)
	return o != nil && o.exists
}

// Read copies bytes of an object as it was at a snapshot, or is (ceph.NoSnap), into b, zeros
// where it has none. False if it did not exist.
func (v View) Read(name string, snap ceph.SnapID, offset uint64, b []byte) bool {
	o := v.object(name)
	if o == nil {
		clear(b)
		return false
	}
	s, ok := o.at(snap)
	if !ok {
		clear(b)
		return false
	}
	clear(b[s.data.copyTo(b, offset):])
	return true
}

// OmapValues are the values of an object's omap whose keys have a prefix, in their order.
func (v View) OmapValues(name, prefix string) [][]byte {
	o := v.object(name)
	if o == nil || !o.exists {
		return nil
	}
	var out [][]byte
	for _, key := range slices.Sorted(maps.Keys(o.head.omap)) {
		if strings.HasPrefix(key, prefix) {
			out = append(out, bytes.Clone(o.head.omap[key]))
		}
	}
	return out
}

// Omap is a value of an object's omap; false if there is none.
func (v View) Omap(name, key string) ([]byte, bool) {
	o := v.object(name)
	if o == nil || !o.exists {
		return nil, false
	}
	value, ok := o.head.omap[key]
	return bytes.Clone(value), ok
}

// Holds tells whether a client holds an object's lock of that name.
func (v View) Holds(c *Client, name, lockName string) bool {
	o := v.object(name)
	if o == nil {
		return false
	}
	return slices.ContainsFunc(o.locks.Lockers(lockName), func(l lock.Locker) bool { return l.Entity == lock.ClientName(c.id) })
}

// Look lets fn look at a pool and namespace.
func (s *Store) Look(pool int64, namespace string, fn func(View)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn(View{store: s, in: objectKey{pool: pool, namespace: namespace}})
}

// observe is called with the store's lock held.
func (s *Store) observe(op Op, err error) {
	if s.opt.Observe != nil {
		s.opt.Observe(View{store: s, in: objectKey{pool: op.Pool.ID, namespace: op.Namespace}}, op, err)
	}
}
