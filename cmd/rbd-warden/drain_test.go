package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/rbdwarden/rbdwarden/config"
	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/report"
)

// node is a daemon whose workers only note what they are told.
type node struct {
	mu    sync.Mutex
	d     report.Daemon
	cfg   config.Config
	deaf  int // how many calls are not heard
	calls []string
}

func (n *node) Call(_ context.Context, r *controlv1.CallRequest) (*controlv1.CallReply, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.deaf > 0 {
		n.deaf--
		return nil, errors.New("it starts")
	}
	n.calls = append(n.calls, strings.TrimSpace(r.GetCommand()+" "+r.GetArguments()["words"])+when(len(n.cfg.Drains) > 0, " (noted)"))
	return &controlv1.CallReply{}, nil
}

func (n *node) do(verb controlv1.NodeVerb, workers ...uint32) *controlv1.NodeReply {
	d := drainer{
		report: func(context.Context) report.Daemon {
			d := n.d
			d.Workers = slices.Clone(d.Workers)
			return d
		},
		note: func(how func(*config.Config)) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.cfg.Drains = maps.Clone(n.cfg.Drains)
			how(&n.cfg)
			for i := range n.d.Workers {
				n.d.Workers[i].Drained = n.cfg.Drains[i]
			}
		},
		wishes: func() map[int]string {
			n.mu.Lock()
			defer n.mu.Unlock()
			return n.cfg.Drains
		},
	}
	for range n.d.Workers {
		d.crew = append(d.crew, n)
	}
	return d.Do(context.Background(), &controlv1.NodeRequest{Verb: verb, Workers: workers, Words: "drained by a"})
}

// newNode is a daemon of two workers with three images, beside others that take images.
func newNode(others ...string) *node {
	n := &node{d: report.Daemon{Host: "north", PID: 7}}
	for i := range 2 {
		takers := append([]string{seatOf(n.d, 1-i)}, others...)
		n.d.Workers = append(n.d.Workers, report.Worker{
			Index: i, PID: 70 + i, State: report.WorkerReady, Parts: []report.Part{{PoolID: 1, Images: 3, Takers: takers}},
			Pools: []report.Pool{{Name: "rbd", ID: 1, Leader: i == 1, Images: make([]report.Image, 2)}},
		})
	}
	return n
}

const (
	drainVerb   = controlv1.NodeVerb_NODE_VERB_DRAIN
	undrainVerb = controlv1.NodeVerb_NODE_VERB_UNDRAIN
)

// A drain is noted before it is told, may be said again, and ends.
func TestDrainAndUndrain(t *testing.T) {
	n := newNode("south/8/0")
	for _, step := range []struct {
		verb    controlv1.NodeVerb
		workers []uint32
		want    string
		calls   string
	}{
		{undrainVerb, nil, "was not drained; was not drained", "undrain; undrain"},
		{drainVerb, []uint32{1}, "took images, gives away 3", "drain drained by a (noted)"},
		{drainVerb, nil, "took images, gives away 3; drained already: 3 images left", "drain drained by a (noted); drain drained by a (noted)"},
		{controlv1.NodeVerb_NODE_VERB_SHOW, []uint32{0}, "drains: 3 images left", ""},
		{undrainVerb, nil, "was drained, takes images again; was drained, takes images again", "undrain; undrain"},
	} {
		n.calls = nil
		r := n.do(step.verb, step.workers...)
		var texts []string
		for _, o := range r.GetOutcomes() {
			texts = append(texts, o.GetText())
			if o.GetCode() != 0 {
				t.Errorf("%v: %v", step.verb, o)
			}
		}
		if got := strings.Join(texts, "; "); r.GetCode() != 0 || got != step.want {
			t.Errorf("%v %v: %q, want %q (%v)", step.verb, step.workers, got, step.want, r)
		}
		if got := strings.Join(n.calls, "; "); got != step.calls {
			t.Errorf("%v %v: told %q, want %q", step.verb, step.workers, got, step.calls)
		}
	}
	if len(n.cfg.Drains) != 0 {
		t.Errorf("noted is %v", n.cfg.Drains)
	}
}

