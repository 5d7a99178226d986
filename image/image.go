package image

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/class"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/ceph/notify"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image/lock"
	"github.com/rbdwarden/rbdwarden/journal"
	"github.com/rbdwarden/rbdwarden/rados"
)

// Ownership is the exclusive lock of an image as the image's writer sees it.
type Ownership interface {
	// Valid tells whether another write may be started.
	Valid() bool
	// AssertLocked makes a write to the header fail unless the lock holds.
	AssertLocked() class.Call
}

// Limits bounds what one Image has under way. The zero value stands for the
// defaults.
type Limits struct {
	Operations int   // data operations at a time; 0: 32
	Bytes      int64 // their payload; 0: 16 MiB. A single operation may be larger
	// Credit bounds their payload together with other images'; nil: nobody else's.
	Credit Credit
}

// Credit is a share of a bound on bytes that several images have in common.
type Credit interface {
	// Take waits for bytes. One that holds nothing must get them in the end.
	Take(ctx context.Context, bytes int64) error
	// Give gives bytes back.
	Give(bytes int64)
}

func (l Limits) withDefaults() Limits {
	if l.Operations == 0 {
		l.Operations = 32
	}
	if l.Bytes == 0 {
		l.Bytes = 16 << 20
	}
	return l
}

// notifyTimeout is how long watchers of the header get to acknowledge that it has
// changed (rbd's watchers do so at once).
const notifyTimeout = 5 * time.Second

// Image is a local image that this process may write, for as long as it holds the
// exclusive lock. Apply and the operations are done one at a time: a second call
// waits. WriteObject and SetObjectMapState may be called by many goroutines.
type Image struct {
	io     rados.IOContext // of the header
	data   rados.IOContext // of the data objects; io itself unless there is a data pool
	owner  Ownership
	limits Limits
	object *objectMap
	lock   *lock.Lock  // the owner, where Open has taken the lock
	unsure atomic.Bool // a write timed out: it may still land

	turn chan struct{} // holds a token while nobody works

	mu     sync.Mutex
	header *Header // replaced as a whole, never changed
	stale  bool    // an operation may have changed the header after header was read
	closed bool

	parentMu   longLock // held while the parent is opened
	parent     *Reader  // of a clone, once it was needed
	parentSpec rbd.ParentSpec
}

// Options are the settings of an Image. The zero value is usable.
type Options struct {
	Lock   lock.Options
	Limits Limits
	// AllowPrimary lets an image be opened whose journal says that it is primary.
	// Nothing that replicates may set it.
	AllowPrimary bool
}

// Open takes the image's exclusive lock and makes it ready to be written: a
// *FeatureError or a *PrimaryError say why it may not be. A clone's parent is opened
// when it is needed first.
func Open(ctx context.Context, io rados.IOContext, id string, opts Options) (*Image, error) {
	// Look before taking the lock from somebody for nothing.
	h, err := ReadHeader(ctx, io, id)
	if err != nil {
		return nil, err
	}
	if err := writable(h); err != nil {
		return nil, err
	}
	l, err := lock.Acquire(ctx, io, id, opts.Lock)
	if err != nil {
		return nil, fmt.Errorf("open image %s: %w", id, err)
	}
	im, err := attach(ctx, io, id, l, opts)
	if err != nil {
		if releaseErr := l.Release(ctx, nil); releaseErr != nil {
			err = errors.Join(err, releaseErr, l.Abandon(ctx))
		}
		return nil, err
	}
	im.lock = l
	return im, nil
}

// ErrUnsure says that a write timed out and may still land, so the exclusive lock may
// not be released: Abandon the image. Whoever takes the lock fences this client first.
var ErrUnsure = fmt.Errorf("a write timed out and may still land: %w", syscall.ETIMEDOUT)

// Close ends the use of the image: it waits for what is under way and gives up the
// object map and the exclusive lock. After an error it may be called again, but for
// ErrUnsure.
func (im *Image) Close(ctx context.Context) error {
	if im.unsure.Load() {
		return fmt.Errorf("close image %s: %w", im.object.id, ErrUnsure)
	}
	if err := im.lock.Release(ctx, im.detach); err != nil {
		return fmt.Errorf("close image %s: %w", im.object.id, err)
	}
	return im.detach(ctx) // a lost lock does not ask for it
}

