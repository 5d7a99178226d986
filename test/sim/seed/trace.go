// Package seed has what simulations that are repeated by a seed have in common: the flags that
// say which, the loop over them, and the trace of a run.
package seed

import (
	"fmt"
	"hash/fnv"
	"io"
	"sync"
	"time"
)

// Trace is what happened, in order, one line each.
type Trace struct {
	mu    sync.Mutex
	start time.Time
	print Print
	to    io.Writer // nil: only the print is kept
}

// Print is what two runs of one seed have in common.
type Print struct {
	Sum   uint64 // of the lines, in any order: what happens at one moment has none
	Lines int
}

// NewTrace begins a trace now. Its lines go to a writer unless that is nil.
func NewTrace(to io.Writer) *Trace { return &Trace{start: time.Now(), to: to} }

// Add adds a line.
func (t *Trace) Add(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	line := fmt.Sprintf("%14.6f  %s\n", t.milliseconds(), fmt.Sprintf(format, args...))
	h := fnv.New64a()
	_, _ = io.WriteString(h, line)
	t.print.Sum += h.Sum64()
	t.print.Lines++
	if t.to != nil {
		_, _ = io.WriteString(t.to, line)
	}
}

func (t *Trace) milliseconds() float64 { return time.Since(t.start).Seconds() * 1000 }

// Print is that of the lines so far.
func (t *Trace) Print() Print {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.print
}

// Verbose tells whether the lines go anywhere.
func (t *Trace) Verbose() bool { return t.to != nil }

// Log takes the log of somebody: it is printed among the lines, and does not count.
func (t *Trace) Log(whose string) io.Writer { return log{t, whose} }

type log struct {
	t     *Trace
	whose string
}

// Write implements io.Writer.
func (l log) Write(b []byte) (int, error) {
	l.t.mu.Lock()
	defer l.t.mu.Unlock()
	_, _ = fmt.Fprintf(l.t.to, "%14.6f    log of %s: %s", l.t.milliseconds(), l.whose, b)
	return len(b), nil
}
