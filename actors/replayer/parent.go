package replayer

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	"github.com/rbdwarden/rbdwarden/ceph"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/journal"
	mirrorpool "github.com/rbdwarden/rbdwarden/mirror"
	"github.com/rbdwarden/rbdwarden/rados"
)

// WaitError says that an image cannot go on before another one has.
type WaitError struct {
	For string // what it waits for
	Why string
	// Operator: it does not come by itself.
	Operator bool
	Err      error // may be nil
}

func (e *WaitError) Error() string { return fmt.Sprintf("waiting for %s: %s", e.For, e.Why) }

func (e *WaitError) Unwrap() error { return e.Err }

// remoteParent is the snapshot that the remote image is a clone of.
type remoteParent struct {
	io       rados.IOContext
	id       string
	name     string // pool/namespace/image@snapshot
	globalID string
	snap     image.Snapshot
	snapName string
}

// localParent finds the local copy of the snapshot that the remote image is a clone of,
// by the names of pool and namespace, the parent's global id and the snapshot: ids differ
// from site to site. A *WaitError says what is missing so far. The result's IO has to be
// closed (src/tools/rbd_mirror/image_replayer/CreateImageRequest.cc).
//
// Invariant: a clone is never made of a snapshot whose data are not all here: the parent
// is synced, and a snapshot that is found by its name was not, for all we can tell, made
// before the one on the primary.
func (p *performer) localParent(ctx context.Context, h *image.Header) (image.CloneOf, error) {
	remote, err := p.openRemoteParent(ctx, h)
	if err != nil {
		return image.CloneOf{}, err
	}
	defer remote.io.Close()
	wait := func(format string, args ...any) error {
		return &WaitError{For: "the parent image " + remote.name, Why: fmt.Sprintf(format, args...)}
	}
	io, err := p.Local.IO.Cluster().Open(ctx, remote.io.Pool().Name, remote.io.Namespace())
	if errors.Is(err, syscall.ENOENT) {
		return image.CloneOf{}, wait("there is no pool %q here", remote.io.Pool().Name)
	}
	if err != nil {
		return image.CloneOf{}, err
	}
	local, err := p.findLocalParent(ctx, io, remote, wait)
	if err != nil {
		io.Close()
		return image.CloneOf{}, err
	}
	local.Format = 1
	if h.OpFeatures.Has(rbd.OpFeatureCloneChild) {
		local.Format = 2
	}
	if local.Format == 1 && local.snap.Protection != rbd.Protected {
		io.Close()
		return image.CloneOf{}, wait("its snapshot %q is not protected here yet", local.snap.Name)
	}
	local.Overlap = h.Overlap
	for _, s := range h.Snapshots {
		local.Overlap = max(local.Overlap, s.Overlap)
	}
	return local.CloneOf, nil
}

// openRemoteParent looks at the parent on the primary's side.
func (p *performer) openRemoteParent(ctx context.Context, h *image.Header) (*remoteParent, error) {
	missing := func(err error) error {
		return &image.ParentError{ImageID: h.ID, Parent: h.Parent, NoPool: errors.Is(err, syscall.ENOENT), Err: err}
	}
	io, err := p.Remote.IO.Cluster().OpenID(ctx, h.Parent.Pool, h.Parent.Namespace)
	if err != nil {
		return nil, missing(err)
	}
	r, err := p.readRemoteParent(ctx, io, h.Parent)
	if err != nil {
		io.Close()
		return nil, err
	}
	return r, nil
}

func (p *performer) readRemoteParent(ctx context.Context, io rados.IOContext, parent rbd.ParentSpec) (*remoteParent, error) {
	r := &remoteParent{io: io, id: parent.ImageID, name: io.Pool().Name + "/"}
	if io.Namespace() != "" {
		r.name += io.Namespace() + "/"
	}
	name, err := image.Name(ctx, io, r.id)
	if errors.Is(err, syscall.ENOENT) {
		name, err = "(id "+r.id+")", nil // it is in the trash
	}
	if err != nil {
		return nil, err
	}
	r.name += name
	header, err := image.ReadHeader(ctx, io, r.id)
	if err != nil {
		return nil, fmt.Errorf("parent %s on the remote side: %w", r.name, err)
	}
	snap := header.SnapshotByID(parent.Snap)
	if snap == nil {
		return nil, fmt.Errorf("parent %s on the remote side: snapshot %d: %w", r.name, parent.Snap, syscall.ENOENT)
	}
	r.snap, r.snapName = *snap, snap.Name
	if trash, ok := snap.Namespace.(rbd.TrashSnapshot); ok {
		r.snapName = trash.OriginalName
	}
	r.name += "@" + r.snapName
	record, err := mirrorpool.GetImage(ctx, io, r.id)
	if errors.Is(err, syscall.ENOENT) || err == nil && record.State != mirror.ImageEnabled {
		return nil, &WaitError{
			For: "the parent image " + r.name, Operator: true,
			Why: "it is not mirrored: enable mirroring of it on the primary, or flatten this image there",
		}
	}
	if err != nil {
		return nil, err
	}
	r.globalID = record.GlobalID
	return r, nil
}

// foundParent is a local parent and its snapshot.
type foundParent struct {
	image.CloneOf
	snap *image.Snapshot
}

