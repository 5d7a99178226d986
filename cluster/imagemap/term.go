package imagemap

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/rados"
)

// ErrNotLeader says that the OSD refused a write because the leader's lock is not held
// any more. The term has ended: whoever holds it must stop deciding.
var ErrNotLeader = errors.New("no longer the leader")

// ErrStale says that the map is not the one that was decided on: an earlier write that
// seemed to have failed has landed. Reload, and decide again.
var ErrStale = errors.New("the image map has changed since it was read")

// Term is the right to write the map, for as long as a lock is held. It is not safe for
// use by many goroutines.
type Term struct {
	io     rados.IOContext
	assert []class.Call
	m      Map
	known  bool // m.Epoch is what the object has, unless a write that failed has landed
}

// Begin starts a term. assert are the calls that fail with EBUSY unless the leader's
// lock on this very object is held (lock.Assert); they go into every write. It reads the
// map in full, and raises the epoch so that every view does, too: what a rbd-mirror
// changed while it led is in no delta.
func Begin(ctx context.Context, io rados.IOContext, assert ...class.Call) (*Term, error) {
	if len(assert) == 0 {
		return nil, errors.New("a term needs the assertion of a lock")
	}
	t := &Term{io: io, assert: assert}
	if err := t.Reload(ctx); err != nil {
		return nil, err
	}
	var list rados.ReadOp
	old := list.ListOmap("", deltaPrefix, 2*deltas)
	if err := io.Read(ctx, Object, &list); err != nil && !errors.Is(err, syscall.ENOENT) {
		return nil, err
	}
	var op rados.WriteOp
	if len(old.Pairs) > 0 {
		op.RemoveOmap(slices.Sorted(maps.Keys(old.Pairs))...)
	}
	if err := t.write(ctx, &op); err != nil {
		return nil, err
	}
	return t, nil
}

// Map is the map as this term's writes have left it. The caller must not change it;
// Write and Reload do.
func (t *Term) Map() Map { return t.m }

// Reload reads the map again, as after an error of Write.
func (t *Term) Reload(ctx context.Context) error {
	m, err := Read(ctx, t.io)
	if err != nil {
		return err
	}
	t.m, t.known = m, true
	return nil
}

// Write enters and removes images. It is split into operations of bounded size, in order
// of the ids, each with the assertion and the epoch compared; those before the one that
// failed have taken effect. What is damaged may be removed, but not set. Each write raises the epoch, also one without changes.
//
// After ErrNotLeader the term is over. After any other error it is not known whether the
// failed operation landed or still will: Reload, and decide again.
func (t *Term) Write(ctx context.Context, set map[string]Entry, remove []string) error {
	ids := slices.Sorted(maps.Keys(set))
	for _, id := range ids {
		if set[id].Owner == "" {
			return fmt.Errorf("image %s is given to nobody", id)
		}
		if err, damaged := t.m.Damaged[id]; damaged {
			return fmt.Errorf("image %s: not written over what is damaged: %w", id, err)
		}
	}
	for _, id := range remove {
		if _, both := set[id]; !both {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return t.write(ctx, t.step(nil, nil))
	}
	for some := range slices.Chunk(ids, page) {
		if err := t.write(ctx, t.step(some, set)); err != nil {
			return err
		}
		for _, id := range some {
			if e, ok := set[id]; ok {
				t.m.Images[id] = e
			} else {
				delete(t.m.Images, id)
				delete(t.m.Damaged, id)
			}
		}
	}
	return nil
}

// step is one operation of a write: the entries of ids that are in set are written, the
// others removed, and the delta says so.
func (t *Term) step(ids []string, set map[string]Entry) *rados.WriteOp {
	next := t.m.Epoch + 1
	pairs := map[string][]byte{next.deltaKey(): encodeDelta(ids)}
	var gone []string
	for _, id := range ids {
		if e, ok := set[id]; ok {
			pairs[keyPrefix+id] = e.encode()
		} else {
			gone = append(gone, keyPrefix+id)
		}
	}
	if next > deltas {
		gone = append(gone, (next - deltas).deltaKey())
	}
	var op rados.WriteOp
	op.SetOmap(pairs)
	if len(gone) > 0 {
		op.RemoveOmap(gone...)
	}
	return &op
}

// write performs changes as one operation: assertion, comparison of the epoch, the
// changes, the next epoch.
func (t *Term) write(ctx context.Context, changes *rados.WriteOp) error {
	if !t.known {
		return fmt.Errorf("%w: an earlier write failed, and the map was not read again", ErrStale)
	}
	var op rados.WriteOp
	for _, call := range t.assert {
		op.Exec(call)
	}
	if t.m.Epoch > 0 {
		op.CmpXattr(epochAttr, t.m.Epoch.bytes())
	}
	op.Steps = append(op.Steps, changes.Steps...)
	op.SetXattr(epochAttr, (t.m.Epoch + 1).bytes())
	err := t.io.Write(ctx, Object, &op)
	switch {
	case err == nil:
		t.m.Epoch++
		t.m.Newest = t.m.Epoch
		return nil
	case errors.Is(err, syscall.EBUSY), errors.Is(err, syscall.ENOENT): // ENOENT: the object is gone, and the lock with it
		err = fmt.Errorf("%w: %w", ErrNotLeader, err)
	case errors.Is(err, syscall.ECANCELED):
		err = fmt.Errorf("%w: %w", ErrStale, err)
	}
	t.known = false
	return err
}
