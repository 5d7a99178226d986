package imagemap

import (
	"context"
	"errors"
	"maps"
	"slices"
	"syscall"

	"github.com/rbdwarden/rbdwarden/rados"
)

// View is a member's copy of the map. It is not safe for use by many goroutines.
type View struct {
	io rados.IOContext
	m  Map
}

// NewView is a view of the map of io's pool and namespace that has not been read yet.
func NewView(io rados.IOContext) *View {
	return &View{io: io, m: Map{Images: map[string]Entry{}}}
}

// Map is what the last Refresh found. The caller must not change it; the next Refresh
// does.
func (v *View) Map() Map { return v.m }

// Refresh brings the view up to date and tells which images' entries are new, changed,
// removed or damaged, in order. While nothing changes it is one small read. After an
// error the view is what it was.
func (v *View) Refresh(ctx context.Context) (changed []string, err error) {
	if v.m.Epoch == 0 { // rbd-mirror does not count its changes
		return v.reread(ctx)
	}
	now, ids, known, err := readEpoch(ctx, v.io, v.m.Epoch)
	switch {
	case errors.Is(err, syscall.ENOENT), err == nil && !known:
		return v.reread(ctx)
	case err != nil || now == v.m.Epoch:
		return nil, err
	}
	values, newest := map[string][]byte{}, now
	for some := range slices.Chunk(ids, page) {
		var op rados.ReadOp
		keys := make([]string, len(some))
		for i, id := range some {
			keys[i] = keyPrefix + id
		}
		got, attrs := op.GetOmap(keys...), op.Xattrs()
		if err := v.io.Read(ctx, Object, &op); err != nil {
			return nil, err
		}
		if newest, err = parseEpoch(v.io, attrs.Pairs); err != nil {
			return nil, err
		}
		maps.Copy(values, got.Pairs)
	}
	for _, id := range ids {
		value, exists := values[keyPrefix+id]
		if v.m.put(id, value, exists, at(v.io)) {
			changed = append(changed, id)
		}
	}
	v.m.Epoch, v.m.Newest = now, newest
	return changed, nil
}

// reread reads everything and finds out what differs.
func (v *View) reread(ctx context.Context) (changed []string, err error) {
	m, err := Read(ctx, v.io)
	if err != nil {
		return nil, err
	}
	changed = differences(v.m, m)
	v.m = m
	return changed, nil
}

// differences are the images whose entries differ, in order.
func differences(a, b Map) []string {
	ids := map[string]bool{}
	for id, e := range a.Images {
		if f, ok := b.Images[id]; !ok || !same(e, f) {
			ids[id] = true
		}
	}
	for id := range b.Images {
		if _, ok := a.Images[id]; !ok {
			ids[id] = true
		}
	}
	for id := range a.Damaged {
		if b.Damaged[id] == nil {
			ids[id] = true
		}
	}
	for id := range b.Damaged {
		if a.Damaged[id] == nil {
			ids[id] = true
		}
	}
	return slices.Sorted(maps.Keys(ids))
}
