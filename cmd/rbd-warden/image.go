package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
)

// newImageCommand makes the commands for single images. A worker's hooks answer them;
// the command travels as the words below, for example "image pause".
func newImageCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "image", Short: "Look at or command one image's mirroring on this host"}
	for _, c := range []struct{ verb, short string }{
		{"trace", "Show the last steps that an image took"},
		{"restart", "Start an image's mirroring anew, from its checkpoint"},
		{"pause", "Stop an image's mirroring until it is resumed"},
		{"resume", "Resume a paused image, or retry a parked one now"},
		{"stop", "Stop an image's mirroring until it is started: rbd-mirror's word for pause"},
		{"start", "Start a stopped image: rbd-mirror's word for resume"},
		{"flush", "Commit what was read of an image's journal, and wait for that"},
	} {
		cmd.AddCommand(newCallCommand("image "+c.verb, c.verb+" POOL[/NAMESPACE]/IMAGE", c.short))
	}
	return cmd
}

// newWorkerCommand makes the commands for worker processes.
func newWorkerCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "worker", Short: "Command worker processes of this host"}
	var sockets socketFlags
	restart := &cobra.Command{
		Use:   "restart INDEX",
		Short: "Replace a worker process by a new one, after a clean stop",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			index, err := strconv.ParseUint(args[0], 10, 32)
			if err != nil {
				return fmt.Errorf("%q is no index of a worker", args[0])
			}
			return sockets.callAll(cmd.Context(), &controlv1.CallRequest{Worker: uint32(index), Command: restartWorker}, printReply(cmd, false))
		},
	}
	sockets.add(restart)
	cmd.AddCommand(restart)
	return cmd
}

// newCallCommand makes a command that a worker answers.
func newCallCommand(command, use, short string) *cobra.Command {
	var (
		sockets socketFlags
		asJSON  bool
		worker  uint32
	)
	cmd := &cobra.Command{
		Use: use, Short: short,
		RunE: func(cmd *cobra.Command, args []string) error {
			r := &controlv1.CallRequest{Worker: worker, Command: command}
			if len(args) > 0 {
				r.Target = args[0]
			}
			return sockets.callAll(cmd.Context(), r, printReply(cmd, asJSON))
		},
	}
	cmd.Args = cobra.NoArgs
	if use != cmd.Name() { // it names a target
		cmd.Args = cobra.ExactArgs(1)
	}
	sockets.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().Uint32Var(&worker, "worker", 0, "index of the worker")
	return cmd
}

// printReply prints a worker's answer.
func printReply(cmd *cobra.Command, asJSON bool) func(string, *controlv1.CallReply) error {
	return func(_ string, r *controlv1.CallReply) error {
		text := r.Text
		if asJSON && len(r.Json) > 0 {
			text = string(r.Json)
		}
		if text == "" {
			return nil
		}
		_, err := fmt.Fprintln(cmd.OutOrStdout(), text)
		return err
	}
}
