package imagesync

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/image/compare"
	"github.com/rbdwarden/rbdwarden/rados"
)

// A sync in place makes a copy right again that has anything in it: it keeps the
// snapshots that are what they should be, makes the others anew, and changes of the head
// what differs. Nothing that an earlier attempt has recorded is believed; an attempt that
// follows another finds little left to do, which is what makes it cheap.
//
//	survey: which snapshots are right ─▶ remove the others ─▶ make those that are
//	missing ─▶ each object: head → first missing version → next ... → sync point
//
// A state can be written only as the newest of an object. So what is kept is the longest
// run of the oldest snapshots; one that differs takes all newer ones with it.

// keeper is a local snapshot that may be kept, and its original.
type keeper struct {
	remote, local ceph.SnapID
	size          uint64 // bytes
	// known is the local snapshot's object map; nil if there is none, or nobody
	// believes it. An attempt that was interrupted may have left one that is not filled in.
	known *rbd.ObjectMap
}

// hides tells whether the map denies an object, or a change of it, that there is.
func (k keeper) hides(n image.ObjectNumber, is rbd.ObjectState) bool {
	if k.known == nil || uint64(n) >= k.known.Size() {
		return false
	}
	switch k.known.At(uint64(n)) {
	case rbd.ObjectNonexistent:
		return is != rbd.ObjectNonexistent
	case rbd.ObjectExistsClean:
		return is == rbd.ObjectExists
	}
	return false
}

// keepers lists the remote snapshots before the sync point that have a local one of
// the same name, size and share of a parent, oldest first, up to the first that has none, or one out of
// order.
func keepers(remote, local []image.Snapshot, end ceph.SnapID) []keeper {
	var out []keeper
	for i := range remote {
		s := &remote[i]
		if s.ID >= end || !isUser(s) {
			continue
		}
		var here *image.Snapshot
		for k := range local {
			if isUser(&local[k]) && local[k].Name == s.Name {
				here = &local[k]
			}
		}
		if here == nil || here.ImageSize != s.ImageSize || sharing(here) != sharing(s) || len(out) > 0 && here.ID < out[len(out)-1].local {
			break
		}
		out = append(out, keeper{remote: s.ID, local: here.ID, size: s.ImageSize})
	}
	return out
}

// inPlace is what a sync in place knows of the local image.
type inPlace struct {
	comparer *compare.Comparer
	data     rados.IOContext // local data objects
	layout   image.Layout
	known    *rbd.ObjectMap // of the local head when the sync began; nil: nothing is known
	objects  uint64         // that the local head could have then
	all      []ceph.SnapID  // the local snapshots when the sync began, ascending
	fastDiff bool
	remote   remoteMaps // of the keepers and the sync point
	kept     map[ceph.SnapID]bool
	same     []atomic.Uint64 // a bit an object: the head is as the sync point
	compared atomic.Uint64   // bytes whose checksums were asked for
}

func (p *inPlace) markSame(n uint64) {
	if i := n / 64; i < uint64(len(p.same)) {
		p.same[i].Or(1 << (n % 64))
	}
}

func (p *inPlace) isSame(n uint64) bool {
	i := n / 64
	return i < uint64(len(p.same)) && p.same[i].Load()&(1<<(n%64)) != 0
}

// mayExist is false if the local object is known not to exist in the head.
func (p *inPlace) mayExist(n uint64) bool {
	return p.known == nil || n >= p.known.Size() || p.known.At(n) != rbd.ObjectNonexistent
}

