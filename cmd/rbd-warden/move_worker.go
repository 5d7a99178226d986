package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/cluster/coordinator"
	"github.com/rbdwarden/rbdwarden/cluster/imagemap"
	"github.com/rbdwarden/rbdwarden/cluster/membership"
	clusterv1 "github.com/rbdwarden/rbdwarden/proto/cluster/v1"
	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/report"
)

// mover is a part in a pool, as moves see it.
type mover interface {
	Move(ctx context.Context, namespace, globalID string, to []string) (from, is membership.Member, err error)
	Leader() string
}

const (
	// moveDecision is how long a move waits for somebody who leads the pool and decides it.
	moveDecision = 10 * time.Second
	movePoll     = 200 * time.Millisecond
)

// moveResult is what became of a move.
type moveResult struct {
	GlobalID string `json:"global_id"`
	Daemon   string `json:"daemon"` // that has it now
	Code     int    `json:"code"`
	Text     string `json:"text"`
}

func (r moveResult) refuse(err error) moveResult {
	r.Code, r.Text = int(syscall.EINVAL), report.OneLine(err.Error())
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		r.Code = int(errno)
	}
	return r
}

// move has the pool's leader give an image to somebody, and waits until it replays there.
func (n *network) move(ctx context.Context, of map[string]string) (r moveResult) {
	w, err := n.find(ctx, of)
	r.GlobalID = w.GlobalID
	if err != nil {
		return r.refuse(err)
	}
	pool, err := n.poolID(ctx, of["pool"], of["namespace"])
	if err != nil {
		return r.refuse(err)
	}
	n.mu.Lock()
	members := slices.Clone(n.views[pool].Members)
	n.mu.Unlock()
	to, err := membersNamed(members, of["to"])
	if err != nil {
		return r.refuse(err)
	}
	said, err := n.askLeader(ctx, pool, &clusterv1.MoveQuestion{PoolId: pool, Namespace: of["namespace"], GlobalId: w.GlobalID, Members: to})
	if err == nil && said.GetCode() != 0 {
		err = &workerError{syscall.Errno(said.GetCode()), said.GetText()}
	}
	if err != nil {
		return r.refuse(err)
	}
	from, is := memberName(members, said.GetFrom()), memberName(members, said.GetTo())
	r.Daemon = is
	switch {
	case of["to"] == anywhere:
		r.Text = is + " has it, and it is not pinned"
		return r
	case said.GetFrom() == said.GetTo():
		r.Text = is + " has it already; pinned there"
	default:
		r.Text = fmt.Sprintf("was with %s, given to %s and pinned there", from, is)
	}
	timeout, err := time.ParseDuration(of["timeout"])
	if err != nil || timeout <= 0 {
		return r
	}
	state, done := n.awaitImage(ctx, said.GetTo(), w.GlobalID, timeout)
	r.Text += "; it is " + state
	if !done {
		r.Code = int(syscall.EAGAIN)
		r.Text += " still; it goes on"
	}
	return r
}

// askLeader asks who leads the pool, for as long as that takes within bounds.
func (n *network) askLeader(ctx context.Context, pool int64, q *clusterv1.MoveQuestion) (said *clusterv1.MoveAnswer, err error) {
	ctx, cancel := context.WithTimeout(ctx, moveDecision)
	defer cancel()
	for {
		leader := ""
		if p := n.party(pool); p != nil {
			leader = p.Leader()
		}
		question := &clusterv1.Question{What: &clusterv1.Question_Move{Move: q}, TimeoutNanos: moveDecision.Nanoseconds()}
		switch leader {
		case "":
			err = fmt.Errorf("none of the site's daemons is known to lead the pool: %w", syscall.EAGAIN)
		case n.self:
			said, err = n.moveAsked(question), nil
		default:
			var a *clusterv1.Answer
			attempt, done := context.WithTimeout(ctx, 5*time.Second)
			a, err = n.question(attempt, leader, question)
			done()
			if said = a.GetMove(); err == nil && said == nil {
				err = errors.New("the answer is to another question")
			}
			if err != nil {
				err = fmt.Errorf("member %s, which leads the pool, cannot be asked: %w", leader, errors.Join(err, syscall.EHOSTDOWN))
			}
		}
		if err == nil && said.GetCode() != int32(syscall.ESTALE) && said.GetCode() != int32(syscall.EAGAIN) {
			return said, nil
		}
		select {
		case <-ctx.Done():
			return said, err
		case <-time.After(movePoll):
		}
	}
}

