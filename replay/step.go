package replay

import (
	"fmt"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph/journal"
)

// StepID numbers the steps of a planner from 1 in the order in which they were
// planned.
type StepID uint64

// ID is the step's number, which goes to Planner.Safe.
func (id StepID) ID() StepID { return id }

func (StepID) isStep() {}

// Step is something that the caller has to do. The set is closed: Writes,
// CompareAndWrite, Operation, Skipped, Checkpoint, TagChange, Handover and
// NeedOutcome.
type Step interface {
	ID() StepID
	fmt.Stringer
	isStep()
}

// IOKind says what an IO does.
type IOKind uint8

// The kinds of I/O.
const (
	Write IOKind = iota + 1
	Discard
	WriteSame
)

func (k IOKind) String() string {
	switch k {
	case Write:
		return "write"
	case Discard:
		return "discard"
	case WriteSame:
		return "writesame"
	}
	return fmt.Sprintf("IOKind(%d)", uint8(k))
}

// IO is one write, discard or write-same. Offset and Length are in bytes of the
// image and can reach beyond its end: what does is dropped, as librbd does, because
// the resize that belongs to it has then been seen already.
type IO struct {
	Kind   IOKind
	Offset uint64
	Length uint64
	// Data are the bytes of a Write, or a WriteSame's pattern, of which Length is a
	// multiple. It shares the memory of the journal entry.
	Data []byte
	// Granularity belongs to a Discard: see journal.AioDiscard.
	Granularity uint32
}

func (io IO) String() string { return fmt.Sprintf("%v %d~%d", io.Kind, io.Offset, io.Length) }

// Writes is I/O of one flush epoch. Where the extents do not overlap, the order is
// free; where they do, later IOs win.
type Writes struct {
	StepID
	IOs     []IO
	Upto    journal.ObjectPosition // the last entry in it
	Entries int                    // journal entries in it
	Bytes   int                    // payload held in memory
}

func (s Writes) String() string {
	return fmt.Sprintf("writes %v upto %s entries=%d bytes=%d", s.IOs, at(s.Upto), s.Entries, s.Bytes)
}

// CompareAndWrite writes Write at Offset if the image holds Compare there; both are
// of the same length. A mismatch is no error: then the primary's write failed too.
// It must be atomic, and beyond the image's end it does nothing.
type CompareAndWrite struct {
	StepID
	Offset  uint64
	Compare []byte
	Write   []byte
	Upto    journal.ObjectPosition
}

func (s CompareAndWrite) String() string {
	return fmt.Sprintf("compare-and-write %d~%d upto %s", s.Offset, len(s.Write), at(s.Upto))
}

// Operation applies an operation that happened on the primary.
type Operation struct {
	StepID
	Event journal.Operation
	At    journal.ObjectPosition // the event's entry
	// Tolerate are the errors which mean that it has happened here before.
	Tolerate []syscall.Errno
	// Presumed says that there is no OpFinish, but a newer tag: the primary died
	// and its own replay has completed the operation.
	Presumed bool
	// Concurrent says that Writes steps may be performed beside it, so that a long
	// flatten does not hold them up.
	Concurrent bool
}

func (s Operation) String() string {
	return fmt.Sprintf("operation %v %+v at %s tolerate=%v presumed=%v concurrent=%v",
		s.Event.Type(), s.Event, at(s.At), s.Tolerate, s.Presumed, s.Concurrent)
}

// Skipped tells of an operation that failed on the primary and is not applied. The
// caller asks Diverges, and says Safe if it does not.
type Skipped struct {
	StepID
	Event  journal.Operation
	At     journal.ObjectPosition
	Result syscall.Errno // why it failed, as a positive errno
}

func (s Skipped) String() string {
	return fmt.Sprintf("skipped %v %+v at %s result=%v", s.Event.Type(), s.Event, at(s.At), s.Result)
}

// Diverges says that the failed operation may have changed data on the primary
// before it failed, in ways that the journal does not tell: a rollback, or a shrink.
// localSize is the local image's size at this point in bytes. Then the local image
// needs a re-sync. A shrink that was interrupted (ERESTART: the exclusive lock was
// asked for) is forgiven, because librbd starts it again at the new owner, under a
// new event; upstream's replay stops at it.
func (s Skipped) Diverges(localSize uint64) bool {
	switch e := s.Event.(type) {
	case journal.SnapRollback:
		return true
	case journal.Resize:
		return e.Size < localSize && s.Result != syscall.ERESTART
	}
	return false
}

// Checkpoint asks that the planner's position is made durable in the journal now:
// the commit position must be stored before Safe is said.
type Checkpoint struct {
	StepID
}

func (s Checkpoint) String() string { return "checkpoint" }

// TagChange says that the next steps are of entries of a newer tag (or the first one
// pushed), so the local journal needs its tag. Everything of the old tag is safe.
type TagChange struct {
	StepID
	Tag journal.TagTID
}

func (s TagChange) String() string { return fmt.Sprintf("tag-change to %d", s.Tag) }

// Handover tells of a demotion or promotion; the data of the tag says which.
// Everything before it is safe. After a demotion the caller stores the position and
// stops.
type Handover struct {
	StepID
	At journal.ObjectPosition
}

func (s Handover) String() string { return "handover at " + at(s.At) }

// NeedOutcome asks the caller to look ahead in the journal from the entry behind
// After for the OpFinish of the operation, without keeping payloads, and to answer
// with Planner.Outcome, or with Planner.NoOutcome if it finds a newer tag first. If the
// journal ends before that, the search goes on when more is appended. It is given
// once per operation, may be performed beside everything else, and needs no Safe.
// Pushing on works as well.
type NeedOutcome struct {
	StepID
	Tag   journal.TagTID
	Op    journal.OpTID
	After journal.ObjectPosition // the last entry pushed
}

func (s NeedOutcome) String() string {
	return fmt.Sprintf("need-outcome tag=%d op=%d after %s", s.Tag, s.Op, at(s.After))
}

func at(p journal.ObjectPosition) string { return fmt.Sprintf("%d/%d", p.Tag, p.Entry) }