// adopt looks at what there is, keeps what is right, and prepares for the rest.
func (r *transfer) adopt(ctx context.Context, end *image.Snapshot) error {
	h := r.Local.Header()
	p := &inPlace{comparer: compare.New(), data: r.Local.DataPool(), layout: h.Layout, kept: map[ceph.SnapID]bool{}}
	p.objects = max(h.Layout.ObjectCount(h.Size), r.Meta.SyncObjectCount)
	p.fastDiff = h.Features.Has(rbd.FeatureFastDiff)
	r.place = p
	for _, s := range h.Snapshots { // oldest first
		p.all = append(p.all, s.ID)
	}
	var err error
	if r.TrustMap {
		if p.known, err = r.localMap(ctx, h, ceph.NoSnap, h.Flags); err != nil {
			return err
		}
	}
	found := keepers(r.remote.Snapshots, h.Snapshots, end.ID)
	if err := r.loadKeepersMaps(ctx, h, found, end); err != nil {
		return err
	}
	good, err := r.survey(ctx, found, end)
	if err != nil {
		return err
	}
	r.Meta.SnapSeqs = make(map[uint64]uint64, good)
	for _, k := range found[:good] {
		r.Meta.SnapSeqs[uint64(k.remote)] = uint64(k.local)
		p.kept[k.local] = true
	}
	// What no version needs goes by the book; what only older ones need, with their steps.
	need := end.ImageSize
	for _, s := range r.remote.Snapshots {
		if _, kept := r.Meta.SnapSeqs[uint64(s.ID)]; s.ID < end.ID && isUser(&s) && !kept {
			need = max(need, s.ImageSize)
		}
	}
	if h.Size > need {
		if _, err := r.Local.Resize(ctx, need); err != nil {
			return err
		}
	}
	// Recorded with the snapshots, before any object beyond the end can be written.
	r.Meta.SyncObjectCount = max(p.objects, r.remote.Layout.ObjectCount(end.ImageSize))
	for _, s := range r.remote.Snapshots {
		if s.ID <= end.ID {
			r.Meta.SyncObjectCount = max(r.Meta.SyncObjectCount, r.remote.Layout.ObjectCount(s.ImageSize))
		}
	}
	return nil
}

// localMap loads a local object map; nil if nobody believes it.
func (r *transfer) localMap(ctx context.Context, h *image.Header, snap ceph.SnapID, flags rbd.Flags) (*rbd.ObjectMap, error) {
	if !h.Features.Has(rbd.FeatureObjectMap) || flags.Has(rbd.FlagObjectMapInvalid) {
		return nil, nil
	}
	m, err := rados.Ask(ctx, r.LocalPool, rbd.ObjectMapObject(h.ID, snap), rbd.ObjectMapLoad())
	switch {
	case err == nil:
		return m, nil
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.EINVAL), rados.Classify(err) == rados.Corrupt:
		return nil, nil
	}
	return nil, fmt.Errorf("load a local object map: %w", err)
}

// loadKeepersMaps loads the object maps of the keepers, here and there, and that of the
// sync point.
func (r *transfer) loadKeepersMaps(ctx context.Context, h *image.Header, found []keeper, end *image.Snapshot) error {
	if len(found) == 0 {
		return nil
	}
	versions := []version{{remote: end.ID, objects: r.remote.Layout.ObjectCount(end.ImageSize)}}
	for i := range found {
		k := &found[i]
		versions = append(versions, version{remote: k.remote, objects: r.remote.Layout.ObjectCount(k.size)})
		var err error
		if k.known, err = r.localMap(ctx, h, k.local, h.SnapshotByID(k.local).Flags); err != nil {
			return err
		}
	}
	var err error
	r.place.remote, err = loadRemoteMaps(ctx, r.Remote, r.remote, versions)
	return err
}

// unseen tells that no map knows of the object, on either side.
func (p *inPlace) unseen(n uint64, found []keeper) bool {
	if p.remote.mayExist(image.ObjectNumber(n)) || p.mayExist(n) {
		return false
	}
	for _, k := range found {
		if k.known == nil || n < k.known.Size() && k.known.At(n) != rbd.ObjectNonexistent {
			return false
		}
	}
	return true
}

// survey tells how many of the keepers are right, from the oldest on: an object at a
// time, all snapshots of it, so that a state that several share is compared once.
func (r *transfer) survey(ctx context.Context, found []keeper, end *image.Snapshot) (int, error) {
	if len(found) == 0 {
		return 0, nil
	}
	total := r.remote.Layout.ObjectCount(end.ImageSize)
	for _, k := range found {
		total = max(total, r.remote.Layout.ObjectCount(k.size))
	}
	r.place.same = make([]atomic.Uint64, (total+63)/64)
	r.surveyed.Store(0)
	r.toSurvey.Store(total)
	var good atomic.Int64
	good.Store(int64(len(found)))
	var next atomic.Uint64
	group, groupCtx := errgroup.WithContext(ctx)
	for range r.Limits.Objects {
		group.Go(func() error {
			for n := next.Add(1) - 1; n < total && good.Load() > 0; n = next.Add(1) - 1 {
				if err := groupCtx.Err(); err != nil {
					return err
				}
				first, err := r.surveyObject(groupCtx, image.ObjectNumber(n), found[:good.Load()], end)
				if err != nil {
					return &ObjectError{Object: r.remote.Layout.ObjectName(image.ObjectNumber(n)), Err: err}
				}
				for now := good.Load(); int64(first) < now && !good.CompareAndSwap(now, int64(first)); now = good.Load() {
				}
				r.surveyed.Add(1)
			}
			return nil
		})
	}
	finished := make(chan error, 1)
	go func() { finished <- group.Wait() }()
	if err := r.watch(finished); err != nil {
		return 0, err
	}
	return int(good.Load()), nil
}

