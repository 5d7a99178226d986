package main

import (
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/actors/pool"
	"github.com/rbdwarden/rbdwarden/actors/replayer"
	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	"github.com/rbdwarden/rbdwarden/actors/site"
	cephmirror "github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/cluster/identity"
	"github.com/rbdwarden/rbdwarden/cluster/placement"
	"github.com/rbdwarden/rbdwarden/config"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/image/lock"
	imagesync "github.com/rbdwarden/rbdwarden/image/sync"
	"github.com/rbdwarden/rbdwarden/journal"
	"github.com/rbdwarden/rbdwarden/messages"
	mirrorpool "github.com/rbdwarden/rbdwarden/mirror"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/librados"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/supervision"
)

// wiring gives the actors of a worker what they work with: real clusters, the options,
// and the bounds that all images share.
type wiring struct {
	cfg     config.Config
	options config.Options
	local   *librados.Cluster
	socket  string // admin socket of that connection, "" if it has none
	self    identity.Identity
	past    messages.Past // what became of the workers before this one
	tracer  *tracer
	ledger  *supervision.Ledger // ends of images and pools, and of the workers before this one
	jury    *jury
	left    replayer.Leftovers
	inject  *injection
	log     zerolog.Logger

	budgets    *budgets
	limits     *limits        // on bytes a second
	syncs      *syncSlots     // rbd_mirror_concurrent_image_syncs
	deletions  *slots         // rbd_mirror_concurrent_image_deletions
	meter      replayer.Meter // what all images have replayed
	background sync.WaitGroup // parts in pools
	registered bool           // in the service map; only service uses it
	host       string
	seat       string // see membership.Member
	index      int    // of this worker
	placement  placement.Options
	network    *network // to the site's other workers; nil: there is none

	mu      sync.Mutex
	parties map[int64]*party // newest part in each pool
	drained string           // who has told this worker to give its images away; "" if nobody did
}

// memberID is this worker's name among the members.
func (w *wiring) memberID() string { return strconv.FormatUint(w.local.InstanceID(), 10) }

// How often the actors look, where Ceph has no option for it.
const (
	serviceInterval = 5 * time.Second
	lookTimeout     = 60 * time.Second // longer than the clusters' operation timeouts
	closeTimeout    = 10 * time.Second
	commitInterval  = time.Second
	// watchTimeout is how long the OSDs keep the watch of a silent owner of an image,
	// and so how long its images wait when its host dies. librados pings every 5 s.
	watchTimeout = 15 * time.Second
)

func (w *wiring) site(ready func(), end func(error)) site.Options {
	return site.Options{
		Find: w.find, Join: w.join, NewPool: w.pool, Service: w.service, Ready: ready, Fenced: end,
		Halts: w.cfg.Halts, Ledger: w.ledger, InstanceID: w.local.InstanceID(), Refresh: w.options.PoolReplayersRefreshInterval, Publish: serviceInterval,
		Timeout: lookTimeout, Log: w.log,
	}
}

func (w *wiring) find(ctx context.Context) ([]site.Found, error) {
	pools, err := mirrorpool.FindPools(ctx, w.local)
	if err != nil {
		if class := rados.Classify(err); class == rados.Transient {
			w.jury.Tell(supervision.Failed{When: time.Now(), Who: supervision.Worker, Class: class.String(), Text: report.OneLine(err.Error())})
		}
		return nil, err
	}
	w.jury.Tell(supervision.Worked{When: time.Now(), Who: supervision.Worker})
	found := make([]site.Found, 0, len(pools))
	for _, p := range pools {
		f := site.Found{FoundPool: p}
		if f.Err == nil {
			f.Namespaces, f.Err = mirrorpool.MirroredNamespaces(ctx, w.local, p.Pool.Pool.ID)
		}
		found = append(found, f)
	}
	return found, nil
}

// service registers the daemon once, then updates its status.
func (w *wiring) service(ctx context.Context, pools map[int64]mirrorpool.ServicePool) error {
	if !w.registered {
		id, metadata := mirrorpool.ServiceMetadata(w.cfg.Entity.ID, w.local.InstanceID())
		if host, err := os.Hostname(); err == nil {
			metadata["hostname"] = host
		}
		metadata["rbd_warden_version"] = version
		if err := w.local.RegisterService(ctx, mirrorpool.ServiceName, id, metadata); err != nil {
			return err
		}
		w.registered = true
	}
	w.calloutDrain(pools)
	return w.local.UpdateService(ctx, mirrorpool.ServiceStatus(pools))
}

