package imagesync

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/rados"
)

// Local is what the sync does to the local image: *image.Image.
type Local interface {
	Header() *image.Header
	SnapCreateWithSize(ctx context.Context, ns rbd.SnapshotNamespace, name string, size uint64, share image.Sharing) (ceph.SnapID, image.Outcome, error)
	SnapRemove(ctx context.Context, ns rbd.SnapshotNamespace, name string) (image.Outcome, error)
	SnapRename(ctx context.Context, from, to string) (image.Outcome, error)
	SnapProtect(ctx context.Context, ns rbd.SnapshotNamespace, name string) (image.Outcome, error)
	SnapUnprotect(ctx context.Context, ns rbd.SnapshotNamespace, name string) (image.Outcome, error)
	SetHead(ctx context.Context, size uint64, share image.Sharing) (image.Outcome, error)
	AttachParent(ctx context.Context, c image.CloneOf) (image.Outcome, error)
	WriteObject(ctx context.Context, n image.ObjectNumber, op *rados.WriteOp) error
	SetObjectMapState(ctx context.Context, snap ceph.SnapID, start, end image.ObjectNumber, state rbd.ObjectState) error
	MetadataSet(ctx context.Context, key string, value []byte) (image.Outcome, error)
	MetadataRemove(ctx context.Context, key string) (image.Outcome, error)
	SnapSetLimit(ctx context.Context, limit uint64) (image.Outcome, error)
	UpdateFeatures(ctx context.Context, features rbd.Features, on bool) (image.Outcome, error)

	// What only a sync in place needs.
	Resize(ctx context.Context, size uint64) (image.Outcome, error)
	DataPool() rados.IOContext
}

var _ Local = (*image.Image)(nil)

// Snapshots makes and removes snapshots of the remote image: package rados/librbd on
// real clusters.
type Snapshots interface {
	// Create is EEXIST if there is a snapshot of that name.
	Create(ctx context.Context, name string) error
	// Remove is ENOENT if there is none.
	Remove(ctx context.Context, name string) error
}

// Job is one image's sync. Run may be called again with the last record that Save
// has stored, after any error and after a crash at any moment.
type Job struct {
	Remote    rados.IOContext // the pool and namespace of the remote image's header
	RemoteID  string          // the remote image's id
	Snapshots Snapshots       // of the remote image
	Local     Local           // open, not primary; its exclusive lock is ours
	LocalPool rados.IOContext // the pool and namespace of the local image's header
	// Parent finds the local parent of a clone, for the case that the local image has
	// lost it. It may be nil if the remote image is no clone.
	Parent func(ctx context.Context) (image.CloneOf, error)

	MirrorUUID string // of the local pool: names our sync points
	// Meta is our client record in the remote journal.
	Meta wire.MirrorPeerClientMeta
	// Save stores a changed record. It is called by one goroutine at a time.
	Save func(ctx context.Context, meta wire.MirrorPeerClientMeta) error
	// Copied, if not nil, hears that the local image has everything up to a sync point,
	// while the sync point still is on record: what it does is done again after a crash.
	// It gives the record's Covered, which is saved as the sync point goes.
	Copied func(ctx context.Context, point wire.SyncPoint) (covered wire.Covered, err error)

	// InPlace keeps what is right of a local image that may have anything in it (see
	// doc.go). Meta must then say that nothing is known: no SnapSeqs, and no objects of
	// a sync point.
	InPlace bool
	// TrustMap, in place, says that the local head's object map denies no object that
	// there is: so it is unless a sync was interrupted, which writes the maps behind
	// the data.
	TrustMap bool

	Limits Limits
	// Checkpoint is the time between two records of how far the copy is
	// (rbd_mirror_sync_point_update_age). 0: 30 s.
	Checkpoint time.Duration
	// Progress, if not nil, hears about once a second how far the copy is.
	Progress func(Progress)
}

// Limits bounds what one sync has under way.
type Limits struct {
	Objects int   // at a time (rbd_concurrent_management_ops); 0: 10
	Bytes   int64 // of their data; 0: 64 MiB. A single object may be larger
	// Credit bounds their data together with other images'; nil: nobody else's.
	Credit image.Credit
	// Pace bounds the bytes a second that are read; nil: nothing does.
	Pace Pace
}

// Pace slows reading down. Whoever is to read takes what it expects, which may wait, and
// corrects that when it knows what it was.
type Pace interface {
	Take(ctx context.Context, bytes int64) error
	Correct(by int64)
}

