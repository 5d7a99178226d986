package main

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/rbdwarden/rbdwarden/messages"
	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/rhythm"
)

// tracer takes the steps of a worker's images to the daemon: a new one at once, one that
// only counts on now and then. It never blocks an image.
type tracer struct {
	tell func(*controlv1.Traces)

	mu      sync.Mutex
	last    uint64
	pending []pendingLine
	counts  map[uint64]pendingLine // lines that only count on, by number
	lost    uint64
	news    chan struct{}
}

type pendingLine struct {
	key  messages.ImageKey
	id   uint64
	step report.Step
}

const (
	// traceDelay gathers steps that come together; a worker that is killed takes those of
	// so long with it.
	traceDelay = 50 * time.Millisecond
	// countInterval is how often lines that only count on are told.
	countInterval = 5 * time.Second
	// maxPending bounds what waits to be told. More is lost, and counted.
	maxPending = 20000
)

func newTracer(tell func(*controlv1.Traces)) *tracer {
	return &tracer{tell: tell, counts: map[uint64]pendingLine{}, news: make(chan struct{}, 1)}
}

// For is the tracer of one image: it takes a step and gives it a number, or takes what
// became of the step with a number.
func (t *tracer) For(key messages.ImageKey) func(id uint64, s report.Step) uint64 {
	return func(id uint64, s report.Step) uint64 {
		t.mu.Lock()
		defer t.mu.Unlock()
		if id != 0 {
			t.counts[id] = pendingLine{key, id, s}
			return id
		}
		t.last++
		if len(t.pending) >= maxPending {
			t.lost++
			return t.last
		}
		t.pending = append(t.pending, pendingLine{key, t.last, s})
		select {
		case t.news <- struct{}{}:
		default:
		}
		return t.last
	}
}

// Run tells the daemon, until ctx ends.
func (t *tracer) Run(ctx context.Context) {
	counts := rhythm.NewTicker(countInterval)
	defer counts.Stop()
	for {
		all := false
		select {
		case <-ctx.Done():
			t.flush(true)
			return
		case <-counts.C:
			counts.Next()
			all = true
		case <-t.news:
			select {
			case <-ctx.Done():
			case <-time.After(traceDelay):
			}
		}
		t.flush(all)
	}
}

// flush tells what waits, in messages of a bounded size.
func (t *tracer) flush(all bool) {
	t.mu.Lock()
	lines := t.pending
	t.pending = nil
	if all {
		for _, l := range t.counts {
			lines = append(lines, l)
		}
		clear(t.counts)
	}
	lost := t.lost
	t.mu.Unlock()
	const atOnce = 1000
	for len(lines) > 0 {
		n := min(atOnce, len(lines))
		told := &controlv1.Traces{Lost: lost}
		for _, l := range lines[:n] {
			l.step.Text = report.Bounded(l.step.Text, maxStepText)
			data, err := json.Marshal(l.step)
			if err != nil {
				panic(err) // plain data always encodes
			}
			told.Lines = append(told.Lines, &controlv1.TraceLine{
				Pool: l.key.Pool, Namespace: l.key.Namespace, GlobalId: l.key.GlobalID, Id: l.id, StepJson: data,
			})
		}
		t.tell(told)
		lines = lines[n:]
	}
}
