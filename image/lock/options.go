package lock

import (
	"time"

	cls "github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/rados"
)

// Target says which lock of which object.
type Target struct {
	Object string
	Name   string // of the lock
	Tag    string // of the lock; lockers with another tag are strangers
}

// Header is the exclusive lock of the image with that id.
func Header(imageID string) Target {
	return Target{Object: "rbd_header." + imageID, Name: cls.RBDName, Tag: cls.RBDTag}
}

// Policy is how the owner of a lock takes part. Its methods are called without
// locks held, LockRequested and HeaderUpdated from the watch's own goroutine: they
// must be quick, must not do I/O, and must not call Release (start a goroutine or
// send a message instead).
type Policy interface {
	// LockRequested: another client wants the lock. If release is true, it is
	// told to wait, ReleaseRequested is closed, and the owner must call Release
	// soon. Otherwise it is refused, with EROFS or with the errno that err wraps.
	LockRequested(force bool) (release bool, err error)
	// HeaderUpdated: the image's header may have changed; read it again.
	HeaderUpdated()
	// Suspended: the watch has ended or could not be confirmed, so others may take
	// the lock. Do not start another write until Resumed. When the method returns,
	// the Lock starts to win its watch back.
	Suspended(cause error)
	// Resumed: the lock is held again, and was never anybody else's.
	Resumed()
}

// NonPrimary is the Policy of rbd-mirror for an image that it replays into: it
// never gives the lock away and heeds nothing else. Embed it to override parts.
type NonPrimary struct{}

// LockRequested refuses.
func (NonPrimary) LockRequested(bool) (bool, error) { return false, nil }

// HeaderUpdated does nothing.
func (NonPrimary) HeaderUpdated() {}

// Suspended does nothing.
func (NonPrimary) Suspended(error) {}

// Resumed does nothing.
func (NonPrimary) Resumed() {}

// Options are the settings of a Lock. The zero value is usable.
type Options struct {
	// Policy is asked and told; nil is NonPrimary{}.
	Policy Policy
	// Perform, if not nil, is offered the operations that other clients ask the
	// owner for (resize, snapshots ...): it returns what performs the operation,
	// or nil to refuse with EROFS, as everything is without it. rbd-mirror accepts
	// only the removal of trash snapshots.
	Perform Perform
	// Trouble, if not nil, hears of errors that change nothing for the owner: a
	// damaged notification, an announcement that could not be sent.
	Trouble func(error)

	// Description goes into the lock, for people and for KnownDead.
	Description string
	// KnownDead, if not nil, says of another owner's description that its process is
	// certainly dead, although its watch has not expired yet. Such an owner is fenced
	// at once. It must be right: a living owner would be blocklisted.
	KnownDead func(description string) bool

	// BlocklistExpire is how long a dead owner stays blocklisted; 0: the option
	// rbd_blocklist_expire_seconds, which by default is the cluster's own time.
	BlocklistExpire time.Duration
	// WatchTimeout is how long the OSDs keep a silent watcher, and so how long others
	// wait before they take the lock of this owner when its host has died. 0 is the
	// OSDs' default, 30 s. librados confirms every 5 s: less than 12 s is too little.
	WatchTimeout time.Duration

	// The rest are delays that tests shorten; 0 is the default in brackets.

	// NotifyTimeout bounds a notification [5 s, as librbd].
	NotifyTimeout time.Duration
	// RetryDelay is between attempts that failed or were not answered [1 s].
	RetryDelay time.Duration
	// ReleaseWait is how long an owner that agreed to release the lock gets before
	// it is asked again [10 s, client_notify_timeout].
	ReleaseWait time.Duration
	// DeadGrace is how long an owner must have been seen without its watch before
	// it is fenced. It lets one that is just renewing its watch finish [1 s].
	DeadGrace time.Duration
	// RewatchGrace is DeadGrace for an owner whose client watches the header under
	// another handle, so its process is alive [30 s].
	RewatchGrace time.Duration
	// ReacquireTimeout is how long a suspended lock is tried to be won back [30 s].
	ReacquireTimeout time.Duration
	// CheckInterval is between looks at the watch's health [2 s].
	CheckInterval time.Duration
	// CleanupTimeout bounds undoing a failed Acquire [5 s].
	CleanupTimeout time.Duration
}

// osdWatchTimeout is the default of osd_client_watch_timeout.
const osdWatchTimeout = 30 * time.Second

func (o Options) withDefaults(c rados.Cluster) Options {
	if o.Policy == nil {
		o.Policy = NonPrimary{}
	}
	if o.Trouble == nil {
		o.Trouble = func(error) {}
	}
	if o.BlocklistExpire == 0 {
		o.BlocklistExpire = configuredExpire(c)
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&o.NotifyTimeout, 5 * time.Second},
		{&o.RetryDelay, time.Second},
		{&o.ReleaseWait, 10 * time.Second},
		{&o.DeadGrace, time.Second},
		{&o.RewatchGrace, 30 * time.Second},
		{&o.ReacquireTimeout, 30 * time.Second},
		{&o.CheckInterval, 2 * time.Second},
		{&o.CleanupTimeout, 5 * time.Second},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	return o
}

// staleAfter is the age of the watch's last confirmation beyond which the OSD may
// be about to drop it.
func (o Options) staleAfter() time.Duration {
	timeout := o.WatchTimeout
	if timeout == 0 {
		timeout = osdWatchTimeout
	}
	return timeout * 4 / 5
}

// configuredExpire reads how long librbd would blocklist a dead owner: the option
// has its old name before Pacific. 0 is the cluster's default.
func configuredExpire(c rados.Cluster) time.Duration {
	for _, name := range []string{"rbd_blocklist_expire_seconds", "rbd_blacklist_expire_seconds"} {
		v, err := c.Option(name)
		if err != nil {
			continue
		}
		if d, err := time.ParseDuration(v + "s"); err == nil {
			return d
		}
	}
	return 0
}