func (l Limits) withDefaults() Limits {
	if l.Objects <= 0 {
		l.Objects = 10
	}
	if l.Bytes <= 0 {
		l.Bytes = 64 << 20
	}
	return l
}

// Progress is how far a sync is.
type Progress struct {
	ObjectsDone  uint64 // includes those that were done before a restart
	ObjectsTotal uint64
	BytesRead    uint64 // since Run began
	BytesWritten uint64
	// BytesCompared, in place, counts bytes that were compared by checksums.
	BytesCompared uint64
}

// Run copies the image and returns the record that it has stored last: in the state
// "replaying" when it returns nil.
func Run(ctx context.Context, job Job) (wire.MirrorPeerClientMeta, error) {
	job.Limits = job.Limits.withDefaults()
	if job.Checkpoint <= 0 {
		job.Checkpoint = 30 * time.Second
	}
	if job.Progress == nil {
		job.Progress = func(Progress) {}
	}
	r := &transfer{Job: job}
	r.Meta.SnapSeqs = maps.Clone(r.Meta.SnapSeqs)
	r.Meta.SyncPoints = slices.Clone(r.Meta.SyncPoints)
	if err := r.run(ctx); err != nil {
		return r.Meta, fmt.Errorf("sync image %s from %s: %w", r.Local.Header().ID, r.RemoteID, err)
	}
	return r.Meta, nil
}

// transfer is a Job under way. Its Meta is what was saved last.
type transfer struct {
	Job
	remote *image.Header
	before *image.Header   // the remote image right before the sync point; nil: an earlier run made that
	data   rados.IOContext // the remote data objects'

	place              *inPlace // nil: a first copy
	surveyed, toSurvey atomic.Uint64
}

func (r *transfer) run(ctx context.Context) error {
	if err := r.readRemote(ctx); err != nil {
		return err
	}
	if err := r.checkLayout(); err != nil {
		return err
	}
	if err := r.openData(ctx); err != nil {
		return err
	}
	if r.data != r.Remote {
		defer r.data.Close()
	}
	if err := r.pruneBefore(ctx); err != nil {
		return err
	}
	for {
		if len(r.Meta.SyncPoints) == 0 {
			if err := r.createSyncPoint(ctx); err != nil {
				return err
			}
		}
		if err := r.copy(ctx); errors.Is(err, errUnclear) {
			if err := r.dropSyncPoint(ctx); err != nil {
				return err
			}
			continue
		} else if err != nil {
			return err
		}
		if r.Copied != nil {
			covered, err := r.Copied(ctx, r.Meta.SyncPoints[0])
			if err != nil {
				return err
			}
			r.Meta.Covered = covered
		}
		if err := r.forgetVanished(ctx); err != nil {
			return err
		}
		if err := r.pruneAfter(ctx); err != nil {
			return err
		}
		if len(r.Meta.SyncPoints) == 0 {
			return nil
		}
	}
}

func (r *transfer) readRemote(ctx context.Context) error {
	h, err := image.ReadHeader(ctx, r.Remote, r.RemoteID)
	if err != nil {
		return err
	}
	r.remote = h
	return nil
}

func (r *transfer) checkLayout() error {
	describe := func(l image.Layout) string {
		if !l.Fancy() {
			return fmt.Sprintf("objects of %d bytes", l.ObjectSize())
		}
		return fmt.Sprintf("objects of %d bytes in stripes of %d over %d", l.ObjectSize(), l.StripeUnit, l.StripeCount)
	}
	local, remote := describe(r.Local.Header().Layout), describe(r.remote.Layout)
	if local != remote {
		return &LayoutError{Local: local, Remote: remote}
	}
	return nil
}

func (r *transfer) openData(ctx context.Context) error {
	pool := r.remote.Layout.DataPool
	if pool < 0 || pool == r.Remote.Pool().ID {
		r.data = r.Remote
		return nil
	}
	data, err := r.Remote.Cluster().OpenID(ctx, pool, r.Remote.Namespace())
	if err != nil {
		return fmt.Errorf("open data pool of the remote image: %w", err)
	}
	r.data = data
	return nil
}

// save stores the record.
func (r *transfer) save(ctx context.Context, meta wire.MirrorPeerClientMeta) error {
	for _, p := range meta.SyncPoints {
		if p.ObjectNumber != nil {
			meta.SyncObjectCount = max(meta.SyncObjectCount, *p.ObjectNumber+1)
		}
	}
	if err := r.Save(ctx, meta); err != nil {
		err = fmt.Errorf("store the sync point: %w", err)
		if errors.Is(err, syscall.ENOENT) { // our client is gone
			err = errors.Join(err, r.abandon(ctx))
		}
		return err
	}
	r.Meta = meta
	return nil
}

