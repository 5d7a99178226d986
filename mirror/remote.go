package mirror

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	cephmirror "github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/rados"
)

// PollInterval is how often rbd-mirror pings a remote pool (RemotePoolPoller.cc). The
// time of the last ping is what "rbd mirror pool info --all" shows there.
const PollInterval = 30 * time.Second

// Remote is what a remote pool says of itself and of us.
type Remote struct {
	// MirrorUUID is the remote pool's. Our journal tags name it as the primary.
	MirrorUUID string
	// PeerUUID is the uuid of the record that the remote pool has of us; "" if it
	// has none that it could receive from. Only snapshot-based mirroring needs it.
	PeerUUID string
}

// ErrNotMirrored says that the remote pool has mirroring disabled.
var ErrNotMirrored = errors.New("mirroring is not enabled on the remote pool")

// PingRemote tells the remote pool that we mirror from it, under our site name and
// our pool's mirror uuid, and asks who it is. A ping that fails is no error as long
// as the questions are answered: the remote's operator may have denied us writing.
// ErrNotMirrored if the pool has no mirror uuid. (src/tools/rbd_mirror/RemotePoolPoller.cc)
func PingRemote(ctx context.Context, remote rados.IOContext, siteName, localMirrorUUID string) (Remote, error) {
	uuid, err := rados.Ask(ctx, remote, cephmirror.Object, cephmirror.GetUUID())
	if errors.Is(err, syscall.ENOENT) || err == nil && uuid == "" {
		return Remote{}, fmt.Errorf("pool %s: %w", remote.Pool().Name, ErrNotMirrored)
	} else if err != nil {
		return Remote{}, err
	}
	pingErr := rados.Tell(ctx, remote, cephmirror.Object, cephmirror.PeerPing(siteName, localMirrorUUID))
	if errors.Is(pingErr, rados.Blocklisted) || ctx.Err() != nil {
		return Remote{}, pingErr
	}
	peers, err := rados.Ask(ctx, remote, cephmirror.Object, cephmirror.PeerList())
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		return Remote{}, errors.Join(err, pingErr)
	}
	return Remote{MirrorUUID: uuid, PeerUUID: MatchPeer(peers, siteName, localMirrorUUID)}, nil
}

// MatchPeer finds the record that peers have of the site, and gives its uuid: by
// mirror uuid, or else the last one of that site name. Records that only send to the
// site do not count.
func MatchPeer(peers []cephmirror.Peer, siteName, mirrorUUID string) string {
	match := ""
	for _, p := range peers {
		switch {
		case !p.Direction.Receives():
		case p.MirrorUUID == mirrorUUID:
			return p.UUID
		case p.SiteName == siteName:
			match = p.UUID
		}
	}
	return match
}