// moveAsked has this worker decide, as the leader.
func (n *network) moveAsked(q *clusterv1.Question) *clusterv1.MoveAnswer {
	m := q.GetMove()
	p := n.party(m.GetPoolId())
	if p == nil {
		return &clusterv1.MoveAnswer{Code: int32(syscall.ESTALE), Text: coordinator.ErrNotLeading.Error()}
	}
	ctx, cancel := context.WithTimeout(context.Background(), min(moveDecision, time.Duration(q.GetTimeoutNanos())-answerSlack))
	defer cancel()
	from, to, err := p.Move(ctx, m.GetNamespace(), m.GetGlobalId(), m.GetMembers())
	a := &clusterv1.MoveAnswer{From: from.ID, To: to.ID}
	if err != nil {
		a.Code, a.Text = int32(syscall.EINVAL), report.OneLine(err.Error())
		errno := syscall.Errno(0)
		switch {
		case errors.Is(err, coordinator.ErrNotLeading), errors.Is(err, imagemap.ErrNotLeader):
			a.Code = int32(syscall.ESTALE)
		case errors.As(err, &errno):
			a.Code = int32(errno)
		case errors.Is(err, context.DeadlineExceeded):
			a.Code = int32(syscall.EAGAIN)
		}
	}
	return a
}

// awaitImage waits until a member runs an image, and tells its state there.
func (n *network) awaitImage(ctx context.Context, member, globalID string, timeout time.Duration) (state string, done bool) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	state = "not there"
	for {
		d, err := n.reportOfMember(ctx, member)
		if err == nil {
			state, done = stateAt(d, member, globalID)
		}
		if done {
			return state, true
		}
		select {
		case <-ctx.Done():
			return state, false
		case <-time.After(movePoll):
		}
	}
}

// reportOfMember is what the member's daemon says.
func (n *network) reportOfMember(ctx context.Context, member string) (*report.Daemon, error) {
	if !slices.Contains(n.colleagues(), member) {
		d, _, err := n.reportOf(ctx, []string{member})
		return d, err
	}
	told, err := n.ask(ctx, &controlv1.Ask{What: &controlv1.Ask_Report{Report: &controlv1.PsRequest{}}})
	if err != nil {
		return nil, err
	}
	d := &report.Daemon{}
	return d, json.Unmarshal(told.GetReport().GetReportJson(), d)
}

// colleagues are the living members of our own daemon.
func (n *network) colleagues() []string {
	all, _ := n.neighbours()
	for _, d := range all {
		if slices.Contains(d.living, n.self) {
			return d.living
		}
	}
	return nil
}

// stateAt is the state of an image at a member, and whether it has come to rest there.
func stateAt(d *report.Daemon, member, globalID string) (string, bool) {
	for _, w := range d.Workers {
		for _, p := range w.Pools {
			for _, i := range p.Images {
				if w.Member == member && i.GlobalID == globalID {
					return state(i), i.State == "replaying" || i.Stopped || i.Paused
				}
			}
		}
	}
	return "not there", false
}

// membersNamed are the members that a name stands for: one, or the workers of a daemon.
func membersNamed(all []membership.Member, name string) (ids []string, err error) {
	if name == anywhere {
		return nil, nil
	}
	daemons, known := map[string]bool{}, []string{}
	for _, m := range all {
		d := coordinator.Daemon(m.Seat)
		full := fmt.Sprintf("%s/%d", m.Host, daemonPID(d))
		if !slices.Contains(known, full) {
			known = append(known, full)
		}
		if name != "" && (name == m.ID || name == m.Seat || name == full || name == m.Host || name == strconv.Itoa(daemonPID(d))) {
			ids, daemons[d] = append(ids, m.ID), true
		}
	}
	slices.Sort(known)
	switch {
	case len(ids) == 0:
		return nil, fmt.Errorf("there is no member or daemon %q; taking part are %s: %w", name, list(known, 8, "none"), syscall.ENOENT)
	case len(daemons) > 1:
		return nil, fmt.Errorf("%q are several, of %s: %w", name, strings.Join(known, ", "), syscall.ENOTUNIQ)
	}
	return ids, nil
}

// memberName is how people are told of a member.
func memberName(all []membership.Member, id string) string {
	for _, m := range all {
		if m.ID == id {
			return fmt.Sprintf("worker %d of daemon %s", m.Index, report.DaemonName(m.Host, daemonPID(coordinator.Daemon(m.Seat))))
		}
	}
	return when(id == "", "nobody") + when(id != "", "member "+id)
}

// poolID is the id of a mirrored pool.
func (n *network) poolID(ctx context.Context, name, namespace string) (int64, error) {
	io, err := n.openPool(ctx, name, namespace)
	if err != nil {
		return 0, err
	}
	defer io.Close()
	return io.Pool().ID, nil
}
