package journal

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/rados"
)

// AppendFirst appends the first entry of a new tag, for example the event by which
// a demotion or promotion gives its tag something to commit, and tells where it
// is. now goes into the event. The caller owns the journal: it has allocated the
// tag, and nobody else writes. After an error that leaves open whether it happened
// (a timeout), take a new tag: the same entry twice is a damaged journal.
//
// Source of the steps: ceph/ceph src/journal/JournalRecorder.cc, ObjectRecorder.cc.
func (j *Journal) AppendFirst(ctx context.Context, tag wire.TagTID, event wire.Event, now time.Time) (wire.ObjectPosition, error) {
	payload := wire.Marshal(wire.EventEntry{Event: event, Timestamp: now})
	data := wire.Marshal(wire.Entry{Tag: tag, TID: 0, Payload: payload})
	m, err := j.Refresh(ctx)
	if err != nil {
		return wire.ObjectPosition{}, err
	}
	if limit := wire.MaxEntrySize(m.Order); int64(len(data)) > limit {
		return wire.ObjectPosition{}, fmt.Errorf("append to journal: entry of %d bytes, %d is the most: %w", len(data), limit, syscall.EMSGSIZE)
	}
	for set := m.ActiveSet; ; set++ {
		at := wire.ObjectPosition{Object: set.Object(m.SplayWidth, 0), Tag: tag}
		var op rados.WriteOp
		op.Exec(wire.GuardAppend(1 << m.Order)).Append(data)
		err := j.data.Write(ctx, j.DataObject(at.Object), &op)
		if err == nil {
			return at, nil
		}
		if !errors.Is(err, syscall.EOVERFLOW) {
			return wire.ObjectPosition{}, fmt.Errorf("append to journal: %w", err)
		}
		// The object is full: on to the next set, which readers must know first.
		var advance rados.WriteOp
		advance.Exec(wire.SetActiveSet(set + 1))
		if err := j.tell(ctx, "advance journal", &advance); err != nil && !errors.Is(err, syscall.ESTALE) {
			return wire.ObjectPosition{}, err
		}
	}
}
