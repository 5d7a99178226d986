package mem

import (
	"bytes"
	"slices"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/rados"
)

// transaction is a write operation under way. Checks and class methods read base,
// the object as it was; next is what it becomes.
type transaction struct {
	store *Store
	who   *Client
	base  *object
	next  *object
	began bool // the snapshot context has had its effect
	snaps ceph.SnapContext
	locks *lockCall // the one step that changes locks, done at the end
}

// write performs the operation; the object is replaced only if no step fails.
func (s *Store) write(who *Client, key objectKey, op *rados.WriteOp) error {
	base := s.objects[key]
	if base == nil {
		base = &object{}
	}
	if !base.exists && !slices.ContainsFunc(op.Steps, changes) {
		return syscall.ENOENT // what only looks is a read to the OSD
	}
	t := &transaction{store: s, who: who, base: base, next: base.copy(), snaps: op.SnapContext}
	for i := range op.Steps {
		if err := t.step(&op.Steps[i]); err != nil {
			return err
		}
	}
	if err := t.finishLocks(); err != nil {
		return err
	}
	if t.began {
		t.next.version++
		t.next.head.mtime = s.opt.Now()
	}
	s.put(key, base, t.next)
	return nil
}

// changes says whether a step makes its operation a write. A class method may.
func changes(s rados.WriteStep) bool {
	switch s.Kind {
	case rados.WriteAssertExists, rados.WriteAssertVersion, rados.WriteCmpExt, rados.WriteCmpXattr, rados.WriteCmpOmap:
		return false
	}
	return true
}

// put stores what an operation made of an object.
func (s *Store) put(key objectKey, base, next *object) {
	next.watches = base.watches
	if base.exists && !next.exists {
		next.locks = lockless()
		s.dropWatches(next, syscall.ENOTCONN)
	}
	if next.gone() {
		delete(s.objects, key)
		return
	}
	s.objects[key] = next
}

// mutate is called before a step that changes the object; create says whether the
// step makes an object that does not exist.
func (t *transaction) mutate(create bool) *state {
	if !t.began {
		t.began = true
		t.next.beforeWrite(t.snaps)
	}
	if create && !t.next.exists {
		t.next.exists = true
	}
	return &t.next.head
}

func (t *transaction) write(offset uint64, data []byte) {
	s := t.mutate(true)
	from := min(offset, s.data.size)
	s.data.write(offset, data)
	t.next.changed(from, offset+uint64(len(data))-from)
}

func (t *transaction) writeFull(data []byte) {
	s := t.mutate(true)
	t.next.changed(0, max(s.data.size, uint64(len(data))))
	s.data = pages{}
	s.data.write(0, data)
}

func (t *transaction) truncate(size uint64) {
	if !t.next.exists {
		return
	}
	s := t.mutate(false)
	from, to := min(size, s.data.size), max(size, s.data.size)
	s.data.truncate(size)
	t.next.changed(from, to-from)
}

// zero truncates if it reaches the end of the object, as the OSD does (it turns such
// a step into a truncation), and does nothing beyond it.
func (t *transaction) zero(offset, length uint64) {
	switch size := t.next.head.data.size; {
	case !t.next.exists, offset >= size:
	case offset+length >= size:
		t.truncate(offset)
	default:
		t.mutate(false).data.zero(offset, length)
		t.next.changed(offset, length)
	}
}

func (t *transaction) remove() error {
	if !t.next.exists {
		return syscall.ENOENT
	}
	t.mutate(false)
	t.next.changed(0, t.next.head.data.size)
	t.next.exists = false
	t.next.head = t.next.remains()
	return nil
}

// remains is the head of a removed object. Where there are clones, an OSD keeps it, and
// with it the flag that there is an omap: in an object that is made there again, clearing
// the omap that it has not is a change, and makes a clone (FLAG_WHITEOUT and FLAG_OMAP in
// _delete_oid of src/osd/PrimaryLogPG.cc).
func (o *object) remains() state {
	if len(o.clones) > 0 && o.head.omap != nil {
		return state{omap: map[string][]byte{}}
	}
	return state{}
}

func (t *transaction) setOmap(key string, value []byte) {
	s := t.mutate(true)
	if s.omap == nil {
		s.omap = map[string][]byte{}
	}
	s.omap[key] = slices.Clone(value)
}

