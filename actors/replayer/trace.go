package replayer

import (
	"fmt"
	"strings"
	"time"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	"github.com/rbdwarden/rbdwarden/report"
)

// trace tells the history of an image: which message led from where to where. Messages
// of one kind that change nothing are one line, for as long as the image stays in a state.
// Whoever takes the lines keeps them: they outlast the actor.
type trace struct {
	// tell takes a line and answers its number, or takes a line anew by its number; nil:
	// nobody does.
	tell func(id uint64, s report.Step) uint64
	stay map[string]*line // lines of this stay in a state, by message
}

type line struct {
	id   uint64
	step report.Step
}

func (t *trace) add(from, to core.State, m core.Msg, took time.Duration) {
	if t.tell == nil {
		return
	}
	now, text := time.Now(), ""
	switch m := m.(type) {
	case core.Failed:
		if m.Err != nil {
			text = m.Err.Error()
		}
	case core.MustWait:
		text = m.Err.Error()
	case core.Stop:
		text = m.Reason
	case core.Stalled:
		text = m.Text
	}
	name := messageName(m)
	if from != to {
		t.stay = nil
		t.tell(0, report.Step{When: now, From: from.String(), To: to.String(), Message: name, Text: text, Count: 1, Took: took, Longest: took})
		return
	}
	if l := t.stay[name]; l != nil {
		l.step.When, l.step.Took, l.step.Text = now, took, text
		l.step.Count++
		l.step.Longest = max(l.step.Longest, took)
		t.tell(l.id, l.step)
		return
	}
	if t.stay == nil {
		t.stay = map[string]*line{}
	}
	l := &line{step: report.Step{When: now, From: from.String(), To: to.String(), Message: name, Text: text, Count: 1, Took: took, Longest: took}}
	l.id = t.tell(0, l.step)
	t.stay[name] = l
}

// note tells something that is no message to the machine.
func (t *trace) note(message, text string) {
	if t.tell != nil {
		t.tell(0, report.Step{When: time.Now(), Message: message, Text: text, Count: 1})
	}
}

// messageName is the message's type without its package.
func messageName(m core.Msg) string { return messageNameOf(m) }

func messageNameOf(m any) string {
	name := fmt.Sprintf("%T", m)
	return name[strings.LastIndexByte(name, '.')+1:]
}
