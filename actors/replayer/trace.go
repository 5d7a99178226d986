package replayer

import (
	"fmt"
	"strings"
	"time"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	"github.com/rbdwarden/rbdwarden/report"
)

// traceLength is how many lines of an image's trace are kept.
const traceLength = 64

// trace is the recent history of an image: which message led from where to where.
// Messages that change nothing and come all the time are folded into their count.
type trace struct {
	steps []report.Step
	count int // how often the newest line's message came in a row
}

func (t *trace) add(from, to core.State, m core.Msg, took time.Duration) {
	name := messageName(m)
	text := ""
	if took > 0 {
		text = "took " + took.Round(10*time.Microsecond).String()
	}
	if f, ok := m.(core.Failed); ok && f.Err != nil {
		text = strings.TrimSpace(text + ": " + f.Err.Error())
	}
	if n := len(t.steps); n > 0 && from == to {
		if last := &t.steps[n-1]; last.Message == name && last.From == last.To && last.To == to.String() {
			t.count++
			last.When, last.Text = time.Now(), fmt.Sprintf("%d times, last %s", t.count, text)
			return
		}
	}
	t.count = 1
	if len(t.steps) == traceLength {
		copy(t.steps, t.steps[1:])
		t.steps = t.steps[:traceLength-1]
	}
	t.steps = append(t.steps, report.Step{When: time.Now(), From: from.String(), To: to.String(), Message: name, Text: text})
}

// messageName is the message's type without its package.
func messageName(m core.Msg) string {
	name := fmt.Sprintf("%T", m)
	return name[strings.LastIndexByte(name, '.')+1:]
}
