// Package rados is the port through which everything here reaches a RADOS
// cluster. It says what is done (operations are plain data) and leaves how to its
// two implementations: librados (real clusters, over go-ceph) and mem (in memory,
// crashable, for simulation).
//
// Rules that every implementation keeps:
//
//   - A call returns when its context ends, even if the cluster never answers.
//     The operation may still take effect later; a caller that cannot live with
//     that fences the client (see Cluster.Blocklist).
//   - The steps of one operation take effect together or not at all.
//   - Operations that one IOContext has under way at the same time on the same
//     object are applied in the order in which they were started.
//   - Errors wrap a syscall.Errno: errors.Is(err, syscall.ENOENT) works.
package rados

import (
	"context"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph"
)

// Pool names a pool of a cluster.
type Pool struct {
	ID   int64
	Name string
}

// Cluster is a connection to one Ceph cluster under one identity.
type Cluster interface {
	// FSID is the cluster's unique id.
	FSID() string
	// InstanceID is this connection's global id, as in "client.4123".
	InstanceID() uint64
	// Addresses is this connection's own address vector as the monitors print it,
	// the form that Blocklist takes.
	Addresses() string

	// Pools lists the pools.
	Pools(ctx context.Context) ([]Pool, error)
	// Open opens a pool by name; ENOENT if there is none.
	Open(ctx context.Context, pool, namespace string) (IOContext, error)
	// OpenID opens a pool by id; ENOENT if there is none.
	OpenID(ctx context.Context, pool int64, namespace string) (IOContext, error)

	// MonCommand sends a command to the monitors. cmd is its JSON form, input is
	// the data that goes with it (may be nil). status is the human message.
	MonCommand(ctx context.Context, cmd map[string]any, input []byte) (out []byte, status string, err error)
	// Option reads a configuration option as this connection sees it (defaults,
	// ceph.conf, the monitors' database and overrides).
	Option(name string) (string, error)

	// Blocklist makes the OSDs refuse the client with that address for a time
	// (0: the cluster's default) and waits until our map knows it.
	Blocklist(ctx context.Context, address string, expire time.Duration) error
	// WaitForLatestMap waits until this client has the monitors' newest OSD map.
	WaitForLatestMap(ctx context.Context) error

	// RegisterService shows this client in the service map ("ceph service dump")
	// under service and id. Once per connection.
	RegisterService(ctx context.Context, service, id string, metadata map[string]string) error
	// UpdateService replaces the status of the registered service.
	UpdateService(ctx context.Context, status map[string]string) error

	// Close ends the connection; calls under way fail.
	Close()
}

// IOContext does operations in one pool and namespace. It is safe for use by many
// goroutines.
type IOContext interface {
	// Pool is the pool that this context works in.
	Pool() Pool
	// Namespace is the RADOS namespace, "" for the default one.
	Namespace() string
	// Cluster is the connection that this context belongs to.
	Cluster() Cluster

	// Read performs op on the object; results are in the values that the op's
	// methods returned. ENOENT if the object does not exist.
	Read(ctx context.Context, object string, op *ReadOp) error
	// Write performs op on the object.
	Write(ctx context.Context, object string, op *WriteOp) error

	// CreateSnapID allocates a self-managed snapshot id.
	CreateSnapID(ctx context.Context) (ceph.SnapID, error)
	// RemoveSnapID frees a self-managed snapshot id; the OSDs trim its clones.
	RemoveSnapID(ctx context.Context, id ceph.SnapID) error

	// Watch registers interest in the object's notifications until the watch is
	// closed. h is called from one goroutine of this watch's own, so a slow
	// handler delays only itself. timeout is how long the OSD keeps a silent
	// watcher (0: the cluster's default).
	Watch(ctx context.Context, object string, timeout time.Duration, h WatchHandler) (Watch, error)
	// Notify sends payload to the object's watchers and waits, up to timeout, for
	// their acknowledgements. Watchers that did not answer are in Missed and are
	// no error.
	Notify(ctx context.Context, object string, payload []byte, timeout time.Duration) (NotifyReply, error)

	// List calls fn with the name of every object of the pool and namespace, in
	// no order. For tools and tests; the daemon never lists a pool.
	List(ctx context.Context, fn func(object string) error) error

	// Close releases the context. Watches must be closed first.
	Close()
}

// WatchHandler gets what happens on a watched object.
type WatchHandler interface {
	// Notified is called for each notification. The notifier waits until n.Ack is
	// called or its timeout passes, so every notification must be acknowledged.
	Notified(n Notification)
	// WatchLost is called when the watch has ended by itself (ENOTCONN: the OSD
	// dropped it; ESHUTDOWN: this client is blocklisted). It is not called again.
	WatchLost(err error)
}

// Notification is one notification on a watched object.
type Notification struct {
	NotifierID uint64 // instance id of the client that sent it
	Payload    []byte
	Ack        func(reply []byte) // answers; only the first call counts
}

// Watch is a registered watch.
type Watch interface {
	// Cookie is the watch's handle: what the OSD lists for it, and what librbd
	// puts into a lock's cookie ("auto <cookie>").
	Cookie() uint64
	// Check tells whether the watch is still registered, as far as the client
	// knows: how long ago that was confirmed, or the error that ended it.
	Check() (age time.Duration, err error)
	// Close unregisters the watch and waits until its handler has returned. It
	// must not be called from the handler.
	Close(ctx context.Context) error
}

// Watcher is a client that watches an object.
type Watcher struct {
	ClientID uint64 // instance id
	Cookie   uint64
	Address  string // as Blocklist takes it; only ListWatchers fills it in
}

// NotifyReply tells who acknowledged a notification and who did not.
type NotifyReply struct {
	Acks   []NotifyAck
	Missed []Watcher
}

// NotifyAck is one watcher's answer.
type NotifyAck struct {
	Watcher Watcher
	Reply   []byte
}