// The last that could run a pool's images is not drained.
func TestTheLastIsNotDrained(t *testing.T) {
	alone := newNode()
	r := alone.do(drainVerb)
	if r.GetCode() != int32(syscall.EBUSY) || !strings.Contains(r.GetText(), "nobody else can take the images of pool rbd") || len(alone.cfg.Drains)+len(alone.calls) != 0 {
		t.Errorf("%v; noted %v, told %v", r, alone.cfg.Drains, alone.calls)
	}
	if r := alone.do(drainVerb, 0); r.GetCode() != 0 {
		t.Errorf("its other worker can take them: %v", r)
	}
	alone.d.Workers[1].Parts[0].Takers = nil // the first one drains now
	if r := alone.do(drainVerb); r.GetCode() != int32(syscall.EBUSY) {
		t.Errorf("then the other one is the last: %v", r)
	}
	if r := alone.do(drainVerb, 7); r.GetCode() != int32(syscall.ENOENT) {
		t.Errorf("a worker that is not there: %v", r)
	}
}

// A worker that does not hear yet is told again.
func TestAWorkerThatStartsIsToldOfADrain(t *testing.T) {
	n := newNode("south/8/0")
	n.deaf = 3
	if r := n.do(drainVerb, 0); r.GetOutcomes()[0].GetCode() != 0 || len(n.calls) != 1 {
		t.Errorf("%v, told %v", r, n.calls)
	}
	n = newNode("south/8/0")
	n.d.Workers[0].PID, n.d.Workers[0].State = 0, report.WorkerWaiting
	if r := n.do(drainVerb, 0); !strings.Contains(r.GetOutcomes()[0].GetText(), "noted for when it does") || n.cfg.Drains[0] == "" || len(n.calls) > 0 {
		t.Errorf("%v, noted %v, told %v", r, n.cfg.Drains, n.calls)
	}
}

// What is left is what runs, what is still let go, and what is to come; and a drain that
// cannot go on says why.
func TestWhatIsLeftOfADrain(t *testing.T) {
	w := newNode("south/8/0").d.Workers[1]
	w.Drained = "drained by a"
	if o := nodeOutcome(w); o.GetLeft() != 3 || !o.GetLeads() || o.GetWaits() != "" {
		t.Errorf("%v", o)
	}
	w.Parts[0].Images = 0
	if o := nodeOutcome(w); o.GetLeft() != 2 {
		t.Errorf("two are let go still: %v", o)
	}
	w.Parts[0].Images, w.Parts[0].Takers = 1, nil
	if o := nodeOutcome(w); !strings.Contains(drainText(o), "nobody else can take them") {
		t.Errorf("%q", drainText(o))
	}
	reply := &controlv1.NodeReply{Outcomes: []*controlv1.NodeOutcome{{Draining: true, Left: 2}, {Draining: true, Leads: true}}}
	if text, left, ended := progressOf(reply); text != "2 images left; it leads still" || left != 3 || ended != "" {
		t.Errorf("%q, %d, %q", text, left, ended)
	}
	reply.Outcomes[1].Draining = false
	if _, _, ended := progressOf(reply); ended == "" {
		t.Error("a drain that was ended is waited for")
	}
}

// A daemon is found by its host, its pid, or both, if that is clear.
func TestADaemonsName(t *testing.T) {
	all := []*neighbour{
		{host: "north", pid: 1, living: []string{"a"}}, {host: "north", pid: 2, living: []string{"b"}}, {host: "south", pid: 3, living: []string{"c"}},
		{host: "west", pid: 4},
	}
	for name, want := range map[string]int{"north/1": 1, "2": 2, "south": 3, "south/3": 3} {
		if d, err := neighbourNamed(all, name); err != nil || d.pid != want {
			t.Errorf("%s: %v, %v", name, d, err)
		}
	}
	for name, want := range map[string]error{"north": syscall.ENOTUNIQ, "west": syscall.ENOENT, "": syscall.ENOENT} {
		if d, err := neighbourNamed(all, name); !errors.Is(err, want) {
			t.Errorf("%s: %v, %v", name, d, err)
		}
	}
}
