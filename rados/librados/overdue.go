package librados

import (
	"sync"
	"time"
)

// abandonedOps are the operations and calls of all connections that nobody waits for any more
// and that librados has not given back. Every one of them has a timeout of librados' own,
// so those that stay are stuck.
type abandonedOps struct {
	mu    sync.Mutex
	last  uint64
	since map[uint64]time.Time
}

var abandoned = abandonedOps{since: map[uint64]time.Time{}}

// add notes that nobody waits for an operation any more, and gives it a number, which is
// not 0.
func (a *abandonedOps) add() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last++
	a.since[a.last] = time.Now()
	return a.last
}

// remove notes that librados has given an operation back. 0 is none.
func (a *abandonedOps) remove(id uint64) {
	if id == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.since, id)
}

// Overdue counts the operations, over all connections of the process, that were given up
// before a moment and that librados has not given back since.
func Overdue(before time.Time) (n int) {
	abandoned.mu.Lock()
	defer abandoned.mu.Unlock()
	for _, since := range abandoned.since {
		if since.Before(before) {
			n++
		}
	}
	return n
}
