package supervision

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rbdwarden/rbdwarden/report"
)

// End is one end of something that is supervised, for a Ledger.
type End struct {
	Level string `json:"level"` // report.LevelImage and so on
	Name  string `json:"name"`  // of the thing among those of its level, the same over all its lives
	Cause Cause  `json:"cause"`
	// Again says that it had not worked since its end before.
	Again bool `json:"again,omitempty"`
}

// maxRecords bounds a Ledger. Whoever has not ended for the longest time is forgotten
// first.
const maxRecords = 10000

// Ledger remembers the ends of many things, beyond the lives of those who see them die: a
// pool's actor that panics, or a worker that is killed, takes nothing along. It is safe
// for use by many goroutines. The zero Ledger is empty and ready; nil remembers nothing.
type Ledger struct {
	mu    sync.Mutex
	book  Book
	tell  func(End)
	order map[ledgerKey]time.Time
}

type ledgerKey struct{ level, name string }

// Book is what a Ledger has, as JSON carries it.
type Book struct {
	// Records are the records by level and name.
	Records map[string]map[string]report.Record `json:"records,omitempty"`
	// Counts are the ends by level and reason, also of things that are forgotten.
	Counts map[string]map[string]uint64 `json:"counts,omitempty"`
}

// NewLedger makes a ledger that begins with a book, and tells of every end that is added;
// tell may be nil.
func NewLedger(b Book, tell func(End)) *Ledger {
	l := &Ledger{tell: tell, book: b.clone(), order: map[ledgerKey]time.Time{}}
	for level, of := range l.book.Records {
		for name, r := range of {
			if last := r.Last(); last != nil {
				l.order[ledgerKey{level, name}] = last.When
			}
		}
	}
	return l
}

// Add notes an end and returns the thing's record after it.
func (l *Ledger) Add(e End) report.Record {
	if l == nil {
		var r report.Record
		r.Add(e.Cause, e.Again)
		return r
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.book.Records == nil {
		l.book.Records, l.book.Counts, l.order = map[string]map[string]report.Record{}, map[string]map[string]uint64{}, map[ledgerKey]time.Time{}
	}
	if l.book.Records[e.Level] == nil {
		l.book.Records[e.Level] = map[string]report.Record{}
	}
	if l.book.Counts[e.Level] == nil {
		l.book.Counts[e.Level] = map[string]uint64{}
	}
	r := l.book.Records[e.Level][e.Name]
	r.Reasons = maps.Clone(r.Reasons) // one that was handed out never changes
	r.Add(e.Cause, e.Again)
	l.book.Records[e.Level][e.Name] = r
	l.book.Counts[e.Level][e.Cause.Reason()]++
	l.order[ledgerKey{e.Level, e.Name}] = e.Cause.When
	l.bound()
	if l.tell != nil {
		l.tell(e)
	}
	return r
}

// bound forgets the oldest.
func (l *Ledger) bound() {
	if len(l.order) <= maxRecords {
		return
	}
	var oldest ledgerKey
	for k, when := range l.order {
		if at, ok := l.order[oldest]; !ok || when.Before(at) {
			oldest = k
		}
	}
	delete(l.order, oldest)
	delete(l.book.Records[oldest.level], oldest.name)
}

// Of is the record of a thing.
func (l *Ledger) Of(level, name string) report.Record {
	if l == nil {
		return report.Record{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.book.Records[level][name]
}

// Book is a copy of everything.
func (l *Ledger) Book() Book {
	if l == nil {
		return Book{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.book.clone()
}

// Counts are the ends by level and reason.
func (l *Ledger) Counts() map[string]map[string]uint64 { return l.Book().Counts }

// Bounds of a Brief book: ends of one thing, and bytes of an end's text.
const (
	briefEnds = 5
	briefText = 300
)

// Brief is the book for a new worker: without the counts, and with the newest ends only, so that
// it goes into a message also when it has as many records as a Ledger can have.
func (b Book) Brief() Book {
	c := Book{Records: b.clone().Records}
	for _, of := range c.Records {
		for name, r := range of {
			r.Ends = r.Ends[max(0, len(r.Ends)-briefEnds):]
			for i := range r.Ends {
				r.Ends[i].Text = report.Bounded(r.Ends[i].Text, briefText)
			}
			of[name] = r
		}
	}
	return c
}

func (b Book) clone() Book {
	c := Book{Records: map[string]map[string]report.Record{}, Counts: map[string]map[string]uint64{}}
	for level, of := range b.Records {
		c.Records[level] = map[string]report.Record{}
		for name, r := range of {
			r.Ends, r.Reasons = slices.Clone(r.Ends), maps.Clone(r.Reasons)
			c.Records[level][name] = r
		}
	}
	for level, of := range b.Counts {
		c.Counts[level] = maps.Clone(of)
	}
	return c
}