// Abandon ends the use of the image when Close fails or would take too long: it
// leaves the locks where they are. The next Open over the same connection adopts
// them; anybody else fences this connection first.
func (im *Image) Abandon(ctx context.Context) error {
	im.mu.Lock()
	done := im.closed
	im.closed = true
	im.mu.Unlock()
	err := im.lock.Abandon(ctx)
	select {
	case <-im.turn:
		if !done {
			im.closeData()
		}
		im.turn <- struct{}{}
	default: // still in use: the pool's handle lives as long as the connection
	}
	return err
}

// Lock is the image's exclusive lock, to watch and to ask about. Only Close may
// release it.
func (im *Image) Lock() *lock.Lock { return im.lock }

// attach makes the image ready under a lock that is held already.
func attach(ctx context.Context, io rados.IOContext, id string, owner Ownership, opts Options) (*Image, error) {
	h, err := ReadHeader(ctx, io, id)
	if err != nil {
		return nil, err
	}
	if err := writable(h); err != nil {
		return nil, err
	}
	if !opts.AllowPrimary && h.Features.Has(rbd.FeatureJournaling) {
		if err := checkNonPrimary(ctx, io, id); err != nil {
			return nil, err
		}
	}
	im := &Image{owner: owner, limits: opts.Limits.withDefaults(), header: h, turn: make(chan struct{}, 1)}
	im.turn <- struct{}{}
	io = steady{io, &im.unsure}
	im.io, im.data = io, io
	im.object = &objectMap{io: io, id: id, owned: im.owned, fastDiff: h.Features.Has(rbd.FeatureFastDiff)}
	data, err := openData(ctx, io, h)
	if err != nil {
		return nil, err
	}
	if data != io {
		data = steady{data, &im.unsure}
	}
	im.data = data
	if h.Features.Has(rbd.FeatureObjectMap) {
		if err := im.object.open(ctx, h.Layout.ObjectCount(h.Size), h.Flags); err != nil {
			im.closeData()
			return nil, fmt.Errorf("image %s: %w", id, err)
		}
	}
	return im, nil
}

// openData opens the pool of the data objects: io itself if it is the header's.
func openData(ctx context.Context, io rados.IOContext, h *Header) (rados.IOContext, error) {
	if h.Layout.DataPool < 0 || h.Layout.DataPool == io.Pool().ID {
		return io, nil
	}
	data, err := io.Cluster().OpenID(ctx, h.Layout.DataPool, io.Namespace())
	if err != nil {
		return nil, fmt.Errorf("open data pool %d of image %s: %w", h.Layout.DataPool, h.ID, err)
	}
	return data, nil
}

// checkNonPrimary is a *PrimaryError if the newest tag of the image's journal is
// the local cluster's own (src/librbd/Journal.cc, is_tag_owner). With the exclusive
// lock held nobody can promote the image meanwhile.
func checkNonPrimary(ctx context.Context, io rados.IOContext, id string) error {
	j, err := journal.Open(ctx, io, id)
	if err != nil {
		return fmt.Errorf("who is primary of image %s: %w", id, err)
	}
	defer j.Close()
	tags, err := j.Tags(ctx, wire.MasterClientID, nil)
	if err != nil {
		return fmt.Errorf("who is primary of image %s: %w", id, err)
	}
	if len(tags) == 0 {
		return fmt.Errorf("who is primary of image %s: its journal has no tag: %w", id, syscall.ENOENT)
	}
	data, err := wire.DecodeTagData(tags[len(tags)-1].Data)
	if err != nil {
		return fmt.Errorf("who is primary of image %s: %w", id, err)
	}
	if data.MirrorUUID == wire.LocalMirrorUUID {
		return &PrimaryError{ImageID: id}
	}
	return nil
}

// writable says why this package may not write an image, or nil.
func writable(h *Header) error {
	if unknown := h.Incompatible &^ (rbd.FeaturesAll &^ (rbd.FeatureMigrating | rbd.FeatureNonPrimary)); unknown != 0 {
		return &FeatureError{ImageID: h.ID, Unknown: unknown}
	}
	if missing := rbd.FeatureExclusiveLock &^ h.Features; missing != 0 {
		return &FeatureError{ImageID: h.ID, Missing: missing}
	}
	return nil
}

