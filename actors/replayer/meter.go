package replayer

import (
	"sync"
	"time"

	"github.com/rbdwarden/rbdwarden/report"
)

// Meter counts what is replayed. The zero value is ready; a nil one counts nothing. It may
// be used by several images at a time.
type Meter struct {
	mu    sync.Mutex
	total report.Replayed
}

// add counts entries that became safe together, took after their turn had come.
func (m *Meter) add(entries int, bytes int64, took time.Duration) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.total.Entries += uint64(entries)
	m.total.Bytes += uint64(bytes)
	m.total.Seconds += took.Seconds() * float64(entries)
}

// Read is the count so far.
func (m *Meter) Read() report.Replayed {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.total
}
