package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/cluster/coordinator"
	"github.com/rbdwarden/rbdwarden/cluster/membership"
	clusterv1 "github.com/rbdwarden/rbdwarden/proto/cluster/v1"
	"github.com/rbdwarden/rbdwarden/report"
)

// A member is named by its id or seat, a daemon by its host, its pid or both.
func TestMembersOfAName(t *testing.T) {
	of := func(id, host string, pid, index int) membership.Member {
		return membership.Member{ID: id, Host: host, Index: index, Seat: coordinator.Seat(host, pid, index)}
	}
	all := []membership.Member{of("11", "north", 1, 0), of("12", "north", 1, 1), of("21", "south", 2, 0), of("31", "south", 3, 0)}
	for name, want := range map[string]string{
		"11": "11", "north": "11 12", "1": "11 12", "north/1": "11 12", "north/1/1": "12", "south/2": "21", "3": "31", anywhere: "",
	} {
		if ids, err := membersNamed(all, name); err != nil || strings.Join(ids, " ") != want {
			t.Errorf("%s: %v, %v; want %s", name, ids, err, want)
		}
	}
	for name, want := range map[string]error{"south": syscall.ENOTUNIQ, "west": syscall.ENOENT, "": syscall.ENOENT} {
		if ids, err := membersNamed(all, name); !errors.Is(err, want) {
			t.Errorf("%s: %v, %v", name, ids, err)
		}
	}
	if got := memberName(all, "12"); got != "worker 1 of daemon north, pid 1" {
		t.Error(got)
	}
}

// fakeParty is a part in a pool that leads, or says who does.
type fakeParty struct {
	mu     sync.Mutex
	leads  bool
	leader string
	moved  []string
}

func (p *fakeParty) Leader() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.leader
}

func (p *fakeParty) Move(_ context.Context, namespace, globalID string, to []string) (from, is membership.Member, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !p.leads:
		return from, is, coordinator.ErrNotLeading
	case globalID == "absent":
		return from, is, syscall.ENOENT
	}
	p.moved = append(p.moved, namespace+"/"+globalID+" "+strings.Join(to, " "))
	return membership.Member{ID: "x"}, membership.Member{ID: to[0]}, nil
}

// The leader is asked wherever it is, also when it has just changed.
func TestMovesAreTheLeaders(t *testing.T) {
	a, b := newColleague(t, "11", "north", 1, 0), newColleague(t, "21", "south", 2, 0)
	view := membership.View{Members: []membership.Member{a.member, b.member}}
	a.changed(7, view)
	b.changed(7, view)
	parties := map[*colleague]*fakeParty{a: {leader: "21"}, b: {leader: "21", leads: true}}
	for c, p := range parties {
		c.party = func(pool int64) mover {
			if pool != 7 {
				return nil
			}
			return p
		}
	}
	q := &clusterv1.MoveQuestion{PoolId: 7, Namespace: "ns", GlobalId: "g", Members: []string{"11"}}
	for _, c := range []*colleague{a, b} {
		if said, err := c.askLeader(t.Context(), 7, q); err != nil || said.GetCode() != 0 || said.GetFrom() != "x" || said.GetTo() != "11" {
			t.Errorf("asked %s: %v, %v", c.self, said, err)
		}
	}
	if got := parties[b].moved; !slices.Equal(got, []string{"ns/g 11", "ns/g 11"}) || len(parties[a].moved) > 0 {
		t.Errorf("moved: %q", got)
	}
	if said, err := a.askLeader(t.Context(), 7, &clusterv1.MoveQuestion{PoolId: 7, GlobalId: "absent", Members: []string{"11"}}); err != nil || syscall.Errno(said.GetCode()) != syscall.ENOENT {
		t.Errorf("%v, %v", said, err)
	}
	// b leads no longer, and nobody knows yet; then a does.
	set := func(p *fakeParty, leads bool, leader string) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.leads, p.leader = leads, leader
	}
	set(parties[b], false, "")
	time.AfterFunc(time.Second, func() { set(parties[a], true, "11") })
	if said, err := a.askLeader(t.Context(), 7, q); err != nil || said.GetCode() != 0 {
		t.Errorf("after a change of leader: %v, %v", said, err)
	}
	if a := b.moveAsked(&clusterv1.Question{TimeoutNanos: int64(time.Second), What: &clusterv1.Question_Move{Move: &clusterv1.MoveQuestion{PoolId: 8}}}); syscall.Errno(a.GetCode()) != syscall.ESTALE {
		t.Errorf("a pool that it has no part in: %v", a)
	}
}

// A move has had its effect when the image has come to rest at the member it was given to.
func TestStateAtAMember(t *testing.T) {
	d := &report.Daemon{Workers: []report.Worker{
		{Member: "11", Pools: []report.Pool{{Images: []report.Image{{GlobalID: "g", State: "replaying"}}}}},
		{Member: "12", Pools: []report.Pool{{Images: []report.Image{{GlobalID: "h", State: "starting_replay"}, {GlobalID: "i", State: "stopped", Stopped: true}}}}},
	}}
	for _, c := range []struct {
		member, image string
		done          bool
	}{{"11", "g", true}, {"12", "g", false}, {"12", "h", false}, {"12", "i", true}} {
		if state, done := stateAt(d, c.member, c.image); done != c.done {
			t.Errorf("%+v: %s, %v", c, state, done)
		}
	}
}
