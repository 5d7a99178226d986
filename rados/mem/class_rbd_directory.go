package mem

import (
	"strings"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
)

const (
	prefixDirName  = "name_"
	prefixDirID    = "id_"
	prefixMetadata = "metadata_"
	prefixTrash    = "id_"
	keyDirState    = "state"
)

var rbdDirectoryMethods = map[string]method{
	"get_id":           rbdGetID,
	"set_id":           rbdSetID,
	"dir_get_id":       rbdGetByKey(prefixDirName),
	"dir_get_name":     rbdGetByKey(prefixDirID),
	"dir_list":         rbdListValues(prefixDirName, rbdRaw),
	"dir_add_image":    rbdDirAdd,
	"dir_remove_image": rbdDirRemove,
	"dir_rename_image": rbdDirRename,
	"dir_state_assert": rbdDirStateAssert,
	"dir_state_set":    rbdDirStateSet,
	"namespace_add":    rbdNamespaceAdd,
	"namespace_remove": rbdRemoveExisting(prefixDirName),
	"namespace_list":   rbdListKeys(prefixDirName),
}

var rbdMetadataMethods = map[string]method{
	"metadata_set":    rbdMetadataSet,
	"metadata_remove": rbdRemove(prefixMetadata),
	"metadata_get":    rbdMetadataGet,
	"metadata_list":   rbdMetadataList,
}

var rbdTrashMethods = map[string]method{
	"trash_add":       rbdTrashAdd,
	"trash_remove":    rbdRemoveExisting(prefixTrash),
	"trash_get":       rbdGetByKey(prefixTrash),
	"trash_list":      rbdListValues(prefixTrash, rbdRaw),
	"trash_state_set": rbdTrashStateSet,
}

// rbdGetByKey answers with what is stored under prefix and the input.
func rbdGetByKey(prefix string) method {
	return func(c *classContext, in *encoding.Decoder, out *encoding.Encoder) error {
		name := in.String()
		if err := c.input(); err != nil {
			return err
		}
		v, err := c.omap(prefix + name)
		out.Raw(v)
		return err
	}
}

// rbdRemove deletes what is stored under prefix and the input, if it is.
func rbdRemove(prefix string) method {
	return func(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
		name := in.String()
		if err := c.input(); err != nil {
			return err
		}
		return c.remove(prefix + name)
	}
}

// rbdRemoveAnyway is rbdRemove that does not mind if there is no object.
func rbdRemoveAnyway(prefix string) method {
	return func(c *classContext, in *encoding.Decoder, out *encoding.Encoder) error {
		return ignoreMissing(rbdRemove(prefix)(c, in, out))
	}
}

// rbdRemoveExisting is rbdRemove with ENOENT if there is nothing.
func rbdRemoveExisting(prefix string) method {
	return func(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
		name := in.String()
		if err := c.input(); err != nil {
			return err
		}
		if _, err := c.omap(prefix + name); err != nil {
			return err
		}
		return c.remove(prefix + name)
	}
}

func rbdRaw(out *encoding.Encoder, value []byte) { out.Raw(value) }

// page reads the input of listings and gives the keys, without prefix, and values.
func (c *classContext) page(prefix string) (names []string, values [][]byte, err error) {
	after, limit := c.in.String(), c.in.U64()
	if err := c.input(); err != nil {
		return nil, nil, err
	}
	keys, pairs := c.list(prefix+after, prefix, limit)
	for _, k := range keys {
		names = append(names, strings.TrimPrefix(k, prefix))
		values = append(values, pairs[k])
	}
	return names, values, nil
}

func rbdListValues(prefix string, encode func(*encoding.Encoder, []byte)) method {
	return func(c *classContext, _ *encoding.Decoder, out *encoding.Encoder) error {
		names, values, err := c.page(prefix)
		if err != nil {
			return err
		}
		out.U32(uint32(len(names)))
		for i, n := range names {
			out.String(n)
			encode(out, values[i])
		}
		return nil
	}
}

func rbdListKeys(prefix string) method {
	return func(c *classContext, _ *encoding.Decoder, out *encoding.Encoder) error {
		names, _, err := c.page(prefix)
		if err != nil {
			return err
		}
		out.U32(uint32(len(names)))
		for _, n := range names {
			out.String(n)
		}
		return nil
	}
}

func rbdGetID(c *classContext, _ *encoding.Decoder, out *encoding.Encoder) error {
	size, err := c.size()
	if err != nil {
		return err
	}
	if size == 0 {
		return syscall.ENOENT
	}
	d := encoding.NewDecoder("rbd_id", c.readAll())
	out.String(d.String())
	return d.Err()
}

func rbdSetID(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	if err := c.mustExist(); err != nil {
		return err
	}
	id := in.String()
	if c.input() != nil || !validID(id) {
		return syscall.EINVAL
	}
	if size, _ := c.size(); size != 0 {
		return syscall.EEXIST
	}
	var e encoding.Encoder
	e.String(id)
	return c.write(0, e.Bytes())
}

func validID(id string) bool {
	for _, r := range id {
		if !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9') {
			return false
		}
	}
	return id != ""
}

