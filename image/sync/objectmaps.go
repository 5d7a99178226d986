package imagesync

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/rados"
)

// remoteMaps tell which objects no version has, so that the OSDs need not be asked.
type remoteMaps []*rbd.ObjectMap

// loadRemoteMaps loads the object maps of the versions. It gives nil, which knows
// nothing, if any of them cannot be believed.
func loadRemoteMaps(ctx context.Context, io rados.IOContext, h *image.Header, versions []version) (remoteMaps, error) {
	if !h.Features.Has(rbd.FeatureObjectMap) {
		return nil, nil
	}
	var maps remoteMaps
	for _, v := range versions {
		if v.gone {
			continue
		}
		s := h.SnapshotByID(v.remote)
		if s == nil || s.Flags.Has(rbd.FlagObjectMapInvalid) {
			return nil, nil
		}
		object := rbd.ObjectMapObject(h.ID, v.remote)
		m, err := rados.Ask(ctx, io, object, rbd.ObjectMapLoad())
		switch {
		case err == nil && m.Size() >= v.objects:
			maps = append(maps, m)
		case err == nil, errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.EINVAL), rados.Classify(err) == rados.Corrupt:
			// Missing, damaged or too small: the primary's business. Ask the OSDs.
			return nil, nil
		default:
			return nil, fmt.Errorf("load the remote object map: %w", err)
		}
	}
	return maps, nil
}

// mayExist is false if the object exists in no version.
func (m remoteMaps) mayExist(n image.ObjectNumber) bool {
	if m == nil {
		return true
	}
	for _, one := range m {
		if uint64(n) < one.Size() && one.At(uint64(n)) != rbd.ObjectNonexistent {
			return true
		}
	}
	return false
}

// localMaps gathers what the object maps of the local snapshots, and last of the
// head, are to say, so that objects next to each other need one update.
type localMaps struct {
	mu    sync.Mutex    // guards maps: neighbours share a byte
	snaps []ceph.SnapID // by version, then ceph.NoSnap
	maps  []*rbd.ObjectMap
	// clean: the stored maps, the head's apart, say "nonexistent" where nobody has written yet.
	clean bool
}

// expect marks in the head's stored map, before any of them is written, the objects in [from, to) that may come: a copy that
// ends half-way is then removed whole, by anybody who believes the map. What they are in the end, store says.
func (m *localMaps) expect(ctx context.Context, local Local, remote remoteMaps, from, to uint64) error {
	if m == nil {
		return nil
	}
	may := func(n uint64) bool { return remote.mayExist(image.ObjectNumber(n)) }
	for start := from; start < to; {
		stop := start + 1
		for stop < to && may(stop) == may(start) {
			stop++
		}
		if may(start) {
			if err := local.SetObjectMapState(ctx, ceph.NoSnap, image.ObjectNumber(start), image.ObjectNumber(stop), rbd.ObjectExists); err != nil {
				return fmt.Errorf("mark the objects to be copied: %w", err)
			}
		}
		start = stop
	}
	return nil
}

// newLocalMaps returns nil if the local image has no object map.
func newLocalMaps(h *image.Header, versions []version, objects uint64, clean bool) *localMaps {
	if !h.Features.Has(rbd.FeatureObjectMap) || objects > rbd.MaxObjects {
		return nil
	}
	m := &localMaps{clean: clean}
	for _, v := range versions {
		m.snaps = append(m.snaps, v.local)
		m.maps = append(m.maps, rbd.NewObjectMap(objects))
	}
	m.snaps = append(m.snaps, ceph.NoSnap)
	m.maps = append(m.maps, rbd.NewObjectMap(objects))
	return m
}

// set notes the states of an object: exists as in its plan, written the versions in
// which the copy has changed it. With fast-diff, "exists" means changed since the
// snapshot before, and the head is as the last snapshot.
func (m *localMaps) set(n image.ObjectNumber, exists, written []bool, fastDiff bool) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range exists {
		if exists[i] {
			state := rbd.ObjectExists
			if fastDiff && !written[i] {
				state = rbd.ObjectExistsClean
			}
			m.maps[i].Set(uint64(n), state)
		}
	}
	if last := len(exists) - 1; exists[last] {
		state := rbd.ObjectExists
		if fastDiff {
			state = rbd.ObjectExistsClean
		}
		m.maps[last+1].Set(uint64(n), state)
	}
}

// setAll notes the states of an object by version, and last that of the head.
func (m *localMaps) setAll(n image.ObjectNumber, states []rbd.ObjectState) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, state := range states {
		m.maps[i].Set(uint64(n), state)
	}
}

// resume takes over what the stored map of the sync point, the last version, says of
// the objects below start, which an earlier attempt has copied, and makes the head's
// map say the same: rbd-mirror leaves that for the end. It is false if the stored map
// cannot be used.
func (m *localMaps) resume(ctx context.Context, io rados.IOContext, local Local, start uint64, fastDiff bool) (bool, error) {
	if m == nil || start == 0 {
		return true, nil
	}
	h := local.Header()
	last := len(m.maps) - 2
	stored, err := rados.Ask(ctx, io, rbd.ObjectMapObject(h.ID, m.snaps[last]), rbd.ObjectMapLoad())
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.EINVAL), err != nil && rados.Classify(err) == rados.Corrupt:
		return false, nil
	case err != nil:
		return false, fmt.Errorf("load the sync point's object map: %w", err)
	}
	head := &localMaps{snaps: m.snaps[last+1:], maps: m.maps[last+1:]}
	for n := range min(start, stored.Size()) {
		if stored.At(n) == rbd.ObjectNonexistent {
			continue
		}
		state := rbd.ObjectExists
		if fastDiff {
			state = rbd.ObjectExistsClean
		}
		head.maps[0].Set(n, state)
	}
	return true, head.store(ctx, local, 0, start)
}

// store writes the states of objects [from, to), which nobody sets any more.
func (m *localMaps) store(ctx context.Context, local Local, from, to uint64) error {
	if m == nil {
		return nil
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for i, snap := range m.snaps {
		for start := from; start < to; {
			stop, state := m.same(i, start, to)
			if state != rbd.ObjectNonexistent || !m.clean || snap == ceph.NoSnap {
				first, last := image.ObjectNumber(start), image.ObjectNumber(stop)
				group.Go(func() error { return local.SetObjectMapState(ctx, snap, first, last, state) })
			}
			start = stop
		}
	}
	return group.Wait()
}

// same finds how far, up to limit, the objects from start on have one state in a map.
func (m *localMaps) same(index int, start, limit uint64) (stop uint64, state rbd.ObjectState) {
	m.mu.Lock()
	defer m.mu.Unlock()
	one := m.maps[index]
	state = one.At(start)
	for stop = start + 1; stop < limit && one.At(stop) == state; stop++ {
	}
	return stop, state
}
