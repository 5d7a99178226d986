package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/rbdwarden/rbdwarden/config"
	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/report"
)

// limitCommand shows and sets limits on bytes a second.
type limitCommand struct {
	sockets      socketFlags
	verb         controlv1.LimitVerb
	pool, image  string
	replay, sync string
	all, json    bool
}

func newLimitCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "limit", Short: "Show or set how many bytes a second are replayed and copied",
		Long: `Show or set how many bytes a second the daemon of this host replays from journals, and reads in first copies and re-syncs.

A limit is for the daemon, with all its workers together; with --pool for what it runs of a pool; with --image for an image that it
runs. They hold beside each other: the smallest one wins. What is set here counts instead of what the options
rbd_warden_replay_bytes_per_second and rbd_warden_sync_bytes_per_second say about the same, at once, also for what waits, until it is
changed or cleared, or the daemon ends.`,
	}
	cmd.AddCommand(
		newLimitVerb(controlv1.LimitVerb_LIMIT_VERB_SHOW, "show", "Show the limits that are in force", "  rbd-warden limit show"),
		newLimitVerb(controlv1.LimitVerb_LIMIT_VERB_SET, "set", "Set a limit; 0 is none, whatever the options say",
			"  rbd-warden limit set --replay 100M --sync 50M\n  rbd-warden limit set --pool rbd --sync 20M\n  rbd-warden limit set --image rbd/vm-1 --replay 0"),
		newLimitVerb(controlv1.LimitVerb_LIMIT_VERB_CLEAR, "clear", "Go by the options again", "  rbd-warden limit clear\n  rbd-warden limit clear --image rbd/vm-1\n  rbd-warden limit clear --all"),
	)
	return cmd
}

func newLimitVerb(verb controlv1.LimitVerb, name, short, example string) *cobra.Command {
	l := limitCommand{verb: verb}
	cmd := &cobra.Command{
		Use: name, Short: short, Example: example, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return l.Run(cmd.Context(), cmd.OutOrStdout()) },
	}
	l.sockets.add(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&l.json, "json", false, "print JSON: the limits in force")
	if verb == controlv1.LimitVerb_LIMIT_VERB_SHOW {
		return cmd
	}
	flags.StringVar(&l.pool, "pool", "", "for what the daemon runs of this pool")
	flags.StringVar(&l.image, "image", "", "for this image: POOL[/NAMESPACE]/IMAGE")
	cmd.MarkFlagsMutuallyExclusive("pool", "image")
	if verb == controlv1.LimitVerb_LIMIT_VERB_CLEAR {
		flags.BoolVar(&l.all, "all", false, "all that was set by command, whatever it is for")
		cmd.MarkFlagsMutuallyExclusive("pool", "image", "all")
		return cmd
	}
	flags.StringVar(&l.replay, "replay", "", "bytes of journal data a second, as in 20M; 0: no limit")
	flags.StringVar(&l.sync, "sync", "", "bytes a second that first copies and re-syncs read; 0: no limit")
	return cmd
}

// request is the command for the daemon.
func (l limitCommand) request() (*controlv1.LimitRequest, error) {
	r := &controlv1.LimitRequest{Verb: l.verb, All: l.all, Words: whoAmI()}
	var err error
	switch {
	case l.image != "":
		r.Target, err = parseTarget(l.image, true)
	case l.pool != "":
		r.Target, err = parseTarget(l.pool, false)
	}
	if err != nil {
		return nil, err
	}
	for _, f := range []struct {
		flag, text string
		into       **uint64
	}{{"replay", l.replay, &r.Replay}, {"sync", l.sync, &r.Sync}} {
		if f.text == "" {
			continue
		}
		rate, err := config.ParseSize(f.text)
		if err != nil {
			return nil, fmt.Errorf("--%s %q: %w", f.flag, f.text, err)
		}
		*f.into = &rate
	}
	if l.verb == controlv1.LimitVerb_LIMIT_VERB_SET && r.Replay == nil && r.Sync == nil {
		return nil, errors.New("say how much: --replay BYTES, --sync BYTES or both")
	}
	return r, nil
}

// Run gives the command and prints what is in force then.
func (l limitCommand) Run(ctx context.Context, out io.Writer) error {
	r, err := l.request()
	if err != nil {
		return err
	}
	sockets, err := l.sockets.find()
	switch {
	case err != nil:
		return err
	case len(sockets) > 1:
		return errors.New("several daemons run on this host: say which by --socket, or by its name")
	}
	client, closeConn, err := dial(sockets[0])
	if err != nil {
		return err
	}
	defer closeConn()
	reply, err := client.Limit(ctx, r)
	switch {
	case err != nil:
		return plain(err)
	case reply.GetCode() != 0:
		return errors.New(reply.GetText())
	}
	var limits []report.Limit
	if err := json.Unmarshal(reply.GetLimitsJson(), &limits); err != nil {
		return err
	}
	if l.json {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		if err := enc.Encode(limits); err != nil {
			return err
		}
	} else {
		printLimits(out, limits)
	}
	if reply.GetText() != "" {
		return errors.New(reply.GetText())
	}
	return nil
}

// printLimits prints limits for people.
func printLimits(out io.Writer, limits []report.Limit) {
	if len(limits) == 0 {
		fmt.Fprintln(out, "no limits")
		return
	}
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "LIMIT OF\tKIND\tBYTES A SECOND\tSET BY\tREADS THAT WAIT")
	for _, l := range limits {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%d\n", limitOf(l), l.Kind, rateText(l), l.By, l.Waiting)
	}
	tw.Flush()
}

// limitOf is what a limit is about, for people.
func limitOf(l report.Limit) string {
	switch {
	case l.GlobalID != "":
		return "image " + specOf(report.Image{Pool: l.Pool, Namespace: l.Namespace, Name: l.Name, GlobalID: l.GlobalID})
	case l.Pool != "":
		return "pool " + l.Pool
	}
	return "daemon"
}

func rateText(l report.Limit) string {
	if l.BytesPerSecond == 0 {
		return "none"
	}
	return bytesText(int64(l.BytesPerSecond))
}