// Header is what the image's header said when it was last read: at Open, at
// Refresh, and after each operation of this Image. It must not be changed.
func (im *Image) Header() *Header {
	im.mu.Lock()
	defer im.mu.Unlock()
	return im.header
}

// ID is the image's id.
func (im *Image) ID() string { return im.Header().ID }

// Refresh reads the header again, as after a notification that it has changed.
func (im *Image) Refresh(ctx context.Context) error {
	return im.exclusively(ctx, im.refresh)
}

func (im *Image) refresh(ctx context.Context) error {
	h, err := ReadHeader(ctx, im.io, im.object.id)
	if err != nil {
		return err
	}
	im.mu.Lock()
	im.header, im.stale = h, false
	im.mu.Unlock()
	return nil
}

// detach ends the use of the image without giving up the exclusive lock.
func (im *Image) detach(ctx context.Context) error {
	select {
	case <-im.turn:
		defer func() { im.turn <- struct{}{} }()
	case <-ctx.Done():
		return ctx.Err()
	}
	im.mu.Lock()
	done := im.closed
	im.closed = true
	im.mu.Unlock()
	if !done {
		im.closeData()
	}
	return im.object.close(ctx)
}

func (im *Image) closeData() {
	im.closeParent()
	if im.data != im.io {
		im.data.Close()
	}
}

// owned is nil while a write may be started.
func (im *Image) owned() error {
	if !im.owner.Valid() {
		return ErrNotOwner
	}
	return nil
}

// exclusively runs fn when nobody else works on the image. Data must never be
// written under an old header: bytes that belong to a new snapshot would change it.
func (im *Image) exclusively(ctx context.Context, fn func(context.Context) error) error {
	select {
	case <-im.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { im.turn <- struct{}{} }()
	im.mu.Lock()
	closed, stale := im.closed, im.stale
	im.mu.Unlock()
	if closed {
		return ErrClosed
	}
	if stale {
		if err := im.refresh(ctx); err != nil {
			return err
		}
	}
	return fn(ctx)
}

// tellHeader changes the header, if the lock holds at that moment.
func (im *Image) tellHeader(ctx context.Context, calls ...class.Call) error {
	if err := im.owned(); err != nil {
		return err
	}
	im.mu.Lock()
	im.stale = true
	im.mu.Unlock()
	return rados.Tell(ctx, im.io, rbd.HeaderObject(im.object.id), append([]class.Call{im.owner.AssertLocked()}, calls...)...)
}

// operate runs an operation on the header by itself, then reads the header again
// and tells its watchers ("rbd" commands and clients that have the image open).
// Watchers that do not answer are no reason to fail.
func (im *Image) operate(ctx context.Context, what string, fn func(ctx context.Context, h *Header) (Outcome, error)) (Outcome, error) {
	var out Outcome
	err := im.exclusively(ctx, func(ctx context.Context) error {
		var err error
		if out, err = fn(ctx, im.Header()); err == nil && out == AlreadyDone {
			return nil
		}
		// Also after an error: part of it may have been done.
		return errors.Join(err, im.refresh(ctx), im.notifyUpdate(ctx))
	})
	if err != nil {
		return 0, fmt.Errorf("%s of image %s: %w", what, im.object.id, err)
	}
	return out, nil
}

// notifyUpdate tells the header's watchers, of which our own lock's watch is one,
// that it has changed. A watcher that does not answer is no error; nor is an answer
// that does not come, for they read the header sooner or later anyway.
func (im *Image) notifyUpdate(ctx context.Context) error {
	_, err := im.io.Notify(ctx, rbd.HeaderObject(im.object.id), notify.Encode(notify.HeaderUpdate{}), notifyTimeout)
	if err != nil && rados.Classify(err) == rados.Fenced {
		return err
	}
	return nil
}

// Outcome tells what an operation found to do. Replay may run into operations
// that were done before, and goes on.
type Outcome uint8

const (
	// Done says that the operation was carried out.
	Done Outcome = iota + 1
	// AlreadyDone says that the image was in the wanted state.
	AlreadyDone
)

func (o Outcome) String() string {
	switch o {
	case Done:
		return "done"
	case AlreadyDone:
		return "already done"
	}
	return fmt.Sprintf("Outcome(%d)", uint8(o))
}