// surveyObject gives the index of the first keeper whose state of an object is not its
// original's, or their number.
func (r *transfer) surveyObject(ctx context.Context, n image.ObjectNumber, found []keeper, end *image.Snapshot) (int, error) {
	if r.place.unseen(uint64(n), found) {
		r.place.markSame(uint64(n))
		return len(found), nil
	}
	name := r.remote.Layout.ObjectName(n)
	remote, err := listHistory(ctx, r.data, name)
	if err != nil {
		return 0, err
	}
	local, err := listHistory(ctx, r.place.data, r.place.layout.ObjectName(n))
	if err != nil {
		return 0, err
	}
	type pair struct{ remote, local int }
	equal := map[pair]bool{{-1, -1}: true}
	ids := make([]ceph.SnapID, len(found))
	for i, k := range found {
		ids[i] = k.local
	}
	states := mapStates(local, ids, r.place.all, r.place.fastDiff)
	for i, k := range found {
		if uint64(n) >= r.remote.Layout.ObjectCount(k.size) {
			continue
		}
		if k.hides(n, states[i]) {
			return i, nil
		}
		at := pair{remote.at(k.remote), local.at(k.local)}
		if equal[at] {
			continue
		}
		differs, err := r.differences(ctx, n, remote.state(at.remote, k.remote), local.state(at.local, k.local))
		if err != nil {
			return 0, err
		}
		if len(differs) > 0 {
			return i, nil
		}
		equal[at] = true
	}
	if head := (pair{remote.at(end.ID), local.at(ceph.NoSnap)}); uint64(n) < r.remote.Layout.ObjectCount(end.ImageSize) && equal[head] {
		r.place.markSame(uint64(n))
	}
	return len(found), nil
}

// stored is one stored state of an object.
type stored struct {
	snap ceph.SnapID // to read it at
	size uint64      // 0 also if it does not exist
}

// state gives the clone of an index that at has found.
func (h history) state(clone int, snap ceph.SnapID) stored {
	if clone < 0 {
		return stored{snap: snap}
	}
	return stored{snap: snap, size: h.clones[clone].Size}
}

// differences compares an object's states.
func (r *transfer) differences(ctx context.Context, n image.ObjectNumber, remote, local stored) (extentSet, error) {
	r.place.compared.Add(max(remote.size, local.size))
	extents, err := r.place.comparer.Objects(ctx,
		compare.Object{IO: r.data, Name: r.remote.Layout.ObjectName(n), Snap: remote.snap, Size: remote.size},
		compare.Object{IO: r.place.data, Name: r.place.layout.ObjectName(n), Snap: local.snap, Size: local.size})
	return extents, err
}

func listHistory(ctx context.Context, io rados.IOContext, object string) (history, error) {
	var op rados.ReadOp
	snaps := op.ListSnaps()
	err := io.Read(ctx, object, &op)
	if errors.Is(err, syscall.ENOENT) {
		return history{}, nil
	}
	return history{clones: snaps.Clones, seq: snaps.Seq}, err
}

// mapStates tells what the object maps of snapshots, and last of the head, have to say
// of an object with that history: "exists" where its state is the first since a change,
// "clean" where it is that of an older snapshot, too, which only fast-diff knows
// (src/librbd/operation/ObjectMapIterate.cc). all are the image's snapshots, ascending.
func mapStates(h history, snaps, all []ceph.SnapID, fastDiff bool) []rbd.ObjectState {
	since := make(map[int]ceph.SnapID) // the oldest snapshot that has a clone's state
	for _, s := range all {
		if clone := h.at(s); clone >= 0 {
			if _, ok := since[clone]; !ok {
				since[clone] = s
			}
		}
	}
	out := make([]rbd.ObjectState, 0, len(snaps)+1)
	for _, s := range append(snaps[:len(snaps):len(snaps)], ceph.NoSnap) {
		clone := h.at(s)
		first, shared := since[clone]
		switch {
		case clone < 0:
			out = append(out, rbd.ObjectNonexistent)
		case fastDiff && shared && first != s:
			out = append(out, rbd.ObjectExistsClean)
		default:
			out = append(out, rbd.ObjectExists)
		}
	}
	return out
}
