package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/report"
)

// Trace answers the last steps of an image.
func (c *controlServer) Trace(ctx context.Context, r *controlv1.TraceRequest) (*controlv1.TraceReply, error) {
	d := c.warden.report(ctx)
	found, refusal := resolve(d, r.GetTarget())
	switch {
	case refusal != nil && syscall.Errno(refusal.Code) == syscall.ENOENT:
		return nil, status.Error(codes.NotFound, refusal.Text)
	case refusal != nil:
		return nil, status.Error(codes.FailedPrecondition, refusal.Text)
	case r.GetTarget().GetImage() == "":
		return nil, status.Error(codes.InvalidArgument, "a trace is of an image")
	}
	image := newest(d, found)
	image.Trace = c.warden.traces.Of(imageID{image.Pool, image.Namespace, image.GlobalID})
	data, err := json.Marshal(image)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "encode trace: %v", err)
	}
	return &controlv1.TraceReply{ImageJson: data}, nil
}

// newest is what was told last of an image, by a worker that lives if there is one.
func newest(d report.Daemon, found []located) report.Image {
	best := found[0]
	for _, l := range found[1:] {
		a, b := d.Workers[l.worker], d.Workers[best.worker]
		if a.PID != 0 && b.PID == 0 || (a.PID != 0) == (b.PID != 0) && l.image.Since.After(best.image.Since) {
			best = l
		}
	}
	return best.image
}

// traceCommand holds the flags of `rbd-warden image trace`.
type traceCommand struct {
	sockets socketFlags
	json    bool
	follow  bool
}

func newTraceCommand() *cobra.Command {
	var t traceCommand
	cmd := &cobra.Command{
		Use: "trace POOL[/NAMESPACE]/IMAGE", Short: "Show the last steps that the image took",
		Long: `Show the last steps that the image took: which message led from which state where, when, and how long what it answers had taken.
Messages of one kind that change nothing are one line for as long as the image stays in a state. A line ends with the time that was
spent in the state that it left.

The daemon keeps the trace, not the worker: it goes on over restarts of the image and of its worker, whose deaths are part of it.`,
		Example: "  rbd-warden image trace rbd/vm-1\n  rbd-warden image trace rbd/vm-1 --follow",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			target, err := parseTarget(args[0], true)
			if err != nil {
				return err
			}
			return t.Run(cmd.Context(), cmd.OutOrStdout(), target)
		},
	}
	t.sockets.add(cmd)
	cmd.Flags().BoolVar(&t.json, "json", false, "print JSON: the image with its trace")
	cmd.Flags().BoolVarP(&t.follow, "follow", "f", false, "go on with what comes, until interrupted")
	return cmd
}

// followInterval is how often a followed trace is asked for.
const followInterval = 300 * time.Millisecond

// Run prints the trace of the first daemon that knows the image.
func (t traceCommand) Run(ctx context.Context, out io.Writer, target *controlv1.Target) error {
	var last time.Time
	for first := true; ; first = false {
		image, raw, err := t.ask(ctx, target)
		if err != nil {
			return err
		}
		if t.json {
			fmt.Fprintln(out, string(raw))
		} else {
			if first {
				fmt.Fprintf(out, "%s  %s: %s\n", specOf(image), image.State, explain(image))
			}
			for i, s := range image.Trace {
				if !t.follow || s.When.After(last) && (i < len(image.Trace)-1 || s.From != s.To || first) {
					fmt.Fprintln(out, stepText(image.Trace, i))
					last = s.When
				}
			}
		}
		if !t.follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followInterval):
		}
	}
}

func (t traceCommand) ask(ctx context.Context, target *controlv1.Target) (report.Image, []byte, error) {
	var (
		image report.Image
		raw   []byte
	)
	err := t.sockets.each(func(_ string, client controlv1.ControlClient) error {
		if raw != nil {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, reportPatience+3*time.Second)
		defer cancel()
		reply, err := client.Trace(ctx, &controlv1.TraceRequest{Target: target})
		if err != nil {
			return err
		}
		raw = reply.ImageJson
		return json.Unmarshal(raw, &image)
	})
	if raw != nil {
		err = nil // another daemon's business
	}
	return image, raw, err
}

// stepText is a line of a trace for people.
func stepText(steps []report.Step, i int) string {
	s := steps[i]
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %-22s", s.When.Local().Format("2006-01-02 15:04:05.000"), s.Message)
	switch {
	case s.From == "" && s.To == "":
	case s.From != s.To:
		fmt.Fprintf(&b, " %s → %s", s.From, s.To)
	default:
		fmt.Fprintf(&b, " in %s", s.To)
	}
	if s.Count > 1 {
		fmt.Fprintf(&b, ", %d times", s.Count)
	}
	if s.Took > 0 {
		fmt.Fprintf(&b, ", took %s", short(s.Took))
		if s.Count > 1 && s.Longest > s.Took {
			fmt.Fprintf(&b, ", at most %s", short(s.Longest))
		}
	}
	if s.Text != "" {
		fmt.Fprintf(&b, " (%s)", s.Text)
	}
	if s.From != s.To {
		if stay := stayedIn(steps, i); stay > 0 {
			fmt.Fprintf(&b, ", after %s in %s", short(stay), s.From)
		}
	}
	return b.String()
}

// stayedIn is how long the image had been in the state that a step left.
func stayedIn(steps []report.Step, i int) time.Duration {
	for j := i - 1; j >= 0; j-- {
		if steps[j].To == "" {
			return 0 // another life
		}
		if steps[j].From != steps[j].To {
			return steps[i].When.Sub(steps[j].When)
		}
	}
	return 0
}

// short is a duration with about three digits.
func short(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}
