package replay

import (
	"github.com/rbdwarden/rbdwarden/ceph/journal"
)

// Config bounds a planner. Zero fields get the value of DefaultConfig, except
// SplayWidth, which every journal has its own of.
type Config struct {
	// SplayWidth is the journal's.
	SplayWidth uint8
	// Committed is the client's commit position; entries behind it are pushed.
	Committed journal.ObjectSetPosition
	// Covered says which entries the image has the effects of, if any.
	Covered journal.Covered

	// StepBytes and StepIOs bound a Writes step (payload in bytes, I/Os). One larger
	// entry is a step of its own.
	StepBytes int
	StepIOs   int
	// HeldBytes is the payload in bytes, of queued entries and unfinished steps,
	// from which the planner is Full.
	HeldBytes int
	// HeldEntries is the number of queued entries from which it is Full: entries
	// without data cost memory, too.
	HeldEntries int
	// InFlight is how many Writes steps may be under way together.
	InFlight int
	// Pending is how many operations without outcome may be followed by others.
	Pending int
}

// DefaultConfig are the bounds for an image with an ordinary share of memory.
var DefaultConfig = Config{
	StepBytes:   8 << 20,
	StepIOs:     2048,
	HeldBytes:   32 << 20,
	HeldEntries: 16384,
	InFlight:    2,
	Pending:     64,
}

func (c Config) withDefaults() Config {
	set := func(v *int, def int) {
		if *v <= 0 {
			*v = def
		}
	}
	set(&c.StepBytes, DefaultConfig.StepBytes)
	set(&c.StepIOs, DefaultConfig.StepIOs)
	set(&c.HeldBytes, DefaultConfig.HeldBytes)
	set(&c.HeldEntries, DefaultConfig.HeldEntries)
	set(&c.InFlight, DefaultConfig.InFlight)
	set(&c.Pending, DefaultConfig.Pending)
	return c
}

// Entry is a journal entry, decoded.
type Entry struct {
	Position journal.ObjectPosition
	Event    journal.Event
	// Bytes is the memory that the entry's payload holds, which the event's data
	// shares.
	Bytes int
}

// Planner turns entries into steps. It is not safe for concurrent use. See the
// package's text for the contract.
type Planner struct {
	cfg   Config
	queue []Entry // pushed, not yet planned
	last  journal.ObjectPosition
	any   bool // whether an entry was pushed yet
	held  int  // bytes in queue, batch, ready and flying
	tight bool // see Tight

	tag      journal.TagTID // of the entries being planned
	tagKnown bool
	batch    batch // I/O being gathered
	epoch    uint64
	dirty    bool      // something was planned behind the last Checkpoint
	ready    []*flight // planned, not yet given
	flying   map[StepID]*flight
	ids      StepID
	err      error

	covering bool         // the entries being planned may be covered (Config.Covered)
	pending  []*pendingOp // events planned, operations not; in the journal's order
	outcomes outcomes
	waiting  *opKey // the outcome without which planning cannot go on
	asked    map[opKey]bool

	safe *checkpoint
}

// New makes a planner for a replay that starts behind cfg.Committed. It panics if
// the splay width is 0, which no journal has.
func New(cfg Config) *Planner {
	if cfg.SplayWidth == 0 {
		panic("replay: splay width is 0")
	}
	return &Planner{
		cfg:      cfg.withDefaults(),
		flying:   map[StepID]*flight{},
		outcomes: outcomes{results: map[opKey]int32{}, presumed: map[opKey]bool{}},
		asked:    map[opKey]bool{},
		safe:     newCheckpoint(cfg.SplayWidth, cfg.Committed),
		covering: len(cfg.Covered.Open) > 0,
		dirty:    true, // what a replay before us did behind Committed is unknown
	}
}

