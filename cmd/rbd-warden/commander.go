package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/config"
	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/report"
)

// crewman is a worker as a command sees it: *process.Supervisor.
type crewman interface {
	Command(ctx context.Context, r *controlv1.CommandRequest) (*controlv1.CommandReply, error)
	View() report.Worker
}

// commander takes commands for images to whichever workers run them, and answers what
// became of them.
//
// Every worker is told, for an image may be another's soon. Each runs what it runs and
// notes the rest.
//
// Invariant: what is stopped, paused or started by command is noted for workers to come
// before any worker is told; so a worker that dies, starts or takes an image over in the
// middle goes by it, too.
type commander struct {
	crew   []crewman
	report func(ctx context.Context) report.Daemon
	note   func(wish config.Halt)
	site   siteDaemons // the other daemons; nil: they are not asked
}

// Bounds of a command's course.
const (
	commandSlack = 300 * time.Millisecond // for the way back of a worker's answer
	notedWithin  = time.Minute            // for workers that nobody waits for
	retryCommand = 100 * time.Millisecond
	handoverTime = 10 * time.Second // in which an image on its way from one worker to another has arrived
)

// Do does a command. An image that nobody runs at the moment may be on its way to whoever will:
// that is waited for, within the time that the command has.
func (c *commander) Do(ctx context.Context, r *controlv1.CommandRequest) *controlv1.CommandReply {
	deadline := time.Now().Add(min(handoverTime, time.Duration(r.GetTimeoutNanos())))
	for {
		reply := c.do(ctx, r)
		if r.GetHereOnly() || !onItsWay(reply) || time.Now().Add(retryCommand).After(deadline) {
			return reply
		}
		select {
		case <-ctx.Done():
			return reply
		case <-time.After(retryCommand):
		}
	}
}

// onItsWay tells whether nobody has done a command who could have.
func onItsWay(r *controlv1.CommandReply) bool {
	return len(r.GetOutcomes()) > 0 && !slices.ContainsFunc(r.GetOutcomes(), func(o *controlv1.Outcome) bool { return syscall.Errno(o.GetCode()) != syscall.EAGAIN })
}

func (c *commander) do(ctx context.Context, r *controlv1.CommandRequest) *controlv1.CommandReply {
	message := commandMessage(r)
	if message == nil {
		return refused(syscall.EINVAL, "there is no such command: %v", r.GetVerb())
	}
	d := c.report(ctx)
	found, refusal := resolve(d, r.GetTarget())
	if refusal != nil && refusal.Code == int32(syscall.ENOENT) && r.GetTarget().GetImage() != "" {
		switch {
		case r.GetHereOnly():
			refusal = nil // another daemon knows of it; here it is noted
		case c.site != nil:
			return c.elsewhere(ctx, d, r, refusal)
		}
	}
	if refusal != nil {
		return refusal
	}
	return c.here(ctx, d, r, found)
}

// here gives a command to images of this daemon, and has the others note it.
func (c *commander) here(ctx context.Context, d report.Daemon, r *controlv1.CommandRequest, found []located) *controlv1.CommandReply {
	if refusal := refusePause(r.GetVerb(), found); refusal != nil {
		return refusal
	}
	told := &controlv1.CommandRequest{Verb: r.GetVerb(), Target: r.GetTarget(), Words: wordsOf(r), TimeoutNanos: r.GetTimeoutNanos()}
	if len(found) > 0 && r.GetTarget().GetImage() != "" {
		told.Target = &controlv1.Target{Pool: r.GetTarget().GetPool(), Namespace: r.GetTarget().GetNamespace(), Image: found[0].image.GlobalID}
	}
	if wish, ok := wishOf(told); ok {
		c.note(wish)
	}
	if r.GetHereOnly() {
		return c.tell(ctx, d, found, told)
	}
	finish := c.others(ctx, told)
	reply := c.tell(ctx, d, found, told)
	finish(reply)
	return reply
}

// workerAnswer is what one worker said.
type workerAnswer struct {
	worker int
	reply  *controlv1.CommandReply
	err    error
}

// tell gives a command to all workers. It waits for those that do their work or run what
// it is about.
func (c *commander) tell(ctx context.Context, d report.Daemon, found []located, r *controlv1.CommandRequest) *controlv1.CommandReply {
	deadline := time.Now().Add(time.Duration(r.GetTimeoutNanos()))
	ctx, cancel := context.WithDeadline(ctx, deadline.Add(max(commandSlack, time.Second)))
	defer cancel()
	answers := make([]*workerAnswer, len(c.crew))
	var all sync.WaitGroup
	for i, w := range c.crew {
		awaited := d.Workers[i].State == report.WorkerReady || slices.ContainsFunc(found, func(l located) bool { return l.worker == i })
		if !awaited {
			if d.Workers[i].PID != 0 {
				go func() { // it starts or stops: it is told, and nobody waits
					ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), notedWithin)
					defer cancel()
					_, _ = w.Command(ctx, withTimeout(r, 0)) // what it did not hear it was started with
				}()
			}
			continue
		}
		all.Go(func() {
			a := &workerAnswer{worker: i}
			a.reply, a.err = tellOne(ctx, w, r, deadline)
			answers[i] = a
		})
	}
	all.Wait()
	return merge(d, found, r, answers)
}

