package mem

import (
	"errors"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
)

var rbdObjectMapMethods = map[string]method{
	"object_map_load":        rbdObjectMapLoad,
	"object_map_save":        rbdObjectMapSave,
	"object_map_resize":      rbdObjectMapResize,
	"object_map_update":      rbdObjectMapUpdate,
	"object_map_snap_add":    rbdObjectMapSnapAdd,
	"object_map_snap_remove": rbdObjectMapSnapRemove,
}

// objectMap is the stored map: ENOENT without object, EINVAL if it is damaged. An
// empty object is an empty map.
func (c *classContext) objectMap() (*rbd.ObjectMap, error) {
	size, err := c.size()
	if err != nil {
		return nil, err
	}
	if size == 0 {
		return nil, syscall.ENOENT
	}
	m, err := rbd.DecodeObjectMap(c.readAll())
	if err != nil {
		return nil, syscall.EINVAL
	}
	return m, nil
}

func (c *classContext) putObjectMap(m *rbd.ObjectMap) error {
	var e encoding.Encoder
	m.Encode(&e)
	return c.writeFull(e.Bytes())
}

func rbdObjectMapLoad(c *classContext, _ *encoding.Decoder, out *encoding.Encoder) error {
	m, err := c.objectMap()
	if err != nil {
		return err
	}
	out.Raw(rbd.ObjectMapSave(m).In) // without checksums, as calls carry it
	return nil
}

func rbdObjectMapSave(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	m, err := rbd.DecodeObjectMap(in.Rest())
	if err != nil {
		return syscall.EINVAL
	}
	return c.putObjectMap(m)
}

func rbdObjectMapResize(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	objects, state := in.U64(), rbd.ObjectState(in.U8())
	if c.input() != nil || objects > rbd.MaxObjects {
		return syscall.EINVAL
	}
	m, err := c.objectMap()
	if errors.Is(err, syscall.ENOENT) {
		m, err = rbd.NewObjectMap(0), nil
	}
	if err != nil {
		return err
	}
	for i := objects; i < m.Size(); i++ {
		if m.At(i) != state {
			return syscall.ESTALE
		}
	}
	m.Resize(objects, state)
	return c.putObjectMap(m)
}

func rbdObjectMapUpdate(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	start, end, state := in.U64(), in.U64(), rbd.ObjectState(in.U8())
	var current *rbd.ObjectState
	if in.Bool() {
		v := rbd.ObjectState(in.U8())
		current = &v
	}
	if err := c.input(); err != nil {
		return err
	}
	m, err := c.objectMap()
	if err != nil {
		return err
	}
	if start >= end || end > m.Size() {
		return syscall.ERANGE
	}
	if !m.Update(start, end, state, current) {
		return nil
	}
	return c.putObjectMap(m)
}

func rbdObjectMapSnapAdd(c *classContext, _ *encoding.Decoder, _ *encoding.Encoder) error {
	m, err := c.objectMap()
	if err != nil {
		return err
	}
	m.SnapAdd()
	return c.putObjectMap(m)
}

func rbdObjectMapSnapRemove(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	removed, err := rbd.DecodeObjectMap(in.Rest())
	if err != nil {
		return syscall.EINVAL
	}
	m, err := c.objectMap()
	if err != nil {
		return err
	}
	m.SnapRemove(removed)
	return c.putObjectMap(m)
}