func (t *transaction) step(s *rados.WriteStep) error {
	if done, err := t.check(s); done {
		return err
	}
	if done, err := t.dataStep(s); done {
		return err
	}
	switch s.Kind {
	case rados.WriteSetXattr:
		head := t.mutate(true)
		if head.xattrs == nil {
			head.xattrs = map[string][]byte{}
		}
		head.xattrs[s.Name] = slices.Clone(s.Data)
	case rados.WriteRemoveXattr:
		if !t.next.exists {
			return syscall.ENOENT
		}
		delete(t.mutate(false).xattrs, s.Name)
	case rados.WriteOmapSet:
		if head := t.mutate(true); head.omap == nil {
			head.omap = map[string][]byte{}
		}
		for k, v := range s.Pairs {
			t.setOmap(k, v)
		}
	case rados.WriteOmapRemove:
		if !t.next.exists {
			return syscall.ENOENT
		}
		for _, k := range s.Keys {
			delete(t.mutate(false).omap, k)
		}
	case rados.WriteOmapClear:
		if !t.next.exists {
			return syscall.ENOENT
		}
		if t.next.head.omap != nil { // else it is no change, and makes no clone
			t.mutate(false).omap = nil
		}
	case rados.WriteExec:
		_, err := t.exec(s.Call)
		return err
	default:
		return syscall.EOPNOTSUPP
	}
	return nil
}

// check performs the steps that change nothing.
func (t *transaction) check(s *rados.WriteStep) (done bool, err error) {
	switch s.Kind {
	case rados.WriteAssertExists:
		if !t.next.exists {
			return true, syscall.ENOENT
		}
	case rados.WriteAssertVersion:
		return true, versionIs(t.base, s.Offset)
	case rados.WriteCmpExt:
		visible := t.base.head.data.clone()
		visible.truncate(min(visible.size, t.next.head.data.size))
		return true, compareData(&visible, s.Offset, s.Data)
	case rados.WriteCmpXattr:
		if t.absent() {
			return true, syscall.ENOENT
		}
		if !bytes.Equal(t.base.head.xattrs[s.Name], s.Data) {
			return true, syscall.ECANCELED
		}
	case rados.WriteCmpOmap:
		if !t.next.exists {
			return true, syscall.ENOENT
		}
		if !bytes.Equal(t.base.head.omap[s.Name], s.Data) {
			return true, syscall.ECANCELED
		}
	case rados.WriteAllocHint:
		t.mutate(true)
	default:
		return false, nil
	}
	return true, nil
}

// absent says that there is nothing stored to compare with. A removed object that
// has clones is still there, empty.
func (t *transaction) absent() bool { return !t.base.exists && len(t.base.clones) == 0 }

func (t *transaction) dataStep(s *rados.WriteStep) (done bool, err error) {
	switch s.Kind {
	case rados.WriteCreate:
		if s.Exclusive && t.next.exists {
			return true, syscall.EEXIST
		}
		t.mutate(true)
	case rados.WriteData:
		t.write(s.Offset, s.Data)
	case rados.WriteFull:
		t.writeFull(s.Data)
	case rados.WriteSame:
		if len(s.Data) == 0 || s.Length%uint64(len(s.Data)) != 0 {
			return true, syscall.EINVAL
		}
		t.write(s.Offset, bytes.Repeat(s.Data, int(s.Length)/len(s.Data)))
	case rados.WriteAppend:
		t.write(t.next.head.data.size, s.Data)
	case rados.WriteZero:
		t.zero(s.Offset, s.Length)
	case rados.WriteTruncate:
		t.truncate(s.Offset)
	case rados.WriteRemove:
		return true, t.remove()
	case rados.WriteRollback:
		return true, t.rollback(ceph.SnapID(s.Offset))
	default:
		return false, nil
	}
	return true, nil
}

// rollback sets the head to its state at a snapshot.
func (t *transaction) rollback(snap ceph.SnapID) error {
	from, existed := t.base.at(snap)
	switch {
	case !existed && t.next.exists:
		return t.remove()
	case !existed:
		return nil
	case from == &t.base.head:
		t.mutate(false) // nothing to do, but it makes a clone
		return nil
	}
	kept := from.clone()
	head := t.mutate(true)
	same := t.next.unchangedSince(snap)
	for _, x := range whole(head.data.size).minus(same) {
		t.next.changed(x.Offset, x.Length)
	}
	*head = kept
	return nil
}

func versionIs(o *object, v uint64) error {
	switch {
	case !o.exists:
		return syscall.ENOENT
	case v < o.version:
		return syscall.ERANGE
	case v > o.version:
		return syscall.EOVERFLOW
	}
	return nil
}

func compareData(p *pages, offset uint64, want []byte) error {
	got := make([]byte, len(want))
	copy(got, p.read(offset, uint64(len(want))))
	for i := range want {
		if got[i] != want[i] {
			return &rados.MismatchError{Offset: uint64(i)}
		}
	}
	return nil
}
