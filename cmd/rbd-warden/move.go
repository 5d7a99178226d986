package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
)

// anywhere is the target of a move that ends a pin.
const anywhere = "any"

// moveCommand gives an image to another member of the site.
type moveCommand struct {
	sockets socketFlags
	timeout time.Duration
	json    bool
}

func newMoveCommand() *cobra.Command {
	var m moveCommand
	cmd := &cobra.Command{
		Use: "move POOL[/NAMESPACE]/IMAGE MEMBER|DAEMON|any", Short: "Have another daemon of the site run the image",
		Long: `Have another daemon of the site run the image. It is let go where it runs, then that one goes on with it; the answer comes when it
replays there.

DAEMON is as "ps --cluster" shows it: its host, its pid, or HOST/PID; if it has several workers, the one with the fewest images gets it.
HOST/PID/WORKER is a worker, and so is MEMBER, its id there.

The image is pinned: to keep the numbers even, other images are moved instead. The pin ends when the image has to go elsewhere because
its worker is gone for good or drains, or when it is moved to "any", which leaves it where it is.`,
		Example: "  rbd-warden image move rbd/vm-1 south\n  rbd-warden image move rbd/vm-1 any",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := parseTarget(args[0], true)
			if err != nil {
				return err
			}
			return m.Run(cmd.Context(), cmd.OutOrStdout(), &controlv1.MoveRequest{Target: t, To: args[1], TimeoutNanos: m.timeout.Nanoseconds()})
		},
	}
	m.sockets.add(cmd)
	cmd.Flags().DurationVar(&m.timeout, "timeout", 30*time.Second, "how long to wait until it replays there; 0: not at all")
	cmd.Flags().BoolVar(&m.json, "json", false, "print JSON")
	return cmd
}

// Run asks daemons of this host, until one belongs to a site that has the image.
func (m moveCommand) Run(ctx context.Context, out io.Writer, r *controlv1.MoveRequest) error {
	var said *controlv1.Outcome
	err := m.sockets.each(func(_ string, client controlv1.ControlClient) error {
		if said != nil && said.GetCode() != int32(syscall.ENOENT) {
			return nil
		}
		o, err := client.Move(ctx, r)
		if err == nil {
			said = o
		}
		return err
	})
	if said == nil {
		return err
	}
	if m.json {
		b, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(said)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, string(b))
	}
	text := fmt.Sprintf("image %s: %s", said.GetImage(), said.GetText())
	if said.GetCode() != 0 {
		return errors.New(text)
	}
	if !m.json {
		fmt.Fprintln(out, text)
	}
	return nil
}

// move has a worker see to it.
func (d *warden) move(ctx context.Context, r *controlv1.MoveRequest) *controlv1.Outcome {
	t := r.GetTarget()
	o := &controlv1.Outcome{Image: join(t.GetPool(), t.GetNamespace()) + "/" + t.GetImage()}
	timeout := time.Duration(r.GetTimeoutNanos())
	ctx, cancel := context.WithTimeout(ctx, timeout+moveDecision+clusterPatience)
	defer cancel()
	var said moveResult
	if err := d.siteCall(ctx, clusterMove, map[string]string{
		"pool": t.GetPool(), "namespace": t.GetNamespace(), "image": t.GetImage(), "to": r.GetTo(), "timeout": timeout.String(),
	}, &said); err != nil {
		said = moveResult{Code: int(syscall.EHOSTDOWN), Text: err.Error()}
	}
	o.GlobalId, o.Daemon, o.Code, o.Text = said.GlobalID, said.Daemon, int32(said.Code), said.Text
	return o
}
