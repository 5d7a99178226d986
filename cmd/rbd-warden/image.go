package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
)

// verbs are the commands for images, with their help.
var verbs = map[string]struct {
	verb        controlv1.Verb
	short, long string
}{
	"start": {controlv1.Verb_VERB_START, "Mirror again what was stopped or paused, or try at once what waits", `It ends a stop or a pause by command. An image that waits for its next attempt, or is parked after crashes, makes it
now. The answer comes when the image replays, or says why it does not.`},
	"stop": {controlv1.Verb_VERB_STOP, "Let go of the image until it is started", `What was replayed is committed, then the image's exclusive lock is given up; the answer comes when it is free. A
stop outlasts crashes, workers, and moves to another worker; not the daemon. The status is up+stopped and says by whom.`},
	"restart": {controlv1.Verb_VERB_RESTART, "Let go of the image and begin anew, from its checkpoint", `As stop, then start. The answer comes when the image replays again, or says why it does not.`},
	"pause": {controlv1.Verb_VERB_PAUSE, "Replay nothing until the image is resumed, but keep its lock and its place", `What has begun is completed and committed; the answer comes when nothing is under way any more. Unlike a stopped image a
paused one stays this daemon's: it keeps its exclusive lock and its place in the primary's journal, goes on at once when it is
resumed, and still lets a forced promotion have it. The primary keeps its journal for it meanwhile, which grows. An image that is
copied for the first time is paused when the copy is complete.`},
	"resume": {controlv1.Verb_VERB_RESUME, "Go on with a paused image; the same as start", `See start.`},
	"flush":  {controlv1.Verb_VERB_FLUSH, "Commit what was read of the journal, and wait for that", `The answer comes when everything that had been read of the primary's journal is replayed here and committed there.`},
}

// newImageCommand makes the commands for single images.
func newImageCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "image", Short: "Look at or command one image's mirroring",
		Long: `Look at or command one image's mirroring.

The commands go to the daemon's control socket, and from there to whichever worker runs the image, on this host or on another one
of the site; the other daemons note what is to hold when the image moves to them. Each may be given again and again. The answer says what happened ("was replaying, stopped"); the exit code is 0 if the command has had its effect, and 1 if it
was refused or has not had it within --timeout; then it still counts.`,
	}
	for _, name := range []string{"start", "stop", "restart", "pause", "resume", "flush"} {
		cmd.AddCommand(newVerbCommand(name, "POOL[/NAMESPACE]/IMAGE", true))
	}
	cmd.AddCommand(newTraceCommand(), newMoveCommand())
	return cmd
}

// newPoolCommand makes the commands for all images of a pool.
func newPoolCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "pool", Short: "Command the mirroring of all of a pool's images on this host",
		Long: `Command the mirroring of all of a pool's images on this host: in all its namespaces, or in one that is given.

A stop is also for images that appear later. An image that is started by itself afterwards is an exception from it.
Otherwise these commands are as those for single images.`,
	}
	for _, name := range []string{"start", "stop", "restart", "flush"} {
		cmd.AddCommand(newVerbCommand(name, "POOL[/NAMESPACE]", false))
	}
	return cmd
}

// verbCommand is a command for images.
type verbCommand struct {
	sockets socketFlags
	name    string
	timeout time.Duration
	json    bool
	verbose bool
}

func newVerbCommand(name, target string, image bool) *cobra.Command {
	v := verbCommand{name: name}
	about, example := verbs[name], "rbd/vm-1"
	if !image {
		example = "rbd"
	}
	cmd := &cobra.Command{
		Use: name + " " + target, Short: about.short, Long: about.short + ".\n\n" + about.long, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := parseTarget(args[0], image)
			if err != nil {
				return err
			}
			return v.Run(cmd.Context(), cmd.OutOrStdout(), t)
		},
	}
	if image {
		cmd.Example = "  rbd-warden image " + name + " " + example
	} else {
		cmd.Example = "  rbd-warden pool " + name + " " + example
	}
	v.sockets.add(cmd)
	cmd.Flags().DurationVar(&v.timeout, "timeout", 30*time.Second, "how long to wait for the effect; 0: not at all")
	cmd.Flags().BoolVar(&v.json, "json", false, "print JSON: a list of replies, one of each daemon")
	cmd.Flags().BoolVar(&v.verbose, "verbose", false, "a line for each image, also where there are many")
	return cmd
}