// pool makes the options of the actor of one pool and namespace with one peer.
func (w *wiring) pool(ctx context.Context, found mirrorpool.Pool, namespace string, peer cephmirror.Peer) (pool.Options, error) {
	io, err := w.local.OpenID(ctx, found.Pool.ID, namespace)
	if err != nil {
		return pool.Options{}, err
	}
	site, err := mirrorpool.SiteName(ctx, w.local)
	if err != nil {
		w.log.Warn().Err(err).Msg("cannot read the site's name")
	}
	here, err := mirrorpool.ReadPool(ctx, io)
	if err != nil {
		io.Close()
		return pool.Options{}, err
	}
	uuid := found.MirrorUUID // the default namespace's, which names the pool to its peers
	key := messages.PoolKey{Pool: found.Pool.Name, PoolID: found.Pool.ID, Namespace: namespace}
	log := w.log.With().Stringer("pool", key).Logger()
	trash := w.trash(io, log)
	local := replayer.Site{IO: io, MirrorUUID: uuid}
	follow, unfollow := context.WithCancel(context.WithoutCancel(ctx))
	var following sync.WaitGroup
	following.Go(func() { w.followPool(follow, io, log) })
	return pool.Options{
		Key:    key,
		Peer:   report.Peer{UUID: peer.UUID, Site: peer.SiteName, Client: peer.ClientName},
		Local:  local,
		Status: newStatusSink(io, cephmirror.LocalUUID, log),
		Connect: func(ctx context.Context) (*pool.Remote, error) {
			return w.connectPeer(ctx, found, remoteNamespace(here, namespace), peer, site, log)
		},
		List: func(ctx context.Context, io rados.IOContext) ([]string, error) {
			var ids []string
			err := mirrorpool.ListImages(ctx, io, func(_, globalID string) bool {
				ids = append(ids, globalID)
				return true
			})
			return ids, err
		},
		Alone: func(ctx context.Context, err error, since time.Time, attempts int, next time.Time) ([]report.Image, error) {
			return replayer.Alone(ctx, io, key.String(), replayer.Absence{
				Here: site, There: peer.SiteName, Err: err, Since: since, Attempts: attempts, Next: next,
			})
		},
		Watch: watchMirroring,
		NewImage: func(key messages.ImageKey, remote *pool.Remote, halt config.Halt, past messages.Past) actor.Actor {
			return w.image(key, names{here: site, there: peer.SiteName}, local, remote, halt, past, func() { w.trashed(found.Pool.ID) }, log)
		},
		Trash:    trash,
		Refresh:  w.options.PoolReplayersRefreshInterval,
		Timeout:  lookTimeout,
		Strategy: strategyOf(w.options.Warden),
		Past:     w.past,
		Ledger:   w.ledger,
		Release: func() {
			unfollow()
			following.Wait()
			io.Close()
		},
		Log: log,
	}, nil
}

func remoteNamespace(here mirrorpool.Pool, namespace string) string {
	if here.RemoteNamespace != "" {
		return here.RemoteNamespace
	}
	return namespace
}

// connectPeer connects to a peer's cluster and asks its pool who it is.
func (w *wiring) connectPeer(ctx context.Context, found mirrorpool.Pool, namespace string, peer cephmirror.Peer,
	site string, log zerolog.Logger,
) (*pool.Remote, error) {
	c, err := dialPeer(ctx, w.local, found.Pool.ID, peer, librarySocket(w.cfg.Process), w.options)
	if err != nil {
		return nil, err
	}
	io, err := c.Open(ctx, found.Pool.Name, namespace)
	if err != nil {
		c.Close()
		return nil, &pool.ConnectError{Words: pool.NoRemotePool, Level: report.LevelWarning, Err: err}
	}
	who, err := pingPeer(ctx, c, io, found, site)
	if err != nil {
		io.Close()
		c.Close()
		return nil, &pool.ConnectError{Words: pool.NoRemotePoller, Level: report.LevelError, Err: err}
	}
	var away atomic.Pointer[error]
	ping, stop := context.WithCancel(context.Background())
	changed := make(chan struct{})
	go func() {
		for {
			select {
			case <-ping.Done():
				return
			case <-time.After(mirrorpool.PollInterval):
				now, err := pingPeer(ping, c, io, found, site)
				switch {
				case ping.Err() != nil:
				case err != nil:
					log.Warn().Err(err).Msg("cannot ping the peer")
				case now.MirrorUUID != who.MirrorUUID:
					log.Warn().Str("was", who.MirrorUUID).Str("is", now.MirrorUUID).Msg("mirroring of the peer's pool was set up anew")
					close(changed)
					return
				}
				away.Store(&err)
			}
		}
	}()
	return &pool.Remote{
		Site:   replayer.Site{IO: io, MirrorUUID: who.MirrorUUID},
		Status: newStatusSink(io, found.MirrorUUID, log),
		Socket: socketOf(c), Changed: changed,
		Away: func() error {
			if err := away.Load(); err != nil {
				return *err
			}
			return nil
		},
		Close: func() {
			stop()
			io.Close()
			c.Close()
		},
	}, nil
}

