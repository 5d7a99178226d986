package report

import (
	"maps"
	"slices"
	"time"
)

// HistoryLength is how many ends are remembered of one thing.
const HistoryLength = 20

// MaxRemembered bounds the text of an end that is remembered, in bytes: a panic's stack is
// in the log.
const MaxRemembered = 1000

// Record is what became of the earlier lives of something that is supervised. The zero
// Record is of something that never ended.
type Record struct {
	// Restarts counts its restarts. Ends of which several came before it worked again
	// (an attempt that fails as the one before did) made one restart.
	Restarts int `json:"restarts"`
	// Ends are the last ends, newest last, at most HistoryLength. Equal ones in a row are
	// one with Times.
	Ends []Cause `json:"ends,omitempty"`
	// Reasons counts all ends ever by Cause.Reason.
	Reasons map[string]uint64 `json:"reasons,omitempty"`
}

// Add notes an end. again says that it had not worked since the end before.
func (r *Record) Add(c Cause, again bool) {
	if !again {
		r.Restarts++
	}
	if r.Reasons == nil {
		r.Reasons = map[string]uint64{}
	}
	r.Reasons[c.Reason()]++
	c.Text = Bounded(c.Text, MaxRemembered)
	r.Ends = append(r.Ends, c)
	r.fold()
}

// fold makes one of equal ends in a row at the end of the list, and keeps the list short.
func (r *Record) fold() {
	if n := len(r.Ends); n > 1 && r.Ends[n-1].same(r.Ends[n-2]) {
		last, before := r.Ends[n-1], r.Ends[n-2]
		last.Times, last.First = max(1, last.Times)+max(1, before.Times), before.since()
		// A list that was handed out never changes.
		r.Ends = append(slices.Clone(r.Ends[:n-2]), last)
	}
	if n := len(r.Ends); n > HistoryLength {
		r.Ends = slices.Clone(r.Ends[n-HistoryLength:])
	}
}

func (c Cause) since() time.Time {
	if c.First.IsZero() {
		return c.When
	}
	return c.First
}

// Last is the newest end, nil if there was none.
func (r Record) Last() *Cause {
	if len(r.Ends) == 0 {
		return nil
	}
	c := r.Ends[len(r.Ends)-1]
	return &c
}

// Plus is the record of something together with that of what it is part of: the ends of
// that were its own ends, too.
func (r Record) Plus(of Record) Record {
	sum := Record{Restarts: r.Restarts + of.Restarts, Reasons: maps.Clone(r.Reasons)}
	for reason, n := range of.Reasons {
		if sum.Reasons == nil {
			sum.Reasons = map[string]uint64{}
		}
		sum.Reasons[reason] += n
	}
	sum.Ends = append(slices.Clone(r.Ends), of.Ends...)
	slices.SortStableFunc(sum.Ends, func(a, b Cause) int { return a.When.Compare(b.When) })
	if n := len(sum.Ends); n > HistoryLength {
		sum.Ends = sum.Ends[n-HistoryLength:]
	}
	return sum
}
