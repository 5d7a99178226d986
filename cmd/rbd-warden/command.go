package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/rbdwarden/rbdwarden/actors/pool"
	"github.com/rbdwarden/rbdwarden/actors/site"
	"github.com/rbdwarden/rbdwarden/messages"
	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/report"
)

// imageCommands are the commands that are one message to an image, or to all of a pool
// or of the worker.
var imageCommands = map[string]struct {
	message messages.ToImage
	done    string
}{
	"restart": {messages.RestartImage{}, "restarting"},
	"start":   {messages.StartImage{}, "starting"},
	"stop":    {messages.StopImage{Reason: "stopped"}, "stopping"}, // rbd-mirror's word
	"pause":   {messages.PauseImage{Reason: "paused by an operator"}, "pausing"},
	"resume":  {messages.StartImage{}, "resuming"},
	"flush":   {messages.FlushImage{}, "flushed"},
}

// Commands of a worker, besides those of imageCommands, which are "image stop" for one
// image and "mirror stop" for a pool or, without a target, for all.
const (
	imageTrace    = "image trace"
	leaderRelease = "mirror leader release"
)

// call does a command for the command line or the admin socket.
func (w *wiring) call(ctx context.Context, system *actor.ActorSystem, root *actor.PID, r *controlv1.CallRequest) (string, []byte, error) {
	scope, verb, _ := strings.Cut(r.Command, " ")
	cmd, known := imageCommands[verb]
	switch {
	case r.Command == leaderRelease:
		system.Root.Send(root, site.ReleaseLeader{Pool: r.Target})
		return "releasing the leadership", nil, nil
	case scope == "config" || scope == libradosCommand:
		return w.callConfig(ctx, r)
	case scope == "mirror" && known:
		return w.callAll(ctx, system, root, r.Target, verb)
	case scope == "image" && known, r.Command == imageTrace:
	default:
		return "", nil, fmt.Errorf("this worker does not know the command %q: %w", r.Command, syscall.ENOTSUP)
	}
	pool, namespace, name, err := imageTarget(r.Target)
	if err != nil {
		return "", nil, err
	}
	image, err := w.findImage(system, root, pool, namespace, name)
	if err != nil {
		return "", nil, err
	}
	if r.Command == imageTrace {
		b, err := json.Marshal(image.Trace)
		return traceText(image), b, err
	}
	one := site.Command{Pool: pool, Namespace: namespace, Image: image.GlobalID, Message: cmd.message}
	text := fmt.Sprintf("%s: %s", r.Target, cmd.done)
	if verb == "flush" {
		return text, nil, w.flush(ctx, system, root, []site.Command{one})
	}
	system.Root.Send(root, one)
	b, err := haltOf(one)
	return text, b, err
}

// callAll does a command for all images of a pool, or of the worker.
func (w *wiring) callAll(ctx context.Context, system *actor.ActorSystem, root *actor.PID, poolName, verb string) (string, []byte, error) {
	cmd := imageCommands[verb]
	if verb != "flush" {
		all := site.Command{Pool: poolName, Message: cmd.message}
		system.Root.Send(root, all)
		b, err := haltOf(all)
		return cmd.done, b, err
	}
	pools, err := w.pools(system, root)
	if err != nil {
		return "", nil, err
	}
	var all []site.Command
	for _, p := range pools {
		if poolName != "" && poolName != p.Name {
			continue
		}
		for _, i := range p.Images {
			all = append(all, site.Command{Pool: p.Name, Namespace: p.Namespace, Image: i.GlobalID, Message: cmd.message})
		}
	}
	return cmd.done, nil, w.flush(ctx, system, root, all)
}

// haltOf tells the daemon what a command means for workers to come.
func haltOf(m site.Command) ([]byte, error) {
	h, _ := pool.Wish(m.Message)
	h.Pool, h.Namespace, h.GlobalID = m.Pool, m.Namespace, m.Image
	return json.Marshal(h)
}

// flushPatience is how long a flush may take. What is not flushed then will be, soon.
const flushPatience = 20 * time.Second

// flush asks images to commit what they have read, and waits for all of them.
func (w *wiring) flush(ctx context.Context, system *actor.ActorSystem, root *actor.PID, images []site.Command) error {
	patience := flushPatience
	if d, ok := ctx.Deadline(); ok {
		patience = min(patience, time.Until(d))
	}
	futures := make([]*actor.Future, len(images))
	for i, m := range images {
		futures[i] = system.Root.RequestFuture(root, m, patience)
	}
	late := 0
	for _, f := range futures {
		if _, err := f.Result(); err != nil {
			late++
		}
	}
	if late > 0 {
		return fmt.Errorf("%d of %d images were not flushed in time: %w", late, len(images), syscall.ETIMEDOUT)
	}
	return nil
}

// imageTarget splits POOL[/NAMESPACE]/IMAGE.
func imageTarget(target string) (pool, namespace, image string, err error) {
	parts := strings.Split(target, "/")
	switch {
	case len(parts) == 2 && parts[0] != "" && parts[1] != "":
		return parts[0], "", parts[1], nil
	case len(parts) == 3 && parts[0] != "" && parts[2] != "":
		return parts[0], parts[1], parts[2], nil
	}
	return "", "", "", fmt.Errorf("%q is not POOL[/NAMESPACE]/IMAGE: %w", target, syscall.EINVAL)
}

// findImage finds an image by its name or global id.
func (w *wiring) findImage(system *actor.ActorSystem, root *actor.PID, pool, namespace, name string) (report.Image, error) {
	pools, err := w.pools(system, root)
	if err != nil {
		return report.Image{}, err
	}
	for _, p := range pools {
		if p.Name != pool || p.Namespace != namespace {
			continue
		}
		for _, i := range p.Images {
			if i.Name == name || i.GlobalID == name {
				return i, nil
			}
		}
	}
	return report.Image{}, fmt.Errorf("this worker mirrors no image %q in pool %q, namespace %q: %w", name, pool, namespace, syscall.ENOENT)
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

// traceText is an image's trace for people, newest last.
func traceText(i report.Image) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s: %s", i.Name, i.State, i.Description)
	for _, s := range i.Trace {
		fmt.Fprintf(&b, "\n%s  %-22s", s.When.Format("15:04:05.000"), s.Message)
		if s.From != s.To {
			fmt.Fprintf(&b, " %s → %s", s.From, s.To)
		} else {
			fmt.Fprintf(&b, " in %s", s.To)
		}
		if s.Text != "" {
			fmt.Fprintf(&b, " (%s)", s.Text)
		}
	}
	return b.String()
}
