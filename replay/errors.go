package replay

import (
	"fmt"

	"github.com/rbdwarden/rbdwarden/ceph/journal"
)

// UnknownEventError says that an entry holds an event of a type that this program
// does not know. Skipping it could lose data, so replay ends before it.
type UnknownEventError struct {
	Tag   journal.TagTID
	Entry journal.EntryTID
	Type  uint32 // the event's type number, as journalled
}

func (e *UnknownEventError) Error() string {
	return fmt.Sprintf("entry %d of tag %d: event of unknown type %d", e.Entry, e.Tag, e.Type)
}

// InvalidEventError says that an event decodes but makes no sense, for example a
// write whose data is not as long as it says.
type InvalidEventError struct {
	Tag    journal.TagTID
	Entry  journal.EntryTID
	Reason string
}

func (e *InvalidEventError) Error() string {
	return fmt.Sprintf("entry %d of tag %d: %s", e.Entry, e.Tag, e.Reason)
}

// OrderError says that an entry was pushed that does not follow the last one.
type OrderError struct {
	Last, Got journal.ObjectPosition
}

func (e *OrderError) Error() string {
	return fmt.Sprintf("entry %d of tag %d does not follow entry %d of tag %d",
		e.Got.Entry, e.Got.Tag, e.Last.Entry, e.Last.Tag)
}
