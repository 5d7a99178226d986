package site

import (
	"fmt"
	"hash/fnv"
	"io"
	"sync"
	"time"
)

// trace is what happened, in order, one line each.
type trace struct {
	mu    sync.Mutex
	start time.Time
	sum   uint64 // of the lines, in any order: what happens at one moment has none
	lines int
	to    io.Writer // nil: only the sum is kept
}

func (t *trace) add(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	line := fmt.Sprintf("%14.6f  %s\n", time.Since(t.start).Seconds()*1000, fmt.Sprintf(format, args...))
	h := fnv.New64a()
	_, _ = io.WriteString(h, line)
	t.sum += h.Sum64()
	t.lines++
	if t.to != nil {
		_, _ = io.WriteString(t.to, line)
	}
}

// log puts a member's log into what is printed, and not into the sum.
type log struct {
	t    *trace
	name string
}

// Write implements io.Writer.
func (l log) Write(b []byte) (int, error) {
	l.t.mu.Lock()
	defer l.t.mu.Unlock()
	_, _ = fmt.Fprintf(l.t.to, "%14.6f    log of %s: %s", time.Since(l.t.start).Seconds()*1000, l.name, b)
	return len(b), nil
}
