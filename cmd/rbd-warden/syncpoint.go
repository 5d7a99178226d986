package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	cls "github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/librbd"
)

// remoteSnapshots makes and removes sync points on a remote image, through librbd: the
// primary's writer has to take part.
//
// librbd fences a writer whose watch has expired. That may be a virtual machine that was
// only paused, and a sync point is not worth its life. So a silent owner gets time
// to come back; only after that librbd may do what any client of the primary would.
type remoteSnapshots struct {
	io      rados.IOContext
	imageID string
	owner   *ownerWatch
}

// ownerWatch remembers since when the remote image's lock has an owner that does not
// watch.
type ownerWatch struct {
	mu     sync.Mutex
	entity cls.EntityName
	since  time.Time
}

// ownerGrace is how long a silent owner of the primary's lock is left alone, after its watch
// has expired. It is no longer, because the owner may be a worker of ours that was killed
// while it made a sync point.
const ownerGrace = 30 * time.Second

func (r *remoteSnapshots) Create(ctx context.Context, name string) error {
	if err := r.spareTheOwner(ctx); err != nil {
		return err
	}
	return librbd.CreateSnapshot(ctx, r.io, r.imageID, name)
}

func (r *remoteSnapshots) Remove(ctx context.Context, name string) error {
	if err := r.spareTheOwner(ctx); err != nil {
		return err
	}
	return librbd.RemoveSnapshot(ctx, r.io, r.imageID, name)
}

// spareTheOwner is an error while the exclusive lock's owner is silent, and has not
// been for long.
func (r *remoteSnapshots) spareTheOwner(ctx context.Context) error {
	query := cls.GetInfo(cls.RBDName)
	var op rados.ReadOp
	reply, watchers := op.Exec(query.Call), op.ListWatchers()
	err := r.io.Read(ctx, rbd.HeaderObject(r.imageID), &op)
	if errors.Is(err, syscall.ENOENT) {
		return nil // librbd says it better
	}
	if err != nil {
		return err
	}
	info, err := query.Decode(reply.Data)
	if err != nil {
		return &rados.Error{Op: "lock.get_info", Pool: r.io.Pool().Name, Namespace: r.io.Namespace(), Object: rbd.HeaderObject(r.imageID), Err: err}
	}
	silent := r.owner.silence(info, watchers.Watchers, time.Now())
	if silent < 0 || silent > ownerGrace {
		return nil
	}
	return fmt.Errorf("the owner of the primary image's lock, %s, does not answer; it gets %v to come back before it is taken for dead: %w",
		info.Lockers[0].Entity, (ownerGrace - silent).Round(time.Second), syscall.EAGAIN)
}

// silence tells for how long the owner has been seen without a watch; less than 0 if
// nobody owns the lock, or the owner watches.
func (o *ownerWatch) silence(info cls.Info, watchers []rados.Watcher, now time.Time) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(info.Lockers) == 0 {
		o.since = time.Time{}
		return -1
	}
	owner := info.Lockers[0].Entity
	for _, w := range watchers {
		if cls.ClientName(w.ClientID) == owner {
			o.since = time.Time{}
			return -1
		}
	}
	if o.since.IsZero() || o.entity != owner {
		o.entity, o.since = owner, now
	}
	return now.Sub(o.since)
}
