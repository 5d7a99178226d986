package journal

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
)

// Reasons why a client cannot go on reading. In each case the image has to be
// synced anew.
var (
	// ErrDisconnected: the primary flagged the client as disconnected, because it
	// fell too far behind (rbd_journal_max_concurrent_object_sets). Entries it has
	// not seen may have been trimmed.
	ErrDisconnected = errors.New("journal client is flagged disconnected")
	// ErrNotRegistered: the client is not, or no longer, registered.
	ErrNotRegistered = errors.New("journal client is not registered")
	// ErrTrimmed: entries behind the client's position have been trimmed. A client
	// that is registered while another one is disconnected can get such a position
	// from it; a new sync starts by committing the position of client "" as it was
	// before the sync's snapshot, since the snapshot contains everything up to it.
	ErrTrimmed = errors.New("journal was trimmed past the client's position: entries are missing, resync the image")
)

// ErrOvertaken says that the client's record is not what this process knows of it, so another one speaks for the client
// by now, or did so last. What was to be written rests on what is no longer true: begin again from what is stored.
var ErrOvertaken = fmt.Errorf("another process has changed the journal's client meanwhile: %w", syscall.EAGAIN)

// CorruptError says that a data object holds something that is not a journal. It
// wraps a *encoding.CorruptError, so rados.Classify calls it corrupt.
type CorruptError struct {
	Object string // name of the data object
	Offset uint64 // where in the object, in bytes
	Err    error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("journal object %s, offset %d: %v", e.Object, e.Offset, e.Err)
}

func (e *CorruptError) Unwrap() error { return e.Err }

// SequenceError says that the entry where the next one was due is neither that
// one nor one of a newer tag: entries are missing or came twice. Upstream ends
// replay with ENOMSG then.
type SequenceError struct {
	Object string
	Offset uint64
	Due    wire.ObjectPosition // the tag and entry that were due; Object is the one looked at
	Found  wire.ObjectPosition
}

func (e *SequenceError) Error() string {
	return fmt.Sprintf("journal object %s, offset %d: entry %d of tag %d where entry %d of tag %d was due",
		e.Object, e.Offset, e.Found.Entry, e.Found.Tag, e.Due.Entry, e.Due.Tag)
}

// Unwrap makes a SequenceError corrupt for rados.Classify.
func (e *SequenceError) Unwrap() error {
	return &encoding.CorruptError{What: "journal", Offset: int(e.Offset), Reason: "entry out of sequence"}
}
