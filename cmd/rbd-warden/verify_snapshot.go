package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/cluster/identity"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/image/compare"
)

// temporaryPrefix begins the names of snapshots that --create-snapshot makes. The rest names the
// process, so that the next one knows what a dead one has left.
const temporaryPrefix = ".rbd-warden.verify."

// forgottenAfter is the age from which a snapshot of a process elsewhere is taken for left.
const forgottenAfter = 24 * time.Hour

func temporaryName(i identity.Identity) string {
	return fmt.Sprintf("%s%s.%s.%d.%d", temporaryPrefix, i.Boot, strings.Trim(i.PIDNS, "pid:[]"), i.PID, i.Start)
}

// leftovers names the temporary snapshots whose makers have gone without removing them.
func leftovers(h *image.Header, self identity.Identity, now time.Time) []string {
	var left []string
	for _, s := range h.Snapshots {
		maker, ok := strings.CutPrefix(s.Name, temporaryPrefix)
		if !ok || s.Namespace != nil && s.Namespace.Kind() != rbd.SnapshotUser {
			continue
		}
		var other identity.Identity
		fields := strings.Split(maker, ".")
		if len(fields) == 4 {
			other = identity.Identity{Boot: fields[0], PIDNS: "pid:[" + fields[1] + "]"}
			other.PID, _ = strconv.Atoi(fields[2])
			other.Start, _ = strconv.ParseUint(fields[3], 10, 64)
		}
		if self.KnownDead(other.String()) || now.Sub(s.Timestamp) > forgottenAfter {
			left = append(left, s.Name)
		}
	}
	return left
}

// removeLeftovers removes what predecessors that were killed have left. It is done as well as can
// be: what cannot be removed now is in nobody's way.
func removeLeftovers(ctx context.Context, primary copySite, snapshots *remoteSnapshots, self identity.Identity) {
	h, err := primary.header(ctx)
	if err == nil {
		for _, name := range leftovers(h, self, time.Now()) {
			if removed := snapshots.Remove(ctx, name); !errors.Is(removed, syscall.ENOENT) {
				err = errors.Join(err, removed)
			}
		}
	}
	if err != nil {
		log := commandLog()
		log.Warn().Err(err).Msg("cannot remove snapshots that were left by comparisons that were killed")
	}
}

// makeSnapshot makes a snapshot on the primary and waits until the replica has it.
func (v verify) makeSnapshot(ctx context.Context, primary, replica copySite) (c chosen, remove func(), err error) {
	self, err := identity.Self()
	if err != nil {
		return c, func() {}, err
	}
	name := temporaryName(self)
	snapshots := &remoteSnapshots{io: primary.io, imageID: primary.id, owner: &ownerWatch{}}
	removeLeftovers(ctx, primary, snapshots, self)
	remove = func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if err := snapshots.Remove(ctx, name); err != nil && !errors.Is(err, syscall.ENOENT) {
			log := commandLog()
			log.Warn().Err(err).Str("snapshot", name).Msg("cannot remove the snapshot that was made for the comparison")
		}
	}
	defer func() {
		if err != nil {
			remove()
			remove = func() {}
		}
	}()
	if err = snapshots.Create(ctx, name); err != nil {
		return c, remove, err
	}
	deadline := time.Now().Add(v.timeout)
	for {
		if c.b, err = replica.header(ctx); err != nil {
			return c, remove, err
		}
		if userSnapshot(c.b, name) != nil {
			break
		}
		if time.Now().After(deadline) {
			return c, remove, fmt.Errorf("the snapshot was not mirrored within %v: is the daemon of site %s running?", v.timeout, replica.name)
		}
		select {
		case <-ctx.Done():
			return c, remove, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
	if c.a, err = primary.header(ctx); err != nil {
		return c, remove, err
	}
	var ok bool
	if c.Pair, ok = compare.Named(c.a, c.b, name); !ok {
		err = fmt.Errorf("somebody removed the snapshot %s", name)
	}
	return c, remove, err
}
