package journal

import (
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
)

// Entry is one entry of the journal and where it was found.
type Entry struct {
	Position wire.ObjectPosition
	Offset   uint64 // where in the data object the entry starts, in bytes
	Payload  []byte // an encoded event; shares memory with its neighbours

	lease *lease // nil if nobody counts the memory
}

// Size is what the entry takes in its data object, in bytes.
func (e Entry) Size() int { return wire.EntryOverhead + len(e.Payload) }

// EndOfTag says that no more entries of a tag will follow: a newer tag exists, and
// the next entry of this one is not where it would have to be. A tailer that starts
// at a tag's last entry says it again.
type EndOfTag struct {
	Tag wire.TagTID
	// Entries is how many entries the tag had, in an unbroken sequence.
	Entries wire.EntryTID
}

// Dropped counts entries that lay behind a hole at the end of a tag: their writer
// died before it had written an earlier one, so none of them was acknowledged.
type Dropped struct {
	Count       uint64
	First, Last wire.ObjectPosition // as found; valid if Count > 0
}

func (d *Dropped) add(at wire.ObjectPosition) {
	if d.Count == 0 {
		d.First = at
	}
	d.Last = at
	d.Count++
}

// mergeState says what the merge waits for.
//
//	          first entry of a tag             newer tag in its place, or endTag
//	between ───────────────────────▶ within ────────────────────────────────────▶ between
//	   ▲                               ▲
//	   └── start, nothing committed    └── start, behind what is committed
type mergeState uint8

const (
	// between: due is entry 0 of any tag above ended, at splay offset 0.
	between mergeState = iota
	// within: due is entry next of tag, at splay offset next mod width.
	within
)

// merge puts the entries of the splay objects into the order in which they were
// written. It does no I/O: the caller feeds it entries of each splay offset in
// the order of their objects, and asks for the next step.
type merge struct {
	queues []entryQueue // one a splay offset

	state    mergeState
	tag      wire.TagTID   // within: the tag
	next     wire.EntryTID // within: the entry that is due
	ended    wire.TagTID   // between: tags up to this one are over
	anyEnded bool          // ended counts

	// Everything up to here was committed before the start and is skipped.
	committed    wire.ObjectPosition
	anyCommitted bool

	bytes   int64   // Size of all queued entries
	dropped Dropped // since takeDropped
}

// newMerge starts behind a client's newest committed position, or, if it has none,
// at the journal's beginning, of which nothing may have been trimmed.
func newMerge(width uint8, committed wire.ObjectSetPosition) *merge {
	m := &merge{queues: make([]entryQueue, width)}
	if at, ok := committed.Newest(); ok {
		m.committed, m.anyCommitted = at, true
		m.state, m.tag, m.next = within, at.Tag, at.Entry+1
	}
	return m
}

// step is what next found: exactly one of its fields counts.
type step struct {
	entry *Entry
	ended *EndOfTag
	// need: the queue of this splay offset is empty and has to be fed, or found
	// exhausted.
	need *uint8
	// bad is an entry that does not belong where it is.
	bad *badEntry
}

type badEntry struct {
	found Entry
	due   wire.ObjectPosition
}

func needStep(offset uint8) step { return step{need: &offset} }

// feed appends entries of a splay offset.
func (m *merge) feed(offset uint8, entries []Entry) {
	m.bytes += m.queues[offset].push(entries)
}

func (m *merge) pop(q *entryQueue) Entry {
	e := q.pop()
	m.bytes -= int64(e.Size())
	return e
}

// nextStep takes the next step. After bad it must not be called again.
func (m *merge) nextStep() step {
	for {
		switch m.state {
		case between:
			if s, ok := m.stepBetween(); ok {
				return s
			}
		case within:
			return m.stepWithin()
		}
	}
}

func (m *merge) stepBetween() (step, bool) {
	q := &m.queues[0]
	m.dropEnded(q)
	if q.empty() {
		return needStep(0), true
	}
	front := q.front()
	if front.Position.Entry != 0 {
		return step{bad: &badEntry{found: *front, due: wire.ObjectPosition{Object: front.Position.Object, Tag: front.Position.Tag}}}, true
	}
	m.state, m.tag, m.next = within, front.Position.Tag, 0
	return step{}, false
}

func (m *merge) stepWithin() step {
	offset := m.due()
	q := &m.queues[offset]
	m.dropOld(q)
	if q.empty() {
		return needStep(offset)
	}
	front := q.front()
	switch {
	case front.Position.Tag > m.tag:
		return step{ended: m.endTag()}
	case front.Position.Entry != m.next:
		due := wire.ObjectPosition{Object: front.Position.Object, Tag: m.tag, Entry: m.next}
		return step{bad: &badEntry{found: *front, due: due}}
	}
	m.next++
	e := m.pop(q)
	return step{entry: &e}
}

// due is the splay offset where the next entry has to be.
func (m *merge) due() uint8 {
	if m.state != within {
		return 0
	}
	return uint8(uint64(m.next) % uint64(len(m.queues)))
}

// endTag ends the tag that the merge is within. The caller may do so only if a
// newer tag exists and the due place was found empty after that was known.
func (m *merge) endTag() *EndOfTag {
	end := &EndOfTag{Tag: m.tag, Entries: m.next}
	m.state, m.ended, m.anyEnded = between, m.tag, true
	for o := range m.queues {
		m.dropEnded(&m.queues[o])
	}
	return end
}

// dropEnded drops entries of tags that are over, but for those that were
// committed: these were not lost.
func (m *merge) dropEnded(q *entryQueue) {
	for !q.empty() && m.anyEnded && q.front().Position.Tag <= m.ended {
		m.drop(q)
	}
}

// dropOld drops what lies before the current tag, and what was committed.
func (m *merge) dropOld(q *entryQueue) {
	for !q.empty() && (q.front().Position.Tag < m.tag || m.wasCommitted(q.front().Position)) {
		m.drop(q)
	}
}

func (m *merge) drop(q *entryQueue) {
	e := m.pop(q)
	e.Done()
	if !m.wasCommitted(e.Position) {
		m.dropped.add(e.Position)
	}
}

func (m *merge) wasCommitted(at wire.ObjectPosition) bool {
	return m.anyCommitted && !before(m.committed, at)
}

// takeDropped tells what was dropped since the last call.
func (m *merge) takeDropped() Dropped {
	d := m.dropped
	m.dropped = Dropped{}
	return d
}

// entryQueue holds the entries of one splay offset that were read and not yet
// handed out.
type entryQueue struct {
	entries []Entry
	bytes   int64 // Size of all entries
}

func (q *entryQueue) empty() bool   { return len(q.entries) == 0 }
func (q *entryQueue) front() *Entry { return &q.entries[0] }

// push appends entries and tells their size.
func (q *entryQueue) push(entries []Entry) (bytes int64) {
	if len(entries) == 0 {
		return 0
	}
	if len(q.entries) == 0 {
		q.entries = entries
	} else {
		q.entries = append(q.entries, entries...)
	}
	for i := range entries {
		bytes += int64(entries[i].Size())
	}
	q.bytes += bytes
	return bytes
}

func (q *entryQueue) pop() Entry {
	e := q.entries[0]
	q.entries[0] = Entry{} // let go of the payload
	q.entries = q.entries[1:]
	q.bytes -= int64(e.Size())
	return e
}

// before tells whether a is an earlier entry than b.
func before(a, b wire.ObjectPosition) bool {
	return a.Tag < b.Tag || a.Tag == b.Tag && a.Entry < b.Entry
}
