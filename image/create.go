package image

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph/class"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/journal"
	"github.com/rbdwarden/rbdwarden/rados"
)

// NewID makes an id for a new image: the connection's instance id and a random
// number in hex, at most rbd.MaxImageIDLength digits from the end
// (src/librbd/Utils.cc, generate_image_id).
func NewID(cluster rados.Cluster) string {
	var random [4]byte
	_, _ = rand.Read(random[:]) // never fails
	id := fmt.Sprintf("%x%x", cluster.InstanceID(), binary.LittleEndian.Uint32(random[:]))
	return id[max(0, len(id)-rbd.MaxImageIDLength):]
}

// CreateSpec says what a new non-primary image is like.
type CreateSpec struct {
	ID               string // from NewID; the remote journal's client record names it already
	Name             string
	GlobalID         string // the remote image's global id
	RemoteMirrorUUID string // of the pool that the primary is in

	// The rest is the remote image's.
	Size        uint64 // bytes
	Order       uint8
	Features    rbd.Features
	StripeUnit  uint64
	StripeCount uint64
	// DataPool is the name of the remote image's separate data pool, else empty. It
	// is used if a pool of that name exists here.
	DataPool string
	// Clone is the parent here, nil if the remote image is no clone. Size and share of
	// head and snapshots are those of the sync that follows.
	Clone *CloneOf
}

// striped tells whether the header has a stripe unit and count, also where they change
// nothing: a clone inherits the unit from a parent with smaller objects
// (src/librbd/image/CreateRequest.cc).
func (s CreateSpec) striped() bool {
	return s.StripeUnit != 0 && s.StripeCount != 0 && (s.StripeUnit != 1<<s.Order || s.StripeCount != 1)
}

// ExistsError says that there already is a local copy of the image.
type ExistsError struct {
	ID       string // of the local image
	GlobalID string
	State    mirror.ImageState
}

func (e *ExistsError) Error() string {
	return fmt.Sprintf("image %s is the local copy of %s already (state %v)", e.ID, e.GlobalID, e.State)
}

// localFeatures chooses the features of a local copy as rbd-mirror does
// (src/tools/rbd_mirror/image_replayer/CreateImageRequest.cc,
// src/librbd/image/CreateRequest.cc): the remote's without those that follow from
// something else, and these as they follow here.
func localFeatures(remote rbd.Features, fancy, dataPool bool) rbd.Features {
	f := remote &^ rbd.FeaturesImplicit
	if f.Has(rbd.FeatureObjectMap) {
		f |= rbd.FeatureFastDiff
	}
	if fancy {
		f |= rbd.FeatureStriping
	}
	if dataPool {
		f |= rbd.FeatureDataPool
	}
	return f
}

// Create makes a non-primary image: empty, of the remote's shape, with a journal
// whose first tag belongs to the remote, and a mirror record. AlreadyDone if it was
// made before with the same id; an *ExistsError if there is a local copy with
// another id, a *NameTakenError if another image has the name.
//
// The mirror record comes first, in the state CREATING, and is ENABLED last. So a
// Create that was killed is found by its global id, and the next one removes what
// it left behind and starts afresh; nothing of it was used. A *ParentError says that the
// image is to be a clone of a snapshot that is not there or may not have clones.
//
// Steps, as src/librbd/image/CreateRequest.cc and CloneRequest.cc: directory, id object,
// header, striping, object map, journal, parent, mirror record.
func Create(ctx context.Context, io rados.IOContext, spec CreateSpec) (Outcome, error) {
	out, err := create(ctx, io, spec)
	if err != nil {
		return 0, fmt.Errorf("create image %q (id %s): %w", spec.Name, spec.ID, err)
	}
	return out, nil
}

