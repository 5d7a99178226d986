package sim

import (
	"encoding/binary"
	"fmt"

	"github.com/rbdwarden/rbdwarden/ceph"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
)

// sector is the unit in which the model knows contents, in bytes. All I/O of the primary
// is in whole sectors, and so are sizes.
const sector = 512

// event is something in the primary's journal, or between two of its tags.
type event struct {
	position wire.ObjectPosition
	from, to int  // sectors that it changed
	zero     bool // to zeros
	flush    bool
	compare  bool // a compare-and-write
	resize   bool // from and to are what a smaller image loses
	size     int  // resize: the new one, in sectors
	rollback bool // to what the image was behind event back
	back     int32
}

// value is what a cell of the image holds: the number of the event that wrote a sector's
// bytes (0: they were there before the first), or zeros. The last cell is no sector but the
// size; its value is a number of sectors.
type value int32

const zeros value = -1

// change says that a cell has a value from an event on.
type change struct {
	n     int32
	value value
}

// model is what the primary has done to an image: its contents after each event.
//
// Every sector that is written names the event that wrote it, so that the copy tells how
// far each of its sectors is.
type model struct {
	number              int
	id                  string // of the remote image
	globalID            string
	sectors             int    // the image is never larger
	initial             int    // so many sectors from the start are filled before the first event
	parent              *model // the first sectors are shared with it, as long as nothing was written; nil: no clone
	events              []event
	history             [][]change // by cell: the events that changed it, ascending, 0 first
	flushed             []int32    // by event: the newest flush before it; 0: none
	at                  map[place]int32
	lives               []*snapshot
	promoting, promoted bool                      // the copy is to be, and is primary: nobody but its user may write it
	copied              string                    // id of the copy, once it was opened
	header              shape                     // of the copy, as it is
	shown               []value                   // by cell: what the copy shows
	sound               map[ceph.SnapID]*snapshot // of the copy's snapshots: which ones of the primary's they were found to be
	era                 *era
	safe                int32 // committed
	highest             int32 // the newest event of which anything has landed
}

// snapshot is the life of one of the primary's snapshots.
type snapshot struct {
	taken   int32 // behind which event
	removed int32 // by which event; 0: it is there
	names   []named
	kept    bool // nobody removes it
	busy    bool // an operation on it has not ended
	rolled  bool // the image was rolled back to it
}

// named is a name that a snapshot has from an event on.
type named struct {
	n    int32
	name string
}

func (s *snapshot) name() string { return s.names[len(s.names)-1].name }

// called tells whether a snapshot has had a name behind event n, or later.
func (s *snapshot) called(name string, n int32) bool {
	for i, have := range s.names {
		if have.name == name && (i+1 == len(s.names) || s.names[i+1].n > n) {
			return s.removed == 0 || s.removed > n
		}
	}
	return false
}

// place is an entry's place in the journal.
type place struct {
	tag   wire.TagTID
	entry wire.EntryTID
}

func newModel(number, sectors, size, initial int, parent *model) *model {
	m := &model{
		number: number, id: fmt.Sprintf("r%d", number), globalID: fmt.Sprintf("global-%d", number),
		sectors: sectors, initial: initial, parent: parent,
		events: make([]event, 1), history: make([][]change, sectors+1), flushed: make([]int32, 1),
		shown: make([]value, sectors+1), at: map[place]int32{}, sound: map[ceph.SnapID]*snapshot{},
	}
	for s := range m.history {
		first := zeros
		switch {
		case s == sectors:
			first = value(size)
		case s < initial:
			first = 0
		}
		m.history[s] = []change{{value: first}}
		m.shown[s] = zeros
	}
	return m
}

// next is the number that the next event will have.
func (m *model) next() int32 { return int32(len(m.events)) }

