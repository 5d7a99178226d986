package mem

import (
	"errors"
	"slices"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	"github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/rados"
)

// method is one method of an object class. in has its input; what it encodes into
// out is its reply.
type method func(c *classContext, in *encoding.Decoder, out *encoding.Encoder) error

// methods has those of all classes but lock, by class and method.
var methods = map[string]map[string]method{
	"journal": journalMethods,
	"rbd":     rbdMethods(),
}

func (t *transaction) exec(call class.Call) ([]byte, error) {
	if call.Class == "lock" {
		return t.execLock(call)
	}
	m, ok := methods[call.Class][call.Method]
	if !ok {
		return nil, syscall.EOPNOTSUPP
	}
	var out encoding.Encoder
	in := encoding.NewDecoder(call.Class+"."+call.Method, call.In)
	c := &classContext{t: t, in: in, raw: call.In}
	err := m(c, in, &out)
	var corrupt *encoding.CorruptError
	if errors.As(err, &corrupt) {
		return nil, syscall.EIO // stored bytes that do not decode
	}
	if err != nil {
		return nil, err
	}
	return append([]byte{}, out.Bytes()...), nil
}

// classContext is what a method can do: see the package's text for what it sees.
type classContext struct {
	t   *transaction
	in  *encoding.Decoder
	raw []byte // the whole input
}

// input is EINVAL if the input was not what the method expects.
func (c *classContext) input() error {
	if c.in.Err() != nil {
		return syscall.EINVAL
	}
	return nil
}

// more says that there is another, optional, input.
func (c *classContext) more() bool { return c.in.Err() == nil && c.in.Remaining() > 0 }

func (c *classContext) now() time.Time { return c.t.store.opt.Now() }

// exists and size follow the operation; all other reads do not.
func (c *classContext) exists() bool {
	if c.t.next != nil {
		return c.t.next.exists
	}
	return c.t.base.exists
}

func (c *classContext) size() (uint64, error) {
	o := c.t.base
	if c.t.next != nil {
		o = c.t.next
	}
	if !o.exists {
		return 0, syscall.ENOENT
	}
	return o.head.data.size, nil
}

func (c *classContext) mustExist() error {
	if !c.exists() {
		return syscall.ENOENT
	}
	return nil
}

func (c *classContext) readAll() []byte {
	size, _ := c.size()
	return c.t.base.head.data.read(0, size)
}

func (c *classContext) omap(key string) ([]byte, error) {
	v, ok := c.t.base.head.omap[key]
	if !ok {
		return nil, syscall.ENOENT
	}
	return v, nil
}

// list gives pairs in order of their keys.
func (c *classContext) list(after, prefix string, limit uint64) (keys []string, pairs map[string][]byte) {
	pairs, _ = listOmap(c.t.base.head.omap, after, prefix, limit)
	return sortedKeys(pairs), pairs
}

// Everything that writes is EPERM in a read operation.
func (c *classContext) writable() error {
	if c.t.next == nil {
		return syscall.EPERM
	}
	return nil
}

func (c *classContext) set(key string, value []byte) error {
	if err := c.writable(); err != nil {
		return err
	}
	c.t.setOmap(key, value)
	return nil
}

// put encodes a value and stores it.
func (c *classContext) put(key string, fn func(e *encoding.Encoder)) error {
	var e encoding.Encoder
	fn(&e)
	return c.set(key, e.Bytes())
}

func (c *classContext) putU64(key string, v uint64) error {
	return c.put(key, func(e *encoding.Encoder) { e.U64(v) })
}

// remove deletes a key: no error if it is not there, ENOENT if the object is not.
func (c *classContext) remove(key string) error {
	if err := c.writable(); err != nil {
		return err
	}
	if !c.exists() {
		return syscall.ENOENT
	}
	delete(c.t.mutate(false).omap, key)
	return nil
}

func (c *classContext) create(exclusive bool) error {
	if err := c.writable(); err != nil {
		return err
	}
	if exclusive && c.exists() {
		return syscall.EEXIST
	}
	c.t.mutate(true)
	return nil
}

func (c *classContext) write(offset uint64, data []byte) error {
	if err := c.writable(); err != nil {
		return err
	}
	c.t.write(offset, slices.Clone(data))
	return nil
}

func (c *classContext) writeFull(data []byte) error {
	if err := c.writable(); err != nil {
		return err
	}
	c.t.writeFull(slices.Clone(data))
	return nil
}

// u64 reads a stored u64.
func (c *classContext) u64(key string) (uint64, error) {
	b, err := c.omap(key)
	if err != nil {
		return 0, err
	}
	d := encoding.NewDecoder(key, b)
	v := d.U64()
	return v, d.Err()
}

// u64Or is u64 with a value for keys that are not there.
func (c *classContext) u64Or(key string, none uint64) (uint64, error) {
	v, err := c.u64(key)
	if errors.Is(err, syscall.ENOENT) {
		return none, nil
	}
	return v, err
}

func (c *classContext) snapSeq() (ceph.SnapID, error) {
	if !c.t.base.exists {
		return 0, syscall.ENOENT
	}
	return c.t.base.seq, nil
}

func (c *classContext) watchers() []rados.Watcher { return c.t.base.watchers() }

func (c *classContext) caller() lock.Caller { return c.t.who.caller() }

func (c *Client) caller() lock.Caller {
	return lock.Caller{Entity: lock.ClientName(c.id), Address: c.address}
}

// lockCall is a step that changes locks.
type lockCall struct {
	call class.Call
}

// execLock performs what only looks at once, and keeps what changes for the end.
func (t *transaction) execLock(call class.Call) ([]byte, error) {
	switch call.Method {
	case "lock", "unlock", "break_lock", "set_cookie":
	default:
		exists := t.base.exists
		if t.next != nil {
			exists = t.next.exists
		}
		if !exists {
			return nil, syscall.ENOENT
		}
		out, _, err := t.base.locks.Call(call.Method, call.In, t.who.caller(), t.store.opt.Now())
		return out, err
	}
	if t.next == nil {
		return nil, syscall.EPERM
	}
	if call.Method != "lock" && !t.next.exists {
		return nil, syscall.ENOENT
	}
	if t.locks != nil {
		return nil, syscall.EOPNOTSUPP
	}
	t.locks = &lockCall{call: call}
	return nil, nil
}

// finishLocks performs the step that changes locks, when nothing else can fail: the
// model of the class cannot take a change back.
func (t *transaction) finishLocks() error {
	if t.locks == nil {
		return nil
	}
	call := t.locks.call
	_, remove, err := t.next.locks.Call(call.Method, call.In, t.who.caller(), t.store.opt.Now())
	if err != nil {
		return err
	}
	if remove {
		return t.remove()
	}
	t.mutate(true)
	return nil
}
