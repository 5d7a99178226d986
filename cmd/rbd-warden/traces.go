package main

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/report"
)

// Bounds of what is kept of images' last steps. A step takes about 200 bytes and its text
// at most maxStepText more: about 12 KiB for an image, 12 MiB for a thousand; at most 28 KiB
// for an image.
const (
	traceLength = 64
	maxTraces   = 4096 // images; those that were heard of last
	maxStepText = 256
)

// imageID names an image for the daemon.
type imageID struct{ pool, namespace, globalID string }

// traces are the last steps of images, as workers told them. They belong to the daemon, so
// that they outlast the workers: a step that a worker told is kept, however it ends.
type traces struct {
	mu     sync.Mutex
	images map[imageID]*imageTrace
	words  map[string]string // names of states and messages: there are few, in many steps
}

type imageTrace struct {
	lines  []traceLine // oldest first; at most traceLength
	heard  time.Time
	worker int // that told last
}

type traceLine struct {
	pid  int    // of the worker that told it
	id   uint64 // its number there; 0: the daemon's own
	step report.Step
}

func newTraces() *traces {
	return &traces{images: map[imageID]*imageTrace{}, words: map[string]string{}}
}

// Add takes what a worker tells.
func (t *traces) Add(worker, pid int, told *controlv1.Traces) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range told.GetLines() {
		var step report.Step
		if json.Unmarshal(l.GetStepJson(), &step) != nil {
			continue // a worker of another version; its images are none the worse for it
		}
		step.Text = report.Bounded(step.Text, maxStepText)
		step.From, step.To, step.Message = t.word(step.From), t.word(step.To), t.word(step.Message)
		t.of(imageID{l.GetPool(), l.GetNamespace(), l.GetGlobalId()}, worker).put(traceLine{pid, l.GetId(), step})
	}
}

// Died notes the end of a worker with the images that it told of last.
func (t *traces) Died(worker, pid int, cause report.Cause) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, i := range t.images {
		if i.worker != worker || len(i.lines) == 0 || i.lines[len(i.lines)-1].pid != pid {
			continue
		}
		i.put(traceLine{pid: pid, step: report.Step{
			When: cause.When, Message: "worker " + strconv.Itoa(worker) + " ended", Text: report.Bounded(cause.String(), maxStepText),
		}})
	}
}

// Of is the trace of an image, newest last.
func (t *traces) Of(id imageID) []report.Step {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := t.images[id]
	if i == nil {
		return nil
	}
	steps := make([]report.Step, len(i.lines))
	for n, l := range i.lines {
		steps[n] = l.step
	}
	return steps
}

// Fill adds the traces to a report.
func (t *traces) Fill(d *report.Daemon) {
	for w := range d.Workers {
		for p := range d.Workers[w].Pools {
			images := d.Workers[w].Pools[p].Images
			for n := range images {
				images[n].Trace = t.Of(imageID{images[n].Pool, images[n].Namespace, images[n].GlobalID})
			}
		}
	}
}

// of is an image's trace; a new one may cost the one that was not heard of for the longest.
func (t *traces) of(id imageID, worker int) *imageTrace {
	i := t.images[id]
	if i == nil {
		if len(t.images) >= maxTraces {
			oldest := slices.MinFunc(slices.Collect(maps.Keys(t.images)), func(a, b imageID) int {
				return t.images[a].heard.Compare(t.images[b].heard)
			})
			delete(t.images, oldest)
		}
		i = &imageTrace{}
		t.images[id] = i
	}
	i.worker, i.heard = worker, time.Now()
	return i
}

// put adds a line, or replaces what was told of it before.
func (i *imageTrace) put(l traceLine) {
	if l.id != 0 {
		for n := len(i.lines) - 1; n >= 0; n-- {
			if i.lines[n].pid == l.pid && i.lines[n].id == l.id {
				i.lines[n] = l
				return
			}
		}
	}
	if len(i.lines) >= traceLength {
		i.lines = slices.Delete(i.lines, 0, 1)
	}
	i.lines = append(i.lines, l)
}

// word keeps one copy of a short text.
func (t *traces) word(s string) string {
	if w, ok := t.words[s]; ok {
		return w
	}
	if len(t.words) < 1000 {
		t.words[s] = s
	}
	return s
}
