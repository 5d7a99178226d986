package sim

import (
	"encoding/binary"
	"fmt"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
)

// sector is the unit in which the model knows contents, in bytes. All I/O of the primary
// is in whole sectors.
const sector = 512

// event is something in the primary's journal.
type event struct {
	position wire.ObjectPosition
	from, to int  // sectors that it changed
	zero     bool // to zeros
	flush    bool
	compare  bool // a compare-and-write
}

// model is what the primary has done to an image: its contents after each event.
//
// Every sector that is written names the event that wrote it, so that the copy tells how
// far each of its sectors is.
type model struct {
	number              int
	id                  string // of the remote image
	globalID            string
	sectors             int
	events              []event   // 0 is what the image held before the first
	history             [][]int32 // by sector: the events that changed it, ascending, 0 first
	flushed             []int32   // by event: the newest flush before it; 0: none
	at                  map[place]int32
	snaps               map[string]int32 // by name: taken behind which event
	promoting, promoted bool             // the copy is to be, and is primary: nobody but its user may write it
	copied              string           // id of the copy, once it was opened
	shown               []reading        // by sector: what the copy shows
	era                 *era
	safe                int32 // committed
	highest             int32 // the newest event of which anything has landed
}

// place is an entry's place in the journal.
type place struct {
	tag   wire.TagTID
	entry wire.EntryTID
}

func newModel(number, sectors int) *model {
	m := &model{
		number: number, id: fmt.Sprintf("r%d", number), globalID: fmt.Sprintf("global-%d", number), sectors: sectors,
		events: make([]event, 1), history: make([][]int32, sectors), flushed: make([]int32, 1),
		shown: make([]reading, sectors), at: map[place]int32{}, snaps: map[string]int32{},
	}
	for s := range m.history {
		m.history[s] = []int32{0}
		m.shown[s].zero = true
	}
	return m
}

// next is the number that the next event will have.
func (m *model) next() int32 { return int32(len(m.events)) }

// happened notes an event.
func (m *model) happened(e event) {
	n, newest := m.next(), m.flushed[len(m.flushed)-1]
	if m.events[n-1].flush {
		newest = n - 1
	}
	m.events, m.flushed = append(m.events, e), append(m.flushed, newest)
	m.at[place{e.position.Tag, e.position.Entry}] = n
	for s := e.from; s < e.to; s++ {
		m.history[s] = append(m.history[s], n)
	}
}

// stamp fills a sector with what an event writes there. The first filled quarter of an
// image is what is known before the first event.
func (m *model) stamp(b []byte, n int32, s int) {
	binary.LittleEndian.PutUint32(b, uint32(n)+1)
	binary.LittleEndian.PutUint32(b[4:], uint32(s))
	for i := 8; i < sector; i++ {
		b[i] = byte(int(n)*7 + s*3 + i + m.number)
	}
}

// everywhere is the sector number in what a write-same writes.
const everywhere = 1<<31 - 1

// contents is what the sectors [from, to) hold behind an event.
func (m *model) contents(n int32, from, to int) []byte {
	b := make([]byte, (to-from)*sector)
	for s := from; s < to; s++ {
		m.fill(b[(s-from)*sector:][:sector], m.newest(s, n), s)
	}
	return b
}

// fill gives a sector the bytes that an event left in it.
func (m *model) fill(b []byte, n int32, s int) {
	switch {
	case n == 0 && s >= m.sectors/2, m.events[n].zero:
		clear(b)
	case n > 0 && m.events[n].to > m.events[n].from && m.events[n].same():
		m.stamp(b, n, everywhere)
	default:
		m.stamp(b, n, s)
	}
}

// same tells whether the event wrote the same bytes everywhere. That is decided by its
// number, so that the model need not keep it.
func (e event) same() bool { return e.position.Entry%7 == 3 }

// newest is the newest event up to n that changed a sector.
func (m *model) newest(s int, n int32) int32 {
	h := m.history[s]
	i := len(h) - 1
	for h[i] > n {
		i--
	}
	return h[i]
}

// after is the first event behind n that changed a sector; next() if there is none.
func (m *model) after(s int, n int32) int32 {
	h := m.history[s]
	found := m.next()
	for i := len(h) - 1; i >= 0 && h[i] > n; i-- {
		found = h[i]
	}
	return found
}

// zeros tells whether an event left zeros in a sector.
func (m *model) zeros(s int, n int32) bool {
	return n == 0 && s >= m.sectors/2 || m.events[n].zero
}

// reading is which events may have left what a sector holds: one that is sure, or any of
// those that left zeros.
type reading struct {
	n    int32
	zero bool
}

// read tells which event a sector's bytes are from; false if they are from none.
func (m *model) read(b []byte, s int) (reading, bool) {
	n := int32(binary.LittleEndian.Uint32(b)) - 1
	if n < 0 {
		for _, c := range b {
			if c != 0 {
				return reading{}, false
			}
		}
		for _, e := range m.history[s] {
			if m.zeros(s, e) {
				return reading{zero: true}, true
			}
		}
		return reading{}, false
	}
	if n >= m.next() || m.newest(s, n) != n || m.zeros(s, n) {
		return reading{}, false
	}
	var want [sector]byte
	m.fill(want[:], n, s)
	return reading{n: n}, string(want[:]) == string(b)
}

// least is the oldest event not below limit that a sector may show; false if there is none.
func (m *model) least(s int, r reading, limit int32) (int32, bool) {
	if !r.zero {
		return r.n, r.n >= limit
	}
	for _, e := range m.history[s] {
		if e >= limit && m.zeros(s, e) {
			return e, true
		}
	}
	return 0, false
}

// most is the newest event not above limit that a sector may show; false if there is none.
func (m *model) most(s int, r reading, limit int32) (int32, bool) {
	if !r.zero {
		return r.n, r.n <= limit
	}
	h := m.history[s]
	for i := len(h) - 1; i >= 0; i-- {
		if h[i] <= limit && m.zeros(s, h[i]) {
			return h[i], true
		}
	}
	return 0, false
}
