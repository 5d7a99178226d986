package replayer

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	"github.com/rbdwarden/rbdwarden/ceph"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/replay"
)

// DivergedError says that an operation failed on the primary half way, in a way that
// the journal does not tell: the copy may differ and has to be synced anew.
type DivergedError struct{ Skipped replay.Skipped }

func (e *DivergedError) Error() string {
	return fmt.Sprintf("%v at entry %d of tag %d failed on the primary (%v) and may have changed data there: resync the image",
		e.Skipped.Event.Type(), e.Skipped.At.Entry, e.Skipped.At.Tag, e.Skipped.Result)
}

// UnsupportedEventError says that the journal asks for something that is not
// implemented; the image stops before it, and nothing is lost.
type UnsupportedEventError struct {
	Event wire.Event
	At    wire.ObjectPosition
}

func (e *UnsupportedEventError) Error() string {
	return fmt.Sprintf("%v at entry %d of tag %d is not supported", e.Event.Type(), e.At.Entry, e.At.Tag)
}

// apply performs one step on the local image.
func (p *performer) apply(ctx context.Context, step replay.Step) (core.Msg, error) {
	applied := core.Applied{Step: step.ID(), Entries: 1}
	if op, ok := step.(replay.Operation); ok && op.Event.Type() == wire.TypeFlatten {
		return applied, p.flatten(ctx, op)
	}
	done, err := p.local.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	switch s := step.(type) {
	case replay.Writes:
		applied.Entries, applied.Bytes = s.Entries, int64(s.Bytes)
		_, err = p.local.image.Apply(ctx, ios(s.IOs))
	case replay.CompareAndWrite:
		applied.Bytes = int64(len(s.Write))
		_, err = p.local.image.Apply(ctx, []image.IO{{
			Kind: image.CompareAndWrite, Offset: s.Offset, Length: uint64(len(s.Write)), Data: s.Write, Compare: s.Compare,
		}})
	case replay.Operation:
		err = p.operate(ctx, s)
	case replay.Skipped:
		if s.Diverges(p.local.image.Header().Size) {
			err = &DivergedError{Skipped: s}
		}
	default:
		panic(fmt.Sprintf("replayer: no way to apply %T", step))
	}
	if err != nil {
		return nil, err
	}
	return applied, nil
}

// ios translates a step's I/O for the image.
func ios(in []replay.IO) []image.IO {
	out := make([]image.IO, len(in))
	for i, io := range in {
		out[i] = image.IO{Offset: io.Offset, Length: io.Length, Data: io.Data, DiscardGranularity: uint64(io.Granularity)}
		switch io.Kind {
		case replay.Write:
			out[i].Kind = image.Write
		case replay.Discard:
			out[i].Kind = image.Discard
		case replay.WriteSame:
			out[i].Kind = image.WriteSame
		default:
			panic(fmt.Sprintf("replayer: I/O of kind %v", io.Kind))
		}
	}
	return out
}

// operate performs an operation that happened on the primary. What has happened here
// before is no error (invariant 4).
func (p *performer) operate(ctx context.Context, s replay.Operation) error {
	im, at := p.local.image, s.At
	var err error
	switch ev := s.Event.(type) {
	case wire.SnapCreate:
		if err = p.snapCreate(ctx, ev); err == nil && p.ourSyncPoint(ev.Name) {
			p.sweep()
		}
	case wire.SnapRemove:
		if err = p.clonesFirst(ctx, ev); err == nil {
			err = onSnapshot(ctx, im.SnapRemove, ev.Namespace, ev.Name)
		}
	case wire.SnapRename:
		err = p.snapRename(ctx, ev)
	case wire.SnapProtect:
		err = onSnapshot(ctx, im.SnapProtect, ev.Namespace, ev.Name)
	case wire.SnapUnprotect:
		err = onSnapshot(ctx, im.SnapUnprotect, ev.Namespace, ev.Name)
	case wire.SnapRollback:
		if s := im.Header().Snapshot(rbd.UserSnapshot{}, ev.Name); s != nil && p.snaps.incomplete(s.ID) {
			return &MissingSnapshotError{Event: ev, At: at, Err: errHalfCopied}
		}
		err = onSnapshot(ctx, im.SnapRollback, ev.Namespace, ev.Name)
	case wire.UpdateFeatures:
		_, err = im.UpdateFeatures(ctx, rbd.Features(ev.Features), ev.Enabled)
	case wire.SnapLimit:
		_, err = im.SnapSetLimit(ctx, ev.Limit)
	case wire.Resize:
		_, err = im.Resize(ctx, ev.Size)
	case wire.Rename:
		err = p.rename(ctx, ev.Name)
	case wire.MetadataSet:
		_, err = im.MetadataSet(ctx, ev.Key, []byte(ev.Value))
	case wire.MetadataRemove:
		_, err = im.MetadataRemove(ctx, ev.Key)
	default:
		return &UnsupportedEventError{Event: s.Event, At: s.At}
	}
	var children *image.ChildrenError
	if errors.As(err, &children) {
		// It succeeded on the primary, so the clones are gone there.
		return &WaitError{
			For: fmt.Sprintf("clones of snapshot %q to be flattened or removed here, as they were on the primary", children.Snapshot),
			Why: fmt.Sprintf("images %q in pool %q still share its data", children.Children, children.Pool), Err: err,
		}
	}
	for _, errno := range s.Tolerate {
		// What may work the next time, as when the lock does not hold at the moment, was not done.
		if errors.Is(err, errno) && rados.Classify(err) == rados.Permanent {
			p.Log.Info().Err(err).Stringer("event", s.Event.Type()).Msg("operation was done here before")
			return nil
		}
	}
	if errors.Is(err, syscall.ENOENT) {
		return p.withoutSnapshot(ctx, s, err)
	}
	return err
}

