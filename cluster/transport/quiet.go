package transport

import (
	"sync"
	"time"
)

// quiet lets one line of a kind through at a time, and counts the others: whoever knocks
// at the port all day cannot fill the log.
type quiet struct {
	mu    sync.Mutex
	kinds map[string]*held
}

// held is what is known of a kind of line.
type held struct {
	last time.Time
	more int // since
}

const (
	quietFor = 10 * time.Second // between two lines of a kind
	maxKinds = 64               // the rest is one more kind
	restKind = "others"
)

// pass tells whether a line is to be written, and how many of its kind were not.
func (q *quiet) pass(kind string, now time.Time) (more int, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.kinds == nil {
		q.kinds = map[string]*held{}
	}
	if q.kinds[kind] == nil && len(q.kinds) >= maxKinds {
		for k, h := range q.kinds {
			if now.Sub(h.last) > quietFor {
				delete(q.kinds, k)
			}
		}
		if len(q.kinds) >= maxKinds {
			kind = restKind
		}
	}
	h := q.kinds[kind]
	if h == nil {
		h = &held{}
		q.kinds[kind] = h
	}
	if !h.last.IsZero() && now.Sub(h.last) < quietFor {
		h.more++
		return 0, false
	}
	more, h.more, h.last = h.more, 0, now
	return more, true
}
