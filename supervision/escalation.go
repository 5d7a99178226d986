package supervision

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Evidence is something that helps to tell whether a worker is at fault, or one image, or
// a cluster that is away. Times never go back by much.
type Evidence interface{ evidence() }

// Evidence that an Escalation weighs.
type (
	// Failed says that somebody's operation on the local cluster did not work, by an
	// error that says nothing about any one object: a timeout, a refusal, no connection.
	// Errors of the peer's cluster, of damaged bytes and of what an image is or has are
	// nobody's evidence and are not told.
	Failed struct {
		When  time.Time
		Who   string // the image, or Worker
		Class string // of the error; failures of different classes are not added up
		Text  string
	}
	// Stalled says that an image did not get on and was restarted.
	Stalled struct {
		When time.Time
		Who  string
		Text string
	}
	// Worked says that the local cluster did something for somebody. Done: it was what the
	// image is there for, a change of the local copy, and not only a look.
	Worked struct {
		When time.Time
		Who  string
		Done bool
	}
	// LeftBehind says that something does not end although it was cancelled, and that its
	// image let go of it.
	LeftBehind struct {
		When time.Time
		Who  string
		What string
		// Writes says that it may still write: then nobody in this process may run the
		// image again, for two of one client are kept apart by no lock.
		Writes bool
		// Before counts how often the image cost a worker its life already.
		Before int
	}
	// CameBack says that what was left behind has ended after all.
	CameBack struct {
		When   time.Time
		Who    string
		Writes bool
	}
	// Overdue counts the operations that the cluster's library has under way beyond every
	// timeout; told again and again.
	Overdue struct {
		When  time.Time
		Calls int
	}
	// Probed is what came of a Probe: a new connection to the local cluster works, or it
	// does not. Own says that this process itself is why (no file descriptors, no memory).
	Probed struct {
		When  time.Time
		Works bool
		Own   bool
		Text  string
	}
	// ClientFenced says that this process may not write any more.
	ClientFenced struct {
		When time.Time
		Text string
	}
)

func (Failed) evidence()       {}
func (Stalled) evidence()      {}
func (Worked) evidence()       {}
func (LeftBehind) evidence()   {}
func (CameBack) evidence()     {}
func (Overdue) evidence()      {}
func (Probed) evidence()       {}
func (ClientFenced) evidence() {}

// Worker is who fails if it is no image: the worker's own look for pools.
const Worker = "the worker itself"

// Judgement is what an Escalation asks for.
type Judgement struct {
	// Probe asks for a new connection to the local cluster, answered by Probed.
	Probe bool
	// Escalate asks for a new worker. Why is for people.
	Escalate bool
	Why      string
}

// EscalationRules are an Escalation's constants. Start from DefaultEscalation.
type EscalationRules struct {
	// Images is how many have to fail in the same way for it not to be theirs.
	Images int
	// Window is how long evidence counts.
	Window time.Duration
	// ProbeEvery is the least time between two probes.
	ProbeEvery time.Duration
	// Left is how many things that only read may be left behind, and Overdue how many
	// operations of the library may be, before the worker is replaced.
	Left, Overdue int
	// Lives is how many workers one image may cost.
	Lives int
}

// DefaultEscalation fits workers of any size.
var DefaultEscalation = EscalationRules{
	Images: 3, Window: time.Minute, ProbeEvery: 10 * time.Second, Left: 8, Overdue: 16, Lives: 3,
}

// Escalation decides when failures point at the worker, so that only a new process, under
// a new identity, mends them. It is pure.
//
// The rule that keeps one image from stopping others (invariant 9): what one image does is
// never enough, but for an effect that may still write and does not end, which leaves that
// image no other way on; and that at most Lives times. A cluster that is away is no reason
// either: a failure of many is one only if a new connection works at that very time.
type Escalation struct {
	rules  EscalationRules
	newest map[string]Evidence // Failed, Stalled or Worked, by who
	left   map[string]int      // things left behind that only read, by image
	probe  time.Time           // when the last probe was asked for
	asking bool                // it was not answered
	done   bool                // it has escalated
}

// NewEscalation makes the decider of a worker that begins.
func NewEscalation(r EscalationRules) *Escalation {
	return &Escalation{rules: r, newest: map[string]Evidence{}, left: map[string]int{}}
}