// flatten copies what the local image shares with its parent. It may take hours, so it
// is done in steps: each passes the gate by itself, so that a promotion need not wait
// for the last, and tells how far it is. Other writes go on between the steps.
func (p *performer) flatten(ctx context.Context, op replay.Operation) error {
	for next := image.ObjectNumber(0); ; {
		done, err := p.local.enter(ctx)
		if err != nil {
			return err
		}
		step, err := p.local.image.FlattenStep(ctx, next)
		done()
		if err != nil || step.Finished {
			return err
		}
		next = step.Next
		p.notify(core.OperationProgressed{
			Step: op.ID(), Name: op.Event.Type().String(), Done: uint64(step.Next), Total: uint64(step.Objects),
		})
	}
}

// snapCreate takes a snapshot. The primary had room for it below its limit; that this
// side has not (clones keep removed snapshots here) must not stop it.
func (p *performer) snapCreate(ctx context.Context, ev wire.SnapCreate) error {
	ns, err := snapNamespace(ev.Namespace)
	if err != nil {
		return err
	}
	im := p.local.image
	_, _, err = im.SnapCreate(ctx, ns, ev.Name)
	if !errors.Is(err, syscall.EDQUOT) {
		return err
	}
	limit := im.Header().SnapLimit
	p.Log.Warn().Uint64("limit", limit).Str("snapshot", ev.Name).Msg("there are more snapshots here than the limit allows")
	if _, err = im.SnapSetLimit(ctx, rbd.NoSnapshotLimit); err != nil {
		return err
	}
	_, _, err = im.SnapCreate(ctx, ns, ev.Name)
	_, again := im.SnapSetLimit(ctx, limit)
	return errors.Join(err, again)
}

// onSnapshot does one operation on a snapshot that is named as in the journal.
func onSnapshot(ctx context.Context, do func(context.Context, rbd.SnapshotNamespace, string) (image.Outcome, error),
	journalled wire.SnapshotNamespace, name string,
) error {
	ns, err := snapNamespace(journalled)
	if err != nil {
		return err
	}
	_, err = do(ctx, ns, name)
	return err
}

// snapRename finds the snapshot by the primary's id, whatever its name is here, and
// by its old name if the id is not known.
func (p *performer) snapRename(ctx context.Context, ev wire.SnapRename) error {
	h := p.local.image.Header()
	from := ev.OldName
	if id, ok := p.snaps.local(ceph.SnapID(ev.SnapID)); ok {
		if s := h.SnapshotByID(id); s != nil {
			from = s.Name
		}
	}
	if from == "" {
		return fmt.Errorf("snapshot %d of the primary has no counterpart here: %w", ev.SnapID, syscall.ENOENT)
	}
	if from == ev.NewName {
		return nil
	}
	_, err := p.local.image.SnapRename(ctx, from, ev.NewName)
	return err
}

// snapNamespace translates a journalled namespace for the header.
func snapNamespace(ns wire.SnapshotNamespace) (rbd.SnapshotNamespace, error) {
	return rbd.DecodeSnapshotNamespace(wire.Marshal(ns))
}
