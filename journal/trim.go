package journal

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/rados"
)

// TrimLimit tells the oldest object set that some client still needs; sets below
// it may be removed. heldBy is the client that needs it, "" also if that is the
// image itself or if everything below the active set is committed.
//
// Every position of a connected client counts, not only its newest; a client that
// has committed nothing holds everything; a disconnected one holds nothing.
// Source: JournalTrimmer::handle_metadata_updated.
func TrimLimit(m Metadata) (limit wire.ObjectSet, heldBy string) {
	limit = m.ActiveSet
	for _, c := range m.Clients {
		if c.State == wire.Disconnected {
			continue
		}
		if len(c.CommitPosition) == 0 {
			return m.MinimumSet, c.ID
		}
		for _, p := range c.CommitPosition {
			if s := p.Object.Set(m.SplayWidth); s < limit {
				limit, heldBy = s, c.ID
			}
		}
	}
	return max(limit, m.MinimumSet), heldBy
}

// Trim removes the object sets that no client needs and tells how many. Upstream
// does it in every process that has the journal open, the primary's and the
// peer's daemon, whenever the header changes: so a peer trims after its commits,
// else the journal of an idle primary would stay. Two that trim at the same time
// do no harm.
func (j *Journal) Trim(ctx context.Context) (removed int, err error) {
	m, err := j.Refresh(ctx)
	if err != nil {
		return 0, err
	}
	if len(m.Clients) == 0 {
		return 0, nil // not how a journal looks: remove nothing
	}
	limit, _ := TrimLimit(m)
	for s := m.MinimumSet; s < limit; s++ {
		if err := j.removeSet(ctx, s); err != nil {
			return removed, err
		}
		if err := j.setMinimumSet(ctx, s+1); err != nil {
			return removed, err
		}
		removed++
	}
	return removed, nil
}

func (j *Journal) removeSet(ctx context.Context, s wire.ObjectSet) error {
	width := j.Metadata().SplayWidth
	for offset := range width {
		var op rados.WriteOp
		op.Remove()
		err := j.data.Write(ctx, j.DataObject(s.Object(width, offset)), &op)
		if err != nil && !errors.Is(err, syscall.ENOENT) {
			return fmt.Errorf("remove journal object set %d: %w", s, err)
		}
	}
	return nil
}

// setMinimumSet moves the minimum set forward; ESTALE means that somebody else has
// moved it further.
func (j *Journal) setMinimumSet(ctx context.Context, s wire.ObjectSet) error {
	var op rados.WriteOp
	op.Exec(wire.SetMinimumSet(s))
	err := j.tell(ctx, "trim journal", &op)
	if err != nil && !errors.Is(err, syscall.ESTALE) {
		return err
	}
	return nil
}
