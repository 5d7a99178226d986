package replayer

import (
	"context"
	"fmt"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/replay"
)

// errHalfCopied says that a snapshot is not what it was on the primary.
var errHalfCopied = fmt.Errorf("it was removed on the primary while it was being copied: %w", syscall.ENOENT)

// MissingSnapshotError says that an operation needs a snapshot that is not here: the
// copy is not what the journal takes it for, and has to be synced anew.
type MissingSnapshotError struct {
	Event wire.Event
	At    wire.ObjectPosition
	Err   error
}

func (e *MissingSnapshotError) Error() string {
	return fmt.Sprintf("%v at entry %d of tag %d needs a snapshot that the local image does not have: resync the image (%v)",
		e.Event.Type(), e.At.Entry, e.At.Tag, e.Err)
}

func (e *MissingSnapshotError) Unwrap() error { return e.Err }

// withoutSnapshot decides about an operation whose snapshot is not here.
//
// Replay from an older checkpoint, such as rbd-mirror leaves when it is killed, meets
// operations on snapshots that were removed further on in the journal. Where the primary
// has the snapshot no more, its name and protection do not matter. A rollback does: what
// it put into the image is nowhere else.
func (p *performer) withoutSnapshot(ctx context.Context, s replay.Operation, cause error) error {
	missing := &MissingSnapshotError{Event: s.Event, At: s.At, Err: cause}
	var there func(h *image.Header) (bool, error)
	named := func(ns wire.SnapshotNamespace, name string) func(*image.Header) (bool, error) {
		return func(h *image.Header) (bool, error) {
			ns, err := snapNamespace(ns)
			return err == nil && h.Snapshot(ns, name) != nil, err
		}
	}
	switch ev := s.Event.(type) {
	case wire.SnapProtect:
		there = named(ev.Namespace, ev.Name)
	case wire.SnapUnprotect:
		there = named(ev.Namespace, ev.Name)
	case wire.SnapRename:
		there = func(h *image.Header) (bool, error) {
			snap := h.SnapshotByID(ceph.SnapID(ev.SnapID))
			return snap != nil && (snap.Namespace == nil || snap.Namespace.Kind() == rbd.SnapshotUser), nil
		}
	case wire.SnapRollback:
		return missing
	default:
		return cause
	}
	h, err := image.ReadHeader(ctx, p.Remote.IO, p.remoteID)
	if err != nil {
		return err
	}
	found, err := there(h)
	switch {
	case err != nil:
		return err
	case found:
		return missing
	}
	p.Log.Info().Err(cause).Stringer("event", s.Event.Type()).Msg("the snapshot was removed later on")
	return nil
}