// copy copies everything up to the first sync point.
func (r *transfer) copy(ctx context.Context) error {
	point := r.Meta.SyncPoints[0]
	if err := r.readRemote(ctx); err != nil {
		return err
	}
	end := r.remote.Snapshot(rbd.UserSnapshot{}, point.SnapName)
	if end == nil {
		return &SyncPointError{Name: point.SnapName}
	}
	if r.unclear(end) {
		return errUnclear
	}
	// A local image without snapshots of ours has no data of ours either: the
	// snapshots are recorded before the first object is copied.
	fresh := !r.InPlace && len(r.Meta.SnapSeqs) == 0 && len(r.Local.Header().Snapshots) == 0
	if err := r.copyFeatures(ctx); err != nil {
		return err
	}
	// It counts sync points, too, so it comes last.
	if _, err := r.Local.SnapSetLimit(ctx, rbd.NoSnapshotLimit); err != nil {
		return err
	}
	if r.InPlace {
		if err := r.adopt(ctx, end); err != nil {
			return err
		}
	}
	if err := r.copySnapshots(ctx, end.ID); err != nil {
		return err
	}
	if err := r.setHead(ctx, end); err != nil {
		return err
	}
	if err := newCopier(r, end, fresh).copyAll(ctx); err != nil {
		return err
	}
	return r.copySettings(ctx)
}

// changeable are the features that an image can get or lose while it is mirrored.
const changeable = rbd.FeatureObjectMap | rbd.FeatureFastDiff

// copyFeatures catches up with features that changed on the remote since the local image
// was created: their events lie before the sync point, and are not replayed.
func (r *transfer) copyFeatures(ctx context.Context) error {
	here, there := r.Local.Header().Features, r.remote.Features
	if gone := here &^ there & (changeable | rbd.FeaturesDisableOnly); gone != 0 {
		if _, err := r.Local.UpdateFeatures(ctx, gone, false); err != nil {
			return err
		}
	}
	if added := there &^ here & changeable; added != 0 {
		if _, err := r.Local.UpdateFeatures(ctx, added, true); err != nil {
			return err
		}
	}
	return nil
}

// setHead makes the head like the local copy of the sync point. On a resumed sync that
// may differ from the sync point: the remote image was flattened meanwhile, with its
// snapshots. What was copied before that needs the parent, until the flatten is replayed.
func (r *transfer) setHead(ctx context.Context, end *image.Snapshot) error {
	local := byID(r.Local.Header().Snapshots, ceph.SnapID(r.Meta.SnapSeqs[uint64(end.ID)]))
	if local == nil {
		return fmt.Errorf("snapshot %d has no local copy", end.ID) // cannot be: it was just made or found
	}
	_, err := r.Local.SetHead(ctx, end.ImageSize, sharing(local))
	return err
}

// copySettings brings metadata and snapshot limit over, as they are now: the journal has
// what changes later. (src/librbd/deep_copy/MetadataCopyRequest.cc leaves the limit out,
// and what only the local image has.)
func (r *transfer) copySettings(ctx context.Context) error {
	for _, key := range slices.Sorted(maps.Keys(r.remote.Metadata)) {
		if _, err := r.Local.MetadataSet(ctx, key, r.remote.Metadata[key]); err != nil {
			return err
		}
	}
	for key := range r.Local.Header().Metadata {
		if _, there := r.remote.Metadata[key]; !there {
			if _, err := r.Local.MetadataRemove(ctx, key); err != nil {
				return err
			}
		}
	}
	_, err := r.Local.SnapSetLimit(ctx, r.remote.SnapLimit)
	return err
}

// checkSyncPoint fails if the sync point is gone: its clones may be, too, and then an
// object that has vanished looks like one that never was. A removal takes the
// snapshot out of the user's namespace before it frees anything
// (src/librbd/operation/SnapshotRemoveRequest.cc).
func (r *transfer) checkSyncPoint(ctx context.Context, id ceph.SnapID, name string) error {
	info, err := rados.Ask(ctx, r.Remote, rbd.HeaderObject(r.RemoteID), rbd.SnapshotGet(id))
	if errors.Is(err, syscall.ENOENT) {
		return &SyncPointError{Name: name}
	}
	if err != nil {
		return err
	}
	if info.Name != name || info.Namespace.Kind() != rbd.SnapshotUser {
		return &SyncPointError{Name: name}
	}
	return nil
}
