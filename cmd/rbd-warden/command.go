package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/rbdwarden/rbdwarden/actors/site"
	"github.com/rbdwarden/rbdwarden/messages"
	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/report"
)

// imageCommands are the commands that are one message to an image.
var imageCommands = map[string]struct {
	message messages.ToImage
	done    string
}{
	"image restart": {messages.RestartImage{}, "restarting"},
	"image pause":   {messages.StopImage{Reason: "paused by an operator"}, "pausing"},
	"image resume":  {messages.StartImage{}, "resuming"},
}

// call does a command for the command line.
func (w *wiring) call(ctx context.Context, system *actor.ActorSystem, root *actor.PID, r *controlv1.CallRequest) (string, []byte, error) {
	cmd, isMessage := imageCommands[r.Command]
	if !isMessage && r.Command != "image trace" {
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
	if !isMessage {
		b, err := json.Marshal(image.Trace)
		return traceText(image), b, err
	}
	system.Root.Send(root, site.Command{Pool: pool, Namespace: namespace, Image: image.GlobalID, Message: cmd.message})
	return fmt.Sprintf("%s: %s", r.Target, cmd.done), nil, nil
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
	r, err := system.Root.RequestFuture(root, site.Snapshot{}, 3*time.Second).Result()
	if err != nil {
		return report.Image{}, fmt.Errorf("the site's actor does not answer: %w", syscall.EAGAIN)
	}
	pools, _ := r.([]report.Pool)
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