func create(ctx context.Context, io rados.IOContext, spec CreateSpec) (Outcome, error) {
	if spec.ID == "" || spec.Name == "" || spec.GlobalID == "" || spec.RemoteMirrorUUID == "" {
		return 0, fmt.Errorf("incomplete: %+v: %w", spec, syscall.EINVAL)
	}
	out, err := clearTheWay(ctx, io, spec)
	if err != nil || out == AlreadyDone {
		return out, err
	}
	layout, features, err := localShape(ctx, io, spec)
	if err != nil {
		return 0, err
	}
	creating := mirror.Image{Mode: mirror.ImageJournal, GlobalID: spec.GlobalID, State: mirror.ImageCreating}
	if err := setRecord(ctx, io, spec.ID, creating); err != nil {
		return 0, err
	}
	if err := build(ctx, io, spec, layout, features); err != nil {
		// What is left after this is removed by the next Create.
		if rados.Classify(err) != rados.Permanent {
			return 0, err
		}
		var taken *IDTakenError
		if errors.As(err, &taken) {
			return 0, errors.Join(err, removeRecord(ctx, io, spec.ID, creating))
		}
		if undo := unlinkParent(ctx, io, spec.ID); undo != nil {
			return 0, errors.Join(err, undo)
		}
		return 0, errors.Join(err, removeParts(ctx, io, spec.ID, spec.Name, &creating))
	}
	enabled := creating
	enabled.State = mirror.ImageEnabled
	return Done, setRecord(ctx, io, spec.ID, enabled)
}

// clearTheWay looks for earlier attempts. AlreadyDone: one of them succeeded.
func clearTheWay(ctx context.Context, io rados.IOContext, spec CreateSpec) (Outcome, error) {
	id, err := rados.Ask(ctx, io, rbd.MirroringObject, mirror.ImageGetID(spec.GlobalID))
	if errors.Is(err, syscall.ENOENT) {
		return Done, idIsFree(ctx, io, spec.ID)
	}
	if err != nil {
		return 0, err
	}
	record, err := rados.Ask(ctx, io, rbd.MirroringObject, mirror.ImageGet(id))
	if err != nil {
		return 0, fmt.Errorf("mirror record of image %s: %w", id, err)
	}
	switch {
	case record.State == mirror.ImageEnabled && id == spec.ID:
		return AlreadyDone, nil
	case record.State == mirror.ImageCreating:
		if err := removeHalfMade(ctx, io, id, record); err != nil {
			return 0, fmt.Errorf("remove what is left of image %s: %w", id, err)
		}
		return Done, idIsFree(ctx, io, spec.ID)
	case record.State == mirror.ImageDisabling && idIsFree(ctx, io, id) == nil:
		// The last step of a removal is missing.
		return Done, removeRecord(ctx, io, id, record)
	}
	return 0, &ExistsError{ID: id, GlobalID: spec.GlobalID, State: record.State}
}

// idIsFree is an *IDTakenError if the id has a header.
func idIsFree(ctx context.Context, io rados.IOContext, id string) error {
	var op rados.ReadOp
	op.Stat()
	err := io.Read(ctx, rbd.HeaderObject(id), &op)
	switch {
	case errors.Is(err, syscall.ENOENT):
		return nil
	case err == nil:
		return &IDTakenError{ID: id}
	}
	return err
}

// localShape decides layout and features here. The data pool is, as in rbd-mirror,
// the configured default, else one of the remote's data pool's name if it exists.
func localShape(ctx context.Context, io rados.IOContext, spec CreateSpec) (Layout, rbd.Features, error) {
	l := Layout{Order: spec.Order, StripeUnit: spec.StripeUnit, StripeCount: spec.StripeCount, DataPool: rbd.NoDataPool}
	if err := l.Validate(); err != nil {
		return l, 0, err
	}
	name, err := io.Cluster().Option("rbd_default_data_pool")
	if err != nil {
		return l, 0, fmt.Errorf("option rbd_default_data_pool: %w", err)
	}
	must := name != ""
	if !must {
		name = spec.DataPool
	}
	if name != "" && name != io.Pool().Name {
		pools, err := io.Cluster().Pools(ctx)
		if err != nil {
			return l, 0, fmt.Errorf("list pools: %w", err)
		}
		for _, p := range pools {
			if p.Name == name {
				l.DataPool = p.ID
			}
		}
		if must && l.DataPool == rbd.NoDataPool {
			return l, 0, fmt.Errorf("data pool %q (rbd_default_data_pool) does not exist: %w", name, syscall.ENOENT)
		}
	}
	own := int64(-1)
	if l.DataPool != rbd.NoDataPool {
		own = io.Pool().ID
	}
	l.ObjectPrefix = rbd.ObjectPrefix(spec.ID, own)

	features := localFeatures(spec.Features, spec.striped(), l.DataPool != rbd.NoDataPool)
	switch missing := (rbd.FeatureExclusiveLock | rbd.FeatureJournaling) &^ features; {
	case missing != 0:
		return l, 0, &FeatureError{ImageID: spec.ID, Missing: missing}
	case features&^rbd.FeaturesAll != 0:
		return l, 0, &FeatureError{ImageID: spec.ID, Unknown: features &^ rbd.FeaturesAll}
	case spec.Clone != nil && !features.Has(rbd.FeatureLayering):
		return l, 0, &FeatureError{ImageID: spec.ID, Missing: rbd.FeatureLayering}
	case features.Has(rbd.FeatureObjectMap) && l.ObjectCount(spec.Size) > rbd.MaxObjects:
		return l, 0, fmt.Errorf("%d objects are too many for an object map: %w", l.ObjectCount(spec.Size), syscall.EINVAL)
	}
	return l, features, nil
}