// tellOne tells one worker; if it dies meanwhile, the one after it.
func tellOne(ctx context.Context, w crewman, r *controlv1.CommandRequest, deadline time.Time) (*controlv1.CommandReply, error) {
	for {
		reply, err := w.Command(ctx, withTimeout(r, max(0, time.Until(deadline)-commandSlack)))
		gone := err != nil && errors.Is(err, syscall.EHOSTDOWN) || err == nil && syscall.Errno(reply.GetCode()) == syscall.ECONNRESET
		if !gone || time.Now().Add(retryCommand).After(deadline) || w.View().State == report.WorkerStopped {
			return reply, err
		}
		select {
		case <-ctx.Done():
			return reply, err
		case <-time.After(retryCommand):
		}
	}
}

func withTimeout(r *controlv1.CommandRequest, d time.Duration) *controlv1.CommandRequest {
	return &controlv1.CommandRequest{Verb: r.GetVerb(), Target: r.GetTarget(), Words: r.GetWords(), TimeoutNanos: d.Nanoseconds()}
}

// merge makes one answer of the workers'.
func merge(d report.Daemon, found []located, r *controlv1.CommandRequest, answers []*workerAnswer) *controlv1.CommandReply {
	reply := &controlv1.CommandReply{}
	told := map[string]bool{} // global ids
	var troubles []string
	for _, a := range answers {
		if a == nil {
			continue
		}
		code, text := a.reply.GetCode(), a.reply.GetText()
		if a.err != nil {
			code, text = int32(syscall.EHOSTDOWN), a.err.Error()
			if errors.Is(a.err, context.DeadlineExceeded) {
				code, text = int32(syscall.ETIMEDOUT), fmt.Sprintf("worker %d does not answer", a.worker)
			}
		}
		for _, o := range a.reply.GetOutcomes() {
			o.Worker = uint32(a.worker)
			told[o.GlobalId] = true
			reply.Outcomes = append(reply.Outcomes, o)
		}
		if code == 0 {
			continue
		}
		troubles = append(troubles, text)
		for _, l := range found { // its images, as it told of them last
			if l.worker == a.worker && !told[l.image.GlobalID] {
				told[l.image.GlobalID] = true
				reply.Outcomes = append(reply.Outcomes, &controlv1.Outcome{
					Image: specOf(l.image), GlobalId: l.image.GlobalID, Worker: uint32(a.worker), Code: code,
					Text: fmt.Sprintf("%s; %s", text, noted(r.GetVerb())),
				})
			}
		}
	}
	for _, l := range found {
		if !told[l.image.GlobalID] {
			told[l.image.GlobalID] = true
			reply.Outcomes = append(reply.Outcomes, &controlv1.Outcome{
				Image: specOf(l.image), GlobalId: l.image.GlobalID, Code: nobodyCode(r.GetVerb()),
				Text: "no worker of this daemon runs it at the moment; " + noted(r.GetVerb()),
			})
		}
	}
	if len(reply.Outcomes) == 0 && len(troubles) > 0 {
		return refused(syscall.EHOSTDOWN, "%s; %s", strings.Join(troubles, "; "), noted(r.GetVerb()))
	}
	slices.SortFunc(reply.Outcomes, func(a, b *controlv1.Outcome) int {
		return cmp.Or(cmp.Compare(a.Image, b.Image), cmp.Compare(a.GlobalId, b.GlobalId), cmp.Compare(a.Code, b.Code))
	})
	if len(reply.Outcomes) == 0 {
		reply.Text = nothingThere(d, r)
	}
	return reply
}

// noted says what a command means for an image that could not be told.
func noted(verb controlv1.Verb) string {
	switch verb {
	case controlv1.Verb_VERB_STOP:
		return "the stop is noted: whoever runs it next leaves it alone"
	case controlv1.Verb_VERB_PAUSE:
		return "the pause is noted for whoever runs it next"
	case controlv1.Verb_VERB_FLUSH:
		return "nothing was flushed"
	}
	return "it is noted that it is to be mirrored"
}

// nobodyCode is for a command to an image that nobody runs: a stop has nothing to do.
func nobodyCode(verb controlv1.Verb) int32 {
	if verb == controlv1.Verb_VERB_STOP {
		return 0
	}
	return int32(syscall.EAGAIN)
}

func nothingThere(d report.Daemon, r *controlv1.CommandRequest) string {
	what := "no image is mirrored here"
	if pool := r.GetTarget().GetPool(); pool != "" {
		what = "no image of pool " + join(pool, r.GetTarget().GetNamespace()) + " is mirrored here"
	}
	for _, w := range d.Workers {
		for _, p := range w.Pools {
			if p.Name == r.GetTarget().GetPool() && p.LeaderID != "" && !p.Leader && len(p.Images) == 0 {
				return what + ": " + p.LeaderID + " leads the pool"
			}
		}
	}
	return what
}

func refused(code syscall.Errno, format string, args ...any) *controlv1.CommandReply {
	return &controlv1.CommandReply{Code: int32(code), Text: fmt.Sprintf(format, args...)}
}
