package replay

import (
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph/journal"
)

// place says where among the I/O an operation takes effect: see the package's text.
type place uint8

const (
	anywhere place = iota // commutes with I/O
	atEvent               // I/O between event and OpFinish belongs behind it
	atFinish              // I/O between event and OpFinish belongs before it
)

func placeOf(op journal.Operation) place {
	switch op.(type) {
	case journal.SnapCreate, journal.Resize:
		return atEvent
	case journal.SnapRollback:
		return atFinish
	}
	return anywhere
}

// tolerated are the errors that applying an operation again gives. The codes are
// those that librbd's replay ignores (ignore_error_codes in
// src/librbd/journal/Replay.cc), but for EBUSY, which it takes for a snapshot that is
// protected already: it is also what a lock says that does not hold, and then nothing
// was done. Protecting again has to be no error.
func tolerated(op journal.Operation) []syscall.Errno {
	switch op.(type) {
	case journal.SnapCreate, journal.SnapRename, journal.Rename:
		return []syscall.Errno{syscall.EEXIST}
	case journal.SnapRemove, journal.MetadataRemove:
		return []syscall.Errno{syscall.ENOENT}
	case journal.SnapUnprotect, journal.Flatten:
		return []syscall.Errno{syscall.EINVAL}
	case journal.SnapLimit:
		return []syscall.Errno{syscall.ERANGE}
	}
	return nil
}

// concurrent says that the operation can run beside Writes steps. Flatten alone is
// long enough to be worth it: it copies up what the writes have not.
func concurrent(op journal.Operation) bool {
	_, flatten := op.(journal.Flatten)
	return flatten
}

// subjects names what an operation changes, for operations of which the later one has the
// last word. A flatten changes what no other does.
func subjects(op journal.Operation) []string {
	const snapshot, metadata = "snapshot ", "metadata "
	switch v := op.(type) {
	case journal.SnapCreate:
		return []string{snapshot + v.Name}
	case journal.SnapRemove:
		return []string{snapshot + v.Name}
	case journal.SnapProtect:
		return []string{snapshot + v.Name}
	case journal.SnapUnprotect:
		return []string{snapshot + v.Name}
	case journal.SnapRename:
		return []string{snapshot + v.OldName, snapshot + v.NewName}
	case journal.SnapLimit:
		return []string{"snapshot limit"}
	case journal.Rename:
		return []string{"name"}
	case journal.Resize, journal.SnapRollback:
		return []string{"size"}
	case journal.UpdateFeatures:
		return []string{"features"}
	case journal.MetadataSet:
		return []string{metadata + v.Key}
	case journal.MetadataRemove:
		return []string{metadata + v.Key}
	}
	return nil
}