func (c *classContext) text(key string) (string, error) {
	b, err := c.omap(key)
	if err != nil {
		return "", err
	}
	d := encoding.NewDecoder(key, b)
	s := d.String()
	return s, d.Err()
}

func (c *classContext) putText(key, value string) error {
	return c.put(key, func(e *encoding.Encoder) { e.String(value) })
}

func (c *classContext) dirAdd(name, id string, unique bool) error {
	if name == "" || !validID(id) {
		return syscall.EINVAL
	}
	if _, err := c.omap(prefixDirName + name); err == nil {
		return syscall.EEXIST
	}
	if _, err := c.omap(prefixDirID + id); err == nil && unique {
		return syscall.EBADF
	}
	if err := c.putText(prefixDirName+name, id); err != nil {
		return err
	}
	return c.putText(prefixDirID+id, name)
}

func (c *classContext) dirRemove(name, id string) error {
	storedID, err := c.text(prefixDirName + name)
	if err != nil {
		return err
	}
	storedName, err := c.text(prefixDirID + id)
	if err != nil {
		return err
	}
	if storedID != id || storedName != name {
		return syscall.ESTALE
	}
	if err := c.remove(prefixDirName + name); err != nil {
		return err
	}
	return c.remove(prefixDirID + id)
}

func rbdDirAdd(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	if err := c.create(false); err != nil {
		return err
	}
	name, id := in.String(), in.String()
	if err := c.input(); err != nil {
		return err
	}
	return c.dirAdd(name, id, true)
}

func rbdDirRemove(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	name, id := in.String(), in.String()
	if err := c.input(); err != nil {
		return err
	}
	return c.dirRemove(name, id)
}

func rbdDirRename(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	from, to, id := in.String(), in.String(), in.String()
	if err := c.input(); err != nil {
		return err
	}
	if err := c.dirRemove(from, id); err != nil {
		return err
	}
	return c.dirAdd(to, id, false)
}

func rbdDirStateAssert(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	state := in.U8()
	if err := c.input(); err != nil {
		return err
	}
	stored, err := c.omap(keyDirState)
	if err != nil {
		return err
	}
	if stored[0] != state {
		return syscall.ENOENT
	}
	return nil
}

func rbdDirStateSet(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	state := rbd.DirectoryState(in.U8())
	if c.input() != nil || state > rbd.DirectoryAddDisabled {
		return syscall.EINVAL
	}
	if state == rbd.DirectoryAddDisabled {
		if err := c.mustExist(); err != nil {
			return err
		}
		if keys, _ := c.list("", prefixDirName, 1); len(keys) > 0 {
			return syscall.EBUSY
		}
	}
	return c.put(keyDirState, func(e *encoding.Encoder) { e.U8(uint8(state)) })
}

func rbdNamespaceAdd(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	key := prefixDirName + in.String()
	if err := c.input(); err != nil {
		return err
	}
	if _, err := c.omap(key); err == nil {
		return syscall.EEXIST
	}
	return c.set(key, nil)
}

func rbdMetadataSet(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	pairs := map[string][]byte{}
	for n := in.Count(8); n > 0; n-- {
		k := in.String()
		pairs[k] = in.Blob()
	}
	if err := c.input(); err != nil {
		return err
	}
	for _, k := range sortedKeys(pairs) {
		if err := c.set(prefixMetadata+k, pairs[k]); err != nil {
			return err
		}
	}
	return nil
}

func rbdMetadataGet(c *classContext, in *encoding.Decoder, out *encoding.Encoder) error {
	key := in.String()
	if err := c.input(); err != nil {
		return err
	}
	v, err := c.omap(prefixMetadata + key)
	out.Blob(v)
	return err
}

func rbdMetadataList(c *classContext, in *encoding.Decoder, out *encoding.Encoder) error {
	after, limit := in.String(), in.U64()
	if err := c.input(); err != nil {
		return err
	}
	if limit == 0 {
		limit = 64
	}
	keys, pairs := c.list(prefixMetadata+after, prefixMetadata, limit)
	out.U32(uint32(len(keys)))
	for _, k := range keys {
		out.String(strings.TrimPrefix(k, prefixMetadata))
		out.Blob(pairs[k])
	}
	return nil
}

func rbdTrashAdd(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	if err := c.create(false); err != nil {
		return err
	}
	id := in.String()
	spec, err := rbd.DecodeTrashSpec(in.Rest())
	if err != nil || c.input() != nil || !validID(id) {
		return syscall.EINVAL
	}
	if _, err := c.omap(prefixTrash + id); err == nil {
		return syscall.EEXIST
	}
	return c.put(prefixTrash+id, spec.Encode)
}

func rbdTrashStateSet(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	key, state, expect := prefixTrash+in.String(), rbd.TrashState(in.U8()), rbd.TrashState(in.U8())
	if err := c.input(); err != nil {
		return err
	}
	b, err := c.omap(key)
	if err != nil {
		return err
	}
	spec, err := rbd.DecodeTrashSpec(b)
	switch {
	case err != nil:
		return err
	case spec.State == expect:
		spec.State = state
		return c.put(key, spec.Encode)
	case spec.State == state:
		return nil
	}
	return syscall.ESTALE
}
