package pool

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/rbdwarden/rbdwarden/messages"
	"github.com/rbdwarden/rbdwarden/report"
)

// stuck ends an actor that has let go of effects that do not end. A new one follows as
// after a panic; it starts nothing while something of the old one may still write (see
// replayer.Leftovers).
func (p *Pool) stuck(c actor.Context, m messages.ImageStuck) {
	ch := p.children[m.Key.GlobalID]
	if ch == nil || ch.pid == nil {
		return
	}
	p.opt.Log.Error().Str("image", ch.last.Name).Str("global_id", m.Key.GlobalID).Str("effects", m.What).Bool("writes", m.Writes).
		Msg("an image's actor is replaced: what it has under way does not end")
	ch.stuck = &m
	c.Stop(ch.pid)
}

// pastOf is what became of an image's earlier lives, and of what it was part of.
func (p *Pool) pastOf(globalID string, ch *child) messages.Past {
	return messages.PastOf(p.opt.Ledger.Of(report.LevelImage, p.imageKey(globalID).String())).Plus(ch.past)
}

// stallCallout tells of the images that make no progress, nil if there are none.
func (p *Pool) stallCallout() *report.Callout {
	const some = 3
	var names []string
	longest := 0.0
	for id, ch := range p.children {
		if ch.last.StalledSeconds > 0 {
			name := ch.last.Name
			if name == "" {
				name = id
			}
			names, longest = append(names, name), max(longest, ch.last.StalledSeconds)
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	n, more := len(names), ""
	if n > some {
		names, more = names[:some], fmt.Sprintf(" and %d more", n-some)
	}
	return &report.Callout{Level: report.LevelWarning, Text: fmt.Sprintf("no progress for %v: %s%s",
		time.Duration(longest*float64(time.Second)).Round(time.Second), strings.Join(names, ", "), more)}
}
