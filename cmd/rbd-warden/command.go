package main

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/rbdwarden/rbdwarden/actors/site"
	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/report"
)

// leaderRelease is a call of a worker.
const leaderRelease = "mirror leader release"

// call does what the daemon asks of the worker that is no command for images.
func (w *wiring) call(ctx context.Context, system *actor.ActorSystem, root *actor.PID, r *controlv1.CallRequest) (string, []byte, error) {
	if r.Command == leaderRelease {
		system.Root.Send(root, site.ReleaseLeader{Pool: r.Target})
		return "releasing the leadership", nil, nil
	}
	switch r.Command {
	case drainCommand, undrainCommand:
		w.drain(r.Arguments["words"], r.Command == drainCommand)
		return "", nil, nil
	case limitsCommand:
		json, err := w.callLimits(r.Arguments["state"])
		return "", json, err
	case clusterReport, clusterFind, clusterCommand, clusterNode, clusterMove:
		json, err := w.network.call(ctx, r)
		return "", json, err
	}
	return w.callConfig(ctx, r)
}

// squad is what a command needs of a worker's actors.
type squad struct {
	// snapshot is what the pools say of themselves now.
	snapshot func() ([]report.Pool, error)
	// send sends a message to images, without waiting.
	send func(m site.Command)
	// flush asks images to commit what they have read; true for those that have by the
	// deadline.
	flush func(m []site.Command, deadline time.Time) []bool
}

func (w *wiring) squad(system *actor.ActorSystem, root *actor.PID) squad {
	return squad{
		snapshot: func() ([]report.Pool, error) { return w.pools(system, root) },
		send:     func(m site.Command) { system.Root.Send(root, m) },
		flush: func(all []site.Command, deadline time.Time) []bool {
			futures, done := make([]*actor.Future, len(all)), make([]bool, len(all))
			for i, m := range all {
				futures[i] = system.Root.RequestFuture(root, m, max(time.Until(deadline), time.Millisecond))
			}
			for i, f := range futures {
				_, err := f.Result()
				done[i] = err == nil
			}
			return done
		},
	}
}

// pools are fresh snapshots of what is mirrored.
func (w *wiring) pools(system *actor.ActorSystem, root *actor.PID) ([]report.Pool, error) {
	r, err := system.Root.RequestFuture(root, site.Snapshot{}, 3*time.Second).Result()
	if err != nil {
		return nil, fmt.Errorf("the site's actor does not answer: %w", syscall.EAGAIN)
	}
	pools, _ := r.([]report.Pool)
	return pools, nil
}

// Do gives a command to the worker's images and waits until each has obeyed, or has come
// to rest otherwise, or the time is over. Images that are not here are noted.
func (s squad) Do(ctx context.Context, r *controlv1.CommandRequest) *controlv1.CommandReply {
	began := time.Now()
	deadline := began.Add(time.Duration(r.GetTimeoutNanos()))
	pools, err := s.snapshot()
	if err != nil {
		return refused(syscall.EAGAIN, "%v", err)
	}
	before := targeted(pools, r.GetTarget())
	t := r.GetTarget()
	m := site.Command{Pool: t.GetPool(), Namespace: t.GetNamespace(), Image: t.GetImage(), Message: commandMessage(r)}
	if m.Message == nil {
		return refused(syscall.EINVAL, "there is no such command: %v", r.GetVerb())
	}
	if r.GetVerb() == controlv1.Verb_VERB_FLUSH {
		return s.flushed(before, m, deadline)
	}
	s.send(m)
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		if pools, err = s.snapshot(); err != nil {
			return refused(syscall.EAGAIN, "%v", err)
		}
		now := map[string]report.Image{}
		for _, image := range targeted(pools, t) {
			now[image.GlobalID] = image
		}
		reply, done := &controlv1.CommandReply{}, true
		for _, was := range before {
			is, here := now[was.GlobalID]
			v := judge(r.GetVerb(), was, is, here, began)
			done = done && v.settled
			reply.Outcomes = append(reply.Outcomes, outcome(was, v))
		}
		if done || !time.Now().Add(pause).Before(deadline) {
			return reply
		}
		select {
		case <-ctx.Done():
			return reply
		case <-time.After(pause):
		}
	}
}

func (s squad) flushed(images []report.Image, m site.Command, deadline time.Time) *controlv1.CommandReply {
	all := make([]site.Command, len(images))
	for i, image := range images {
		all[i] = site.Command{Pool: image.Pool, Namespace: image.Namespace, Image: image.GlobalID, Message: m.Message}
	}
	reply := &controlv1.CommandReply{}
	for i, done := range s.flush(all, deadline) {
		v := effect{settled: done, code: syscall.EAGAIN, text: "not flushed in time; it goes on by itself"}
		switch {
		case images[i].Step == "":
			v = effect{code: syscall.EAGAIN, text: "nothing to flush: " + state(images[i])}
		case done:
			v.code, v.text = 0, state(images[i])+", flushed"
		}
		reply.Outcomes = append(reply.Outcomes, outcome(images[i], v))
	}
	return reply
}

// targeted are the images of pools that a target, with a global id, is about.
func targeted(pools []report.Pool, t *controlv1.Target) []report.Image {
	var images []report.Image
	for _, p := range pools {
		if t.GetPool() != "" && p.Name != t.GetPool() || (t.GetNamespace() != "" || t.GetImage() != "") && p.Namespace != t.GetNamespace() {
			continue
		}
		for _, i := range p.Images {
			if t.GetImage() == "" || i.GlobalID == t.GetImage() {
				images = append(images, i)
			}
		}
	}
	return images
}

func outcome(i report.Image, v effect) *controlv1.Outcome {
	return &controlv1.Outcome{Image: specOf(i), GlobalId: i.GlobalID, Code: int32(v.code), Text: v.text}
}