// build makes everything but the mirror record.
func build(ctx context.Context, io rados.IOContext, spec CreateSpec, l Layout, features rbd.Features) error {
	if err := enterDirectory(ctx, io, spec.Name, spec.ID); err != nil {
		return err
	}
	if err := claimName(ctx, io, spec.Name, spec.ID); err != nil {
		return err
	}
	header := rbd.HeaderObject(spec.ID)
	op := new(rados.WriteOp).Create(true).Exec(rbd.Create(spec.Size, l.Order, features, l.ObjectPrefix, l.DataPool))
	if err := io.Write(ctx, header, op); errors.Is(err, syscall.EEXIST) {
		return &IDTakenError{ID: spec.ID}
	} else if err != nil {
		return err
	}
	if spec.striped() {
		if err := rados.Tell(ctx, io, header, rbd.SetStriping(rbd.Striping{Unit: l.StripeUnit, Count: l.StripeCount})); err != nil {
			return err
		}
	}
	if features.Has(rbd.FeatureObjectMap) {
		call := rbd.ObjectMapResize(l.ObjectCount(spec.Size), rbd.ObjectNonexistent)
		if err := rados.Tell(ctx, io, objectMapName(spec.ID), call); err != nil {
			return err
		}
	}
	if err := createJournal(ctx, io, spec.ID, spec.RemoteMirrorUUID); err != nil || spec.Clone == nil {
		return err
	}
	return linkParent(ctx, io, spec.ID, *spec.Clone, func(calls ...class.Call) error {
		return rados.Tell(ctx, io, header, calls...)
	})
}

func enterDirectory(ctx context.Context, io rados.IOContext, name, id string) error {
	op := new(rados.WriteOp)
	if io.Namespace() != "" {
		op.Exec(rbd.DirStateAssert(rbd.DirectoryReady)) // ENOENT: the namespace is not there, or being removed
	}
	err := io.Write(ctx, rbd.DirectoryObject, op.Exec(rbd.DirAddImage(name, id)))
	switch {
	case errors.Is(err, syscall.EBADF):
		return &IDTakenError{ID: id}
	case errors.Is(err, syscall.EEXIST):
		holder, err := rados.Ask(ctx, io, rbd.DirectoryObject, rbd.DirGetID(name))
		if err != nil {
			return err
		}
		return &NameTakenError{Name: name, ID: holder}
	}
	return err
}

// createJournal makes the local journal after this cluster's configuration. Its
// first tag says who is primary: while it is the remote, librbd refuses to write here.
func createJournal(ctx context.Context, io rados.IOContext, id, primary string) error {
	options := journal.CreateOptions{Pool: -1, TagData: wire.TagData{MirrorUUID: primary}}
	for _, o := range []struct {
		name string
		into *uint8
	}{{"rbd_journal_order", &options.Order}, {"rbd_journal_splay_width", &options.SplayWidth}} {
		text, err := io.Cluster().Option(o.name)
		if err != nil {
			return fmt.Errorf("option %s: %w", o.name, err)
		}
		n, err := strconv.ParseUint(text, 10, 8)
		if err != nil {
			return fmt.Errorf("option %s: %w", o.name, err)
		}
		*o.into = uint8(n)
	}
	pool, err := io.Cluster().Option("rbd_journal_pool")
	if err != nil {
		return fmt.Errorf("option rbd_journal_pool: %w", err)
	}
	if pool != "" {
		data, err := io.Cluster().Open(ctx, pool, io.Namespace())
		if err != nil {
			return fmt.Errorf("journal pool %q: %w", pool, err)
		}
		options.Pool = data.Pool().ID
		data.Close()
	}
	return journal.Create(ctx, io, id, options)
}