// happened notes an event. One without a position is what a client of the primary completed
// before it began its own tag.
func (m *model) happened(e event) {
	n, newest := m.next(), m.flushed[len(m.flushed)-1]
	if m.events[n-1].flush {
		newest = n - 1
	}
	m.events, m.flushed = append(m.events, e), append(m.flushed, newest)
	if e.position.Tag != 0 {
		m.at[place{e.position.Tag, e.position.Entry}] = n
	}
	if e.rollback {
		for s := range m.history {
			if v := m.value(s, e.back); v != m.value(s, n-1) {
				m.history[s] = append(m.history[s], change{n, v})
			}
		}
		return
	}
	written := value(n)
	if e.zero || e.resize {
		written = zeros
	}
	for s := e.from; s < e.to; s++ {
		if !e.resize || m.value(s, n-1) != zeros {
			m.history[s] = append(m.history[s], change{n, written})
		}
	}
	if e.resize {
		m.history[m.sectors] = append(m.history[m.sectors], change{n, value(e.size)})
	}
}

// stamp fills a sector with what an event writes there.
func (m *model) stamp(b []byte, n int32, s int) {
	binary.LittleEndian.PutUint32(b, uint32(n)+1)
	binary.LittleEndian.PutUint32(b[4:], uint32(s))
	for i := 8; i < sector; i++ {
		b[i] = byte(int(n)*7 + s*3 + i + m.number)
	}
}

// everywhere is the sector number in what a write-same writes.
const everywhere = 1<<31 - 1

// size is that of the image behind an event, in sectors.
func (m *model) size(n int32) int { return int(m.value(m.sectors, n)) }

// contents is what the sectors [from, to) hold behind an event.
func (m *model) contents(n int32, from, to int) []byte {
	b := make([]byte, (to-from)*sector)
	for s := from; s < to; s++ {
		m.fill(b[(s-from)*sector:][:sector], m.value(s, n), s)
	}
	return b
}

// fill gives a sector the bytes of a value.
func (m *model) fill(b []byte, v value, s int) {
	switch {
	case v == zeros:
		clear(b)
	case v == 0 && m.parent != nil:
		m.parent.fill(b, 0, s)
	case v > 0 && m.events[v].same():
		m.stamp(b, int32(v), everywhere)
	default:
		m.stamp(b, int32(v), s)
	}
}

// same tells whether the event wrote the same bytes everywhere. That is decided by its
// number, so that the model need not keep it.
func (e event) same() bool { return e.position.Entry%7 == 3 }

// entry finds the newest change of a cell up to event n.
func (m *model) entry(s int, n int32) int {
	h := m.history[s]
	i := len(h) - 1
	for h[i].n > n {
		i--
	}
	return i
}

// newest is the newest event up to n that changed a cell.
func (m *model) newest(s int, n int32) int32 { return m.history[s][m.entry(s, n)].n }

// value is what a cell holds behind event n.
func (m *model) value(s int, n int32) value { return m.history[s][m.entry(s, n)].value }

// after is the first event behind n that changed a cell; next() if there is none.
func (m *model) after(s int, n int32) int32 {
	h := m.history[s]
	if i := m.entry(s, n) + 1; i < len(h) {
		return h[i].n
	}
	return m.next()
}

// read tells which value a sector's bytes are; false if they are none that it ever had.
func (m *model) read(b []byte, s int) (value, bool) {
	v := value(binary.LittleEndian.Uint32(b)) - 1
	if v < -1 || int32(v) >= m.next() {
		return 0, false
	}
	if _, had := m.least(s, v, 0); !had {
		return 0, false
	}
	var want [sector]byte
	m.fill(want[:], v, s)
	return v, string(want[:]) == string(b)
}

// least is the oldest event not below limit that left a value in a cell; false if there is none.
func (m *model) least(s int, v value, limit int32) (int32, bool) {
	h := m.history[s]
	found := -1
	for i := len(h) - 1; i >= 0 && h[i].n >= limit; i-- {
		if h[i].value == v {
			found = i
		}
	}
	if found < 0 {
		return 0, false
	}
	return h[found].n, true
}

// most is the newest event not above limit that left a value in a cell; false if there is none.
func (m *model) most(s int, v value, limit int32) (int32, bool) {
	h := m.history[s]
	for i := len(h) - 1; i >= 0; i-- {
		if h[i].n <= limit && h[i].value == v {
			return h[i].n, true
		}
	}
	return 0, false
}
