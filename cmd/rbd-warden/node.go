package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
)

// nodeCommand has a daemon's workers give their images away or take images again.
type nodeCommand struct {
	sockets socketFlags
	request *controlv1.NodeRequest
	workers []uint
	wait    bool
	timeout time.Duration
	json    bool
}

func newNodeCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "node", Short: "Empty a daemon before it is restarted or its host goes down"}
	cmd.AddCommand(
		newNodeVerb(controlv1.NodeVerb_NODE_VERB_DRAIN, "drain", "Give all images to other daemons, and take none",
			`The daemon goes on running, with no image and no leadership. Each image is let go here before another daemon goes on with it, as
in a stop, so that the gap is that of a hand-over; no other image moves. It is refused when nobody else could take the images.

It outlasts crashes and new workers; not the daemon: one that is started takes images. So a rolling restart is, host after host:
rbd-warden node drain --wait && systemctl restart rbd-mirror@ID`),
		newNodeVerb(controlv1.NodeVerb_NODE_VERB_UNDRAIN, "undrain", "Take images again", `The end of a drain. The leader evens the images out again within seconds.`),
	)
	return cmd
}

func newNodeVerb(verb controlv1.NodeVerb, name, short, long string) *cobra.Command {
	n := nodeCommand{request: &controlv1.NodeRequest{Verb: verb}}
	cmd := &cobra.Command{
		Use: name + " [DAEMON]", Short: short, Args: cobra.MaximumNArgs(1),
		Long: short + ".\n\n" + long + `

DAEMON is another one of the site, as "ps --cluster" shows it: its host, its pid, or HOST/PID. Without it, it is the daemon of this host.
The command may be given again and again; it answers what each worker was and is.`,
		Example: "  rbd-warden node " + name + "\n  rbd-warden node " + name + " south/512",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				n.request.Daemon = args[0]
			}
			n.request.Words = "drained by " + whoAmI()
			for _, i := range n.workers {
				n.request.Workers = append(n.request.Workers, uint32(i))
			}
			return n.Run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	n.sockets.add(cmd)
	cmd.Flags().UintSliceVar(&n.workers, "worker", nil, "only this worker, by its index; may be given several times")
	cmd.Flags().BoolVar(&n.json, "json", false, "print JSON: the last answer")
	if verb == controlv1.NodeVerb_NODE_VERB_DRAIN {
		cmd.Flags().BoolVar(&n.wait, "wait", false, "wait until nothing is left, and show the progress")
		cmd.Flags().DurationVar(&n.timeout, "timeout", 10*time.Minute, "how long to wait with --wait")
	}
	return cmd
}

// nodePoll is the time between two looks of a drain that is waited for.
const nodePoll = 200 * time.Millisecond

// Run gives the command, and waits if it was told to.
func (n nodeCommand) Run(ctx context.Context, out io.Writer) error {
	sockets, err := n.sockets.find()
	switch {
	case err != nil:
		return err
	case len(sockets) > 1:
		return errors.New("several daemons run on this host: say which by --socket, or by its pid")
	}
	client, closeConn, err := dial(sockets[0])
	if err != nil {
		return err
	}
	defer closeConn()
	began := time.Now()
	reply, err := client.Node(ctx, n.request)
	switch {
	case err != nil:
		return plain(err)
	case reply.GetCode() != 0:
		return errors.New(reply.GetText())
	}
	n.print(out, reply)
	if n.wait {
		ctx, cancel := context.WithTimeout(ctx, n.timeout)
		defer cancel()
		if reply, err = n.await(ctx, out, client, reply); err != nil {
			return err
		}
		if !n.json {
			fmt.Fprintf(out, "daemon %s: drained in %s\n", reply.GetDaemon(), ago(time.Now(), began))
		}
	}
	if n.json {
		b, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(reply)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, string(b))
	}
	for _, o := range reply.GetOutcomes() {
		if o.GetCode() != 0 {
			return fmt.Errorf("worker %d could not be told yet", o.GetWorker())
		}
	}
	return nil
}

func (n nodeCommand) print(out io.Writer, reply *controlv1.NodeReply) {
	for _, o := range reply.GetOutcomes() {
		if !n.json {
			fmt.Fprintf(out, "daemon %s, worker %d: %s\n", reply.GetDaemon(), o.GetWorker(), o.GetText())
		}
	}
}

// await waits until workers that drain have nothing left.
func (n nodeCommand) await(ctx context.Context, out io.Writer, client controlv1.ControlClient, reply *controlv1.NodeReply) (*controlv1.NodeReply, error) {
	show := &controlv1.NodeRequest{Verb: controlv1.NodeVerb_NODE_VERB_SHOW, Daemon: n.request.GetDaemon(), Workers: n.request.GetWorkers()}
	said, trouble := "", ""
	for {
		if now, err := client.Node(ctx, show); err != nil || now.GetCode() != 0 {
			trouble = now.GetText()
			if err != nil {
				trouble = plain(err).Error()
			}
		} else {
			reply, trouble = now, ""
			text, left, ended := progressOf(now)
			switch {
			case ended != "":
				return reply, errors.New(ended)
			case text != said && !n.json:
				said = text
				fmt.Fprintf(out, "  %s\n", text)
			}
			if left == 0 {
				return reply, nil
			}
		}
		select {
		case <-ctx.Done():
			text, _, _ := progressOf(reply)
			return reply, fmt.Errorf("not drained within %v: %s%s; it goes on", n.timeout, text, when(trouble != "", "; "+trouble))
		case <-time.After(nodePoll):
		}
	}
}

// progressOf is what is left of a drain, and why it has ended although something is.
func progressOf(reply *controlv1.NodeReply) (text string, left int, ended string) {
	leads, waits := 0, ""
	for _, o := range reply.GetOutcomes() {
		if !o.GetDraining() {
			return "", 0, fmt.Sprintf("worker %d drains no more: somebody has ended it", o.GetWorker())
		}
		left += int(o.GetLeft())
		if o.GetLeads() {
			leads++
		}
		if o.GetWaits() != "" {
			waits = "; " + o.GetWaits()
		}
	}
	return fmt.Sprintf("%d %s left%s", left, plural(left, "image"), waits) + when(leads > 0, "; it leads still"), left + leads, ""
}
