package process

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"syscall"
	"time"

	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/report"
)

// ReportCommand is the command that asks a worker for its report.Worker.
const ReportCommand = "report"

// calls are the commands that wait for a worker's answer.
type calls struct {
	mu      *sync.Mutex
	last    *uint64
	waiting map[uint64]chan *controlv1.WorkerReply
}

func newCalls() calls {
	return calls{mu: new(sync.Mutex), last: new(uint64), waiting: map[uint64]chan *controlv1.WorkerReply{}}
}

func (c calls) add() (uint64, chan *controlv1.WorkerReply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*c.last++
	ch := make(chan *controlv1.WorkerReply, 1)
	c.waiting[*c.last] = ch
	return *c.last, ch
}

func (c calls) drop(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

func (c calls) answer(id uint64, r *controlv1.WorkerReply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch, ok := c.waiting[id]; ok {
		ch <- r
		delete(c.waiting, id)
	}
}

func (c calls) failAll(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, ch := range c.waiting {
		ch <- &controlv1.WorkerReply{
			Reply:   &controlv1.CallReply{Code: int32(syscall.ECONNRESET), Text: text},
			Command: &controlv1.CommandReply{Code: int32(syscall.ECONNRESET), Text: text},
		}
		delete(c.waiting, id)
	}
}

// Call hands a call to the worker and waits for its answer.
func (s *Supervisor) Call(ctx context.Context, r *controlv1.CallRequest) (*controlv1.CallReply, error) {
	reply, err := s.ask(ctx, &controlv1.WorkerCall{Request: r})
	if err != nil || reply.GetReply() != nil {
		return reply.GetReply(), err
	}
	return &controlv1.CallReply{}, nil
}

// Command gives a command for images to the worker and waits for its answer. One that is
// starting answers when it is so far.
func (s *Supervisor) Command(ctx context.Context, r *controlv1.CommandRequest) (*controlv1.CommandReply, error) {
	reply, err := s.ask(ctx, &controlv1.WorkerCall{Command: r})
	if err != nil || reply.GetCommand() != nil {
		return reply.GetCommand(), err
	}
	return &controlv1.CommandReply{}, nil
}

// ask sends something to the worker and waits for its answer.
func (s *Supervisor) ask(ctx context.Context, call *controlv1.WorkerCall) (*controlv1.WorkerReply, error) {
	id, ch := s.calls.add()
	defer s.calls.drop(id)
	call.Id = id
	sent := s.send(&controlv1.ToWorker{Message: &controlv1.ToWorker_Call{Call: call}})
	if !sent {
		return nil, fmt.Errorf("%s does not run: %w", workerName(s.spec.Index), syscall.EHOSTDOWN)
	}
	select {
	case reply := <-ch:
		return reply, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%s did not answer: %w", workerName(s.spec.Index), ctx.Err())
	case <-s.over:
		return nil, fmt.Errorf("%s was stopped: %w", workerName(s.spec.Index), syscall.EHOSTDOWN)
	}
}

// View is what supervision knows of the worker, without asking it.
func (s *Supervisor) View() report.Worker {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view
}

// Report is the worker's part of the supervision tree: what supervision knows, and
// what the worker says about itself if it answers before ctx ends, else what it said
// last.
func (s *Supervisor) Report(ctx context.Context) report.Worker {
	if r, err := s.Call(ctx, &controlv1.CallRequest{Command: ReportCommand}); err == nil && r.Code == 0 {
		var told report.Worker
		if err := json.Unmarshal(r.Json, &told); err != nil {
			s.log.Warn().Err(err).Msg("cannot decode worker's report")
		} else {
			told.LastTold = time.Now()
			s.mu.Lock()
			s.told = told
			s.mu.Unlock()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w, t := s.view, s.told
	if m := *w.Memory; s.child != nil && s.child.group != nil {
		m.Group = s.child.group.Path()
		if u, err := s.child.group.Usage(); err == nil {
			m.Current, m.Peak = u.Current, u.Peak
		}
		w.Memory = &m
	}
	w.LastTold, w.Waits, w.Member, w.FSID, w.Drained, w.Parts = t.LastTold, t.Waits, t.Member, t.FSID, t.Drained, t.Parts
	w.Budget, w.LocalSocket, w.Syncs, w.Deletions, w.Replayed, w.Pools, w.Notes = t.Budget, t.LocalSocket, t.Syncs, t.Deletions, t.Replayed, t.Pools, t.Notes
	return w
}

func workerName(index int) string { return "worker " + strconv.Itoa(index) }