// Weigh takes one piece of evidence.
func (e *Escalation) Weigh(ev Evidence) Judgement {
	if e.done {
		return Judgement{}
	}
	switch ev := ev.(type) {
	case ClientFenced:
		return e.escalate("this client was fenced: " + ev.Text)
	case Worked:
		if _, stalled := e.newest[ev.Who].(Stalled); !stalled || ev.Done {
			e.newest[ev.Who] = ev
		}
	case Failed:
		e.newest[ev.Who] = ev
		return e.suspect(ev.When)
	case Stalled:
		e.newest[ev.Who] = ev
		e.forget(ev.When)
		if who := e.stalled(); len(who) >= e.rules.Images && e.nobodyGetsOn() {
			return e.escalate(fmt.Sprintf("%d images do not get on, and none does: %s", len(who), few(who)))
		}
	case LeftBehind:
		return e.leftBehind(ev)
	case CameBack:
		if ev.Writes {
			break // it was not counted
		}
		if e.left[ev.Who]--; e.left[ev.Who] <= 0 {
			delete(e.left, ev.Who)
		}
	case Overdue:
		if ev.Calls > e.rules.Overdue {
			return e.escalate(fmt.Sprintf("%d operations of Ceph's library are under way beyond every timeout", ev.Calls))
		}
	case Probed:
		return e.probed(ev)
	}
	return Judgement{}
}

func (e *Escalation) escalate(why string) Judgement {
	e.done = true
	return Judgement{Escalate: true, Why: why}
}

// suspect asks for a probe if many fail and nobody works.
func (e *Escalation) suspect(now time.Time) Judgement {
	e.forget(now)
	if _, many := e.failing(); !many || !e.nobodyWorks() || e.asking || now.Sub(e.probe) < e.rules.ProbeEvery && !e.probe.IsZero() {
		return Judgement{}
	}
	e.asking, e.probe = true, now
	return Judgement{Probe: true}
}

// probed weighs a probe's outcome: what fails over the old connection, while a new one
// works, fails because of the old one.
func (e *Escalation) probed(p Probed) Judgement {
	e.asking = false
	e.forget(p.When)
	who, many := e.failing()
	if !many || !e.nobodyWorks() {
		return Judgement{} // it has mended itself meanwhile
	}
	switch {
	case p.Own:
		return e.escalate("this process cannot connect to the local cluster any more: " + p.Text)
	case p.Works:
		f, _ := e.newest[who[0]].(Failed)
		return e.escalate(fmt.Sprintf("the connection to the local cluster is broken, while a new one works: %s; %s", few(who), f.Text))
	}
	return Judgement{} // the cluster is away: all wait for it
}

func (e *Escalation) leftBehind(l LeftBehind) Judgement {
	if l.Writes {
		if l.Before >= e.rules.Lives {
			return Judgement{} // it would only take the others along, again and again
		}
		return e.escalate(fmt.Sprintf("%s of %s does not end and may still write", l.What, l.Who))
	}
	e.left[l.Who]++
	n := 0
	for _, of := range e.left {
		n += of
	}
	// One image that leaves things behind again and again counts as few: it is parked.
	if n > e.rules.Left && len(e.left) >= e.rules.Images {
		return e.escalate(fmt.Sprintf("%d operations do not end, of %s", n, few(keys(e.left))))
	}
	return Judgement{}
}

// forget drops evidence that is too old to count.
func (e *Escalation) forget(now time.Time) {
	for who, ev := range e.newest {
		if now.Sub(timeOf(ev)) > e.rules.Window {
			delete(e.newest, who)
		}
	}
}

func timeOf(ev Evidence) time.Time {
	switch ev := ev.(type) {
	case Failed:
		return ev.When
	case Stalled:
		return ev.When
	case Worked:
		return ev.When
	}
	return time.Time{}
}

// failing is who fails in the same way, of the class that most fail by, and whether they
// are many: enough images, or an image and the worker's own look for pools.
func (e *Escalation) failing() (who []string, many bool) {
	by := map[string][]string{}
	for name, ev := range e.newest {
		if f, ok := ev.(Failed); ok {
			by[f.Class] = append(by[f.Class], name)
		}
	}
	for _, class := range keys(by) {
		if len(by[class]) > len(who) {
			who = by[class]
		}
	}
	slices.Sort(who)
	return who, len(who) >= e.rules.Images || len(who) >= 2 && slices.Contains(who, Worker)
}

func (e *Escalation) stalled() (who []string) {
	for name, ev := range e.newest {
		if _, ok := ev.(Stalled); ok {
			who = append(who, name)
		}
	}
	slices.Sort(who)
	return who
}

func (e *Escalation) nobodyWorks() bool {
	for _, ev := range e.newest {
		if _, ok := ev.(Worked); ok {
			return false
		}
	}
	return true
}

func (e *Escalation) nobodyGetsOn() bool {
	for _, ev := range e.newest {
		if w, ok := ev.(Worked); ok && w.Done {
			return false
		}
	}
	return true
}

func keys[V any](m map[string]V) []string {
	list := make([]string, 0, len(m))
	for k := range m {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}

// few names some of a list.
func few(who []string) string {
	const some = 3
	if len(who) <= some {
		return strings.Join(who, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(who[:some], ", "), len(who)-some)
}