// Push takes the next entry. The error is an *OrderError if it is not the next; then
// nothing was taken. Events that cannot be applied show in Err when their turn comes.
func (p *Planner) Push(e Entry) error {
	if p.any && !follows(p.last, e.Position) {
		return &OrderError{Last: p.last, Got: e.Position}
	}
	p.last, p.any = e.Position, true
	p.queue = append(p.queue, e)
	p.held += e.Bytes
	p.outcomes.sawTag(e.Position.Tag)
	if f, ok := e.Event.(journal.OpFinish); ok {
		p.outcomes.set(opKey{e.Position.Tag, f.Op}, f.Result)
	}
	return nil
}

// follows: entries of a tag are numbered without holes; a newer tag starts where it
// likes, because the place from which we read may be in the middle of it.
func follows(last, next journal.ObjectPosition) bool {
	if next.Tag == last.Tag {
		return next.Entry == last.Entry+1
	}
	return next.Tag > last.Tag
}

// Outcome answers NeedOutcome: the operation's OpFinish is further on in the journal
// and has that result (0 or a negative errno). The entry is pushed in its turn, too.
func (p *Planner) Outcome(tag journal.TagTID, op journal.OpTID, result int32) {
	p.outcomes.set(opKey{tag, op}, result)
}

// NoOutcome answers NeedOutcome: the journal has entries of a newer tag, and before
// them no OpFinish of that operation.
func (p *Planner) NoOutcome(tag journal.TagTID, op journal.OpTID) {
	p.outcomes.presumed[opKey{tag, op}] = true
}

// EndTag says that everything that the journal has of a tag was pushed, and that a
// newer tag exists, of which no entry may ever come: operations of the tag without an
// OpFinish were completed by the primary's own replay, before it made that tag.
func (p *Planner) EndTag(tag journal.TagTID) { p.outcomes.sawTag(tag + 1) }

// Safe says that the effect of a step is durable. It panics if the step was not
// given or is safe already.
func (p *Planner) Safe(id StepID) {
	f, ok := p.flying[id]
	if !ok {
		panic("replay: step is not under way")
	}
	delete(p.flying, id)
	p.held -= f.bytes
	if f.segment != nil {
		p.safe.settle(f.segment)
	}
}

// Position is the commit position that covers the contiguous safe prefix, newest
// entry first.
func (p *Planner) Position() journal.ObjectSetPosition {
	return append(journal.ObjectSetPosition(nil), p.safe.position...)
}

// Held is the payload in bytes that queued entries and unfinished steps hold.
func (p *Planner) Held() int { return p.held }

// Tight says whether the caller can push no more for now, for want of memory: then the
// planner is Full, and asks for what it else would find further on in the journal.
func (p *Planner) Tight(tight bool) { p.tight = tight }

// Full asks the caller to push no more for now. Next and Safe make room.
func (p *Planner) Full() bool {
	return p.tight || p.held >= p.cfg.HeldBytes || len(p.queue) >= p.cfg.HeldEntries
}

// Idle says that everything pushed is safe, but for operations whose outcome is
// outstanding.
func (p *Planner) Idle() bool {
	return len(p.queue) == 0 && p.batch.empty() && len(p.ready) == 0 && len(p.flying) == 0
}

// Err is why planning has ended, an *UnknownEventError or *InvalidEventError, or
// nil. The steps before it are still given: look at it when Next gives none.
func (p *Planner) Err() error {
	if len(p.ready) > 0 {
		return nil
	}
	return p.err
}

// Wait says what a planner waits for that has entries but gives no step.
type Wait struct {
	Steps   int  // steps under way
	ForOp   bool // the outcome of this operation is needed:
	Tag     journal.TagTID
	Op      journal.OpTID
	Queued  int // entries behind it
	Pending int // operations whose outcome is outstanding
}

// Waiting tells what the planner waits for, for status.
func (p *Planner) Waiting() Wait {
	w := Wait{Steps: len(p.flying), Queued: len(p.queue), Pending: len(p.pending)}
	if p.waiting != nil {
		w.ForOp, w.Tag, w.Op = true, p.waiting.tag, p.waiting.op
	}
	return w
}