func (p *performer) findLocalParent(ctx context.Context, io rados.IOContext, remote *remoteParent,
	wait func(string, ...any) error,
) (foundParent, error) {
	none := foundParent{}
	id, record, err := mirrorpool.FindImage(ctx, io, remote.globalID)
	if errors.Is(err, syscall.ENOENT) {
		return none, wait("it is not here yet")
	}
	if err != nil {
		return none, err
	}
	switch record.State {
	case mirror.ImageEnabled:
	case mirror.ImageDisabling:
		return none, wait("its local copy is being removed")
	default:
		return none, wait("it is being created here")
	}
	peer, err := p.parentsPeer(ctx, io, remote)
	if err != nil {
		return none, err
	}
	if peer.registered && peer.meta.State == wire.PeerSyncing {
		r, err := roleOf(ctx, io, id)
		if err != nil && !errors.Is(err, syscall.ENOENT) {
			return none, err
		}
		if err != nil || r.promotion() != core.Primary {
			return none, wait("it is being synced")
		}
	}
	h, err := image.ReadHeader(ctx, io, id)
	if errors.Is(err, syscall.ENOENT) {
		return none, wait("it is being created here")
	}
	if err != nil {
		return none, err
	}
	snap := peer.find(h, remote)
	if _, trashed := remote.snap.Namespace.(rbd.TrashSnapshot); snap == nil && trashed && peer.caughtUp {
		return none, &WaitError{
			For: "the parent image " + remote.name, Operator: true,
			Why: fmt.Sprintf("its snapshot %q was removed before this image was mirrored: flatten this image on the primary", remote.snapName),
		}
	}
	if snap == nil {
		return none, wait("its snapshot %q is not here yet", remote.snapName)
	}
	if !p.trusts(peer, snap, remote) {
		return none, wait("its snapshot %q here is older than the one on the primary: replay has to get there first", snap.Name)
	}
	return foundParent{image.CloneOf{IO: io, ImageID: id, Snap: snap.ID}, snap}, nil
}

// parentsPeer is our site's registration with the journal of the remote parent.
type parentsPeer struct {
	registered bool
	caughtUp   bool // everything that the primary has committed was replayed
	meta       wire.MirrorPeerClientMeta
}

func (p *performer) parentsPeer(ctx context.Context, io rados.IOContext, remote *remoteParent) (parentsPeer, error) {
	uuid, err := rados.Ask(ctx, io, mirror.Object, mirror.GetUUID())
	if err != nil {
		return parentsPeer{}, fmt.Errorf("mirror uuid of pool %q: %w", io.Pool().Name, err)
	}
	j, err := journal.Open(ctx, remote.io, remote.id)
	if err != nil {
		return parentsPeer{}, err
	}
	defer j.Close()
	client, err := j.Client(ctx, uuid)
	if errors.Is(err, syscall.ENOENT) {
		return parentsPeer{}, nil
	}
	if err != nil {
		return parentsPeer{}, err
	}
	primary, err := j.Client(ctx, wire.MasterClientID)
	if err != nil {
		return parentsPeer{}, err
	}
	meta, err := peerMeta(client, j)
	return parentsPeer{registered: true, caughtUp: reaches(client.CommitPosition, primary.CommitPosition), meta: meta}, err
}

// reaches tells whether a client's commit position is not behind the primary's.
func reaches(client, primary wire.ObjectSetPosition) bool {
	want, any := primary.Newest()
	if !any {
		return true
	}
	have, any := client.Newest()
	return any && (have.Tag > want.Tag || have.Tag == want.Tag && have.Entry >= want.Entry)
}

// find finds the local copy of the remote snapshot: by id where the sync has recorded
// it, else by name. A copy that the sync has recorded as another snapshot's is not it.
func (peer parentsPeer) find(local *image.Header, remote *remoteParent) *image.Snapshot {
	if id, ok := peer.meta.SnapSeqs[uint64(remote.snap.ID)]; ok {
		if s := local.SnapshotByID(ceph.SnapID(id)); s != nil && isUser(s) {
			return s
		}
	}
	s := local.Snapshot(rbd.UserSnapshot{}, remote.snapName)
	if s == nil {
		return nil
	}
	for r, l := range peer.meta.SnapSeqs {
		if ceph.SnapID(l) == s.ID && ceph.SnapID(r) != remote.snap.ID {
			return nil
		}
	}
	return s
}

func isUser(s *image.Snapshot) bool {
	return s.Namespace == nil || s.Namespace.Kind() == rbd.SnapshotUser
}

// doubtful is how long a snapshot with the right name is doubted that seems to be older
// than the one on the primary. It is longer than a primary takes to commit what it has
// done (rbd_journal_commit_age, 5 s).
const doubtful = 10 * time.Second

// trusts tells whether the local snapshot is the copy of the remote one. While the parent's
// replay is behind, it may be the copy of one that had the same name before and was
// removed. One that was made later than the remote one cannot be that. The clocks of the
// sites may differ, and after a failover copies are older than their originals: then the
// replay of the parent has to be seen at its end, when the doubt is older than anything
// that the primary has not committed.
func (p *performer) trusts(peer parentsPeer, local *image.Snapshot, remote *remoteParent) bool {
	_, recorded := peer.meta.SnapSeqs[uint64(remote.snap.ID)]
	if recorded || !peer.registered || !local.Timestamp.Before(remote.snap.Timestamp) {
		return true
	}
	if p.doubted.IsZero() {
		p.doubted = time.Now()
	}
	return peer.caughtUp && time.Since(p.doubted) >= doubtful
}