// pingPeer pings the peer's pool, whose records are in its default namespace.
func pingPeer(ctx context.Context, c *librados.Cluster, io rados.IOContext, found mirrorpool.Pool, site string) (mirrorpool.Remote, error) {
	if io.Namespace() == "" {
		return mirrorpool.PingRemote(ctx, io, site, found.MirrorUUID)
	}
	base, err := c.Open(ctx, io.Pool().Name, "")
	if err != nil {
		return mirrorpool.Remote{}, err
	}
	defer base.Close()
	return mirrorpool.PingRemote(ctx, base, site, found.MirrorUUID)
}

// names are the names of the sites that a pool is mirrored between.
type names struct{ here, there string }

func (w *wiring) lockOptions() lock.Options {
	return lock.Options{
		BlocklistExpire: w.options.BlocklistExpire,
		Description:     w.self.String(), KnownDead: w.knownDead,
		WatchTimeout: watchTimeout,
	}
}

// trash makes what deletes images from a pool's trash.
func (w *wiring) trash(io rados.IOContext, log zerolog.Logger) *pool.Deleter {
	return pool.NewDeleter(pool.Deleter{
		List: func(ctx context.Context) (map[string]rbd.TrashSpec, error) { return image.TrashedCopies(ctx, io) },
		Remove: func(ctx context.Context, id string) error {
			return image.RemoveFromTrash(ctx, io, id, time.Now(), w.lockOptions())
		},
		Slot: w.deletions.Acquire, Refresh: w.options.PoolReplayersRefreshInterval, Retry: w.options.DeleteRetryInterval, Log: log,
	})
}

// image makes the actor of an image.
func (w *wiring) image(key messages.ImageKey, sites names, local replayer.Site, remote *pool.Remote, halt config.Halt,
	past messages.Past, trashed func(), log zerolog.Logger,
) actor.Actor {
	log = log.With().Str("image", key.GlobalID).Logger()
	bytes := int64(w.options.Warden.ImageBytes)
	owner := &ownerWatch{}
	resources := replayer.Resources{
		Local: local, Remote: remote.Site, GlobalID: key.GlobalID,
		SyncSlot: w.syncSlot(key.PoolID),
		Timeout:  lookTimeout,
		Lock:     w.lockOptions(),
		RemoteSnapshots: func(imageID string) imagesync.Snapshots {
			return &remoteSnapshots{io: remote.IO, imageID: imageID, owner: owner}
		},
		SyncLimits: imagesync.Limits{Objects: int(w.options.ConcurrentManagementOps)},
		Tail:       journal.TailConfig{MaxPoll: w.options.JournalPollAge},
		Mirroring: image.MirroringOptions{
			DeleteDelay: w.options.DeleteDelay, ReplayDelay: w.options.ReplayDelay,
			ResyncAfterDisconnect: w.options.ResyncAfterDisconnect,
		},
		Pace:               func() replayer.Paced { return w.limits.Join(key) },
		Trashed:            trashed,
		ResyncInPlace:      w.options.Warden.ResyncInPlace,
		CheckpointInterval: min(w.options.SyncPointUpdateAge, 5*time.Second),
		Log:                log,
	}
	buffer := w.budgets.image(&resources, bytes)
	return replayer.New(replayer.Options{
		Key: key,
		Core: core.Config{
			LocalMirrorUUID: local.MirrorUUID, RemoteMirrorUUID: remote.MirrorUUID,
			CommitInterval: min(w.options.JournalCommitAge, commitInterval),
			ReadBytes:      int(min(bytes/4, 8<<20)), BufferBytes: int(buffer),
		},
		NewPerformer: func(notify func(core.Msg)) replayer.Performer { return replayer.NewPerformer(resources, notify) },
		Retry: func(cause core.StopCause, failures int) (time.Duration, bool) {
			return replayer.Retry(cause, failures, rand.Float64())
		},
		Log: log, CloseTimeout: closeTimeout, Trace: w.tracer.For(key), Halt: halt, Meter: &w.meter, Here: sites.here, There: sites.there, Past: past,
		Patience: supervision.Patience{
			Report: w.options.Warden.StallReport, Restart: w.options.Warden.StallRestart, Grace: w.options.Warden.StallGrace,
		},
		Record: func(end report.Cause, again bool) {
			w.ledger.Add(supervision.End{Level: report.LevelImage, Name: key.String(), Cause: end, Again: again})
		},
		Left: &w.left, LocalCluster: w.cfg.Cluster, Tell: w.jury.Tell,
		Panics: w.inject.For(key),
	})
}