// parseTarget splits POOL[/NAMESPACE]/IMAGE, or without an image POOL[/NAMESPACE].
func parseTarget(target string, image bool) (*controlv1.Target, error) {
	parts, form := strings.Split(target, "/"), "POOL[/NAMESPACE]"
	t := &controlv1.Target{}
	if image {
		form += "/IMAGE"
		t.Image, parts = parts[len(parts)-1], parts[:len(parts)-1]
	}
	switch len(parts) {
	case 1:
		t.Pool = parts[0]
	case 2:
		t.Pool, t.Namespace = parts[0], parts[1]
	}
	if t.Pool == "" || image && t.Image == "" {
		return nil, fmt.Errorf("%q is not %s", target, form)
	}
	return t, nil
}

// Run gives the command to all daemons that were found, and prints what became of it.
func (v verbCommand) Run(ctx context.Context, out io.Writer, t *controlv1.Target) error {
	r := &controlv1.CommandRequest{Verb: verbs[v.name].verb, Target: t, TimeoutNanos: v.timeout.Nanoseconds()}
	switch r.Verb {
	case controlv1.Verb_VERB_STOP:
		r.Words = "stopped by " + whoAmI()
	case controlv1.Verb_VERB_PAUSE:
		r.Words = "paused by " + whoAmI()
	}
	var replies []*controlv1.CommandReply
	done := false // an image is one daemon's, and any daemon of the site can tell that
	err := v.sockets.each(func(_ string, client controlv1.ControlClient) error {
		if done {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, v.timeout+reportPatience+5*time.Second)
		defer cancel()
		reply, err := client.Command(ctx, r)
		if err == nil {
			replies = append(replies, reply)
			done = t.GetImage() != "" && reply.GetCode() == 0
		}
		return err
	})
	if err != nil && !done {
		return err
	}
	if v.json {
		for _, reply := range replies {
			b, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(reply)
			if err != nil {
				return err
			}
			fmt.Fprintln(out, string(b))
		}
	}
	return printReplies(out, replies, v.verbose, v.json)
}

// whoAmI is the user who gives a command.
func whoAmI() string {
	name := os.Getenv("SUDO_USER")
	if name != "" {
		return name + " (sudo)"
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "uid " + strconv.Itoa(os.Getuid())
}

// manyImages is from how many images on a command's answer is a summary.
const manyImages = 20

// printReplies prints what daemons answered. A daemon that does not know what another one
// has done is no failure.
func printReplies(out io.Writer, replies []*controlv1.CommandReply, verbose, quiet bool) error {
	anyDone := slices.ContainsFunc(replies, func(r *controlv1.CommandReply) bool { return r.Code == 0 })
	oneDone := anyDone && len(replies[len(replies)-1].Outcomes) == 1 // those before it could not reach the image's daemon
	failed := 0
	for _, r := range replies {
		switch {
		case r.Code == int32(syscall.ENOENT) && anyDone, r.Code == int32(syscall.EHOSTDOWN) && oneDone:
			continue
		case r.Code != 0:
			return fmt.Errorf("%s", r.Text)
		}
		counts := map[string]int{}
		for _, o := range r.Outcomes {
			if o.Code != 0 {
				failed++
			}
			if many := len(r.Outcomes) > manyImages && !verbose; many && o.Code == 0 {
				counts[o.Text]++
				continue
			}
			if !quiet {
				fmt.Fprintf(out, "image %s%s: %s\n", o.Image, when(o.Daemon != "", " (daemon "+o.Daemon+")"), o.Text)
			}
		}
		for _, text := range sortedBy(counts) {
			if !quiet {
				fmt.Fprintf(out, "%d images: %s\n", counts[text], text)
			}
		}
		if len(r.Outcomes) == 0 && !quiet {
			fmt.Fprintln(out, r.Text)
		}
	}
	if failed > 0 {
		return fmt.Errorf("not done for %d %s", failed, plural(failed, "image"))
	}
	return nil
}

// sortedBy are the keys of counts, the most frequent first.
func sortedBy(counts map[string]int) []string {
	keys := make([]string, 0, len(counts))
	for k := range counts {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		if counts[a] != counts[b] {
			return counts[b] - counts[a]
		}
		return strings.Compare(a, b)
	})
	return keys
}

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}
