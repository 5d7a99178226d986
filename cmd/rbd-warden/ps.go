package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/report"
)

// psCommand holds the flags of `rbd-warden ps`.
type psCommand struct {
	sockets  socketFlags
	json     bool
	site     bool // all daemons of the site, not of this host only
	watch    bool
	interval time.Duration
	view     view
}

// wholeSite is what --cluster says that comes without a name.
const wholeSite = "*"

// settleCluster tells "--cluster" from "--cluster NAME", of which the name is an argument to
// the parser of flags.
func (ps *psCommand) settleCluster(args []string) error {
	bare := ps.sockets.ceph.cluster == wholeSite
	switch {
	case len(args) == 1 && bare:
		ps.sockets.ceph.cluster = args[0]
	case len(args) == 1:
		return fmt.Errorf("unexpected argument %q", args[0])
	case bare:
		ps.sockets.ceph.cluster, ps.site = "", true
	}
	if ps.site && ps.view.trace {
		return errors.New("--trace is for the daemons of this host: see \"rbd-warden image trace\"")
	}
	return nil
}

func newPsCommand() *cobra.Command {
	var ps psCommand
	cmd := &cobra.Command{
		Use:   "ps",
		Short: "Show the daemons of this host or of the site, their workers and images, and what died of what",
		Long: `Show the supervision tree of the daemons of this host: each daemon, its workers, their pools, and the images that each runs, with state,
lag, memory, restarts, the last cause of an end, and the next start of what waits for one.

Images in trouble come first, then those that are farthest behind. Where a pool has more than 20 images only those that do
not replay are listed, and the others are counted; --all lists every one.

With --cluster (or --site) it shows the daemons of all hosts of the site and who leads which pool, whichever of the daemons of this host
is asked; one that does not answer within two seconds, or is dead, has a line that says so.`,
		Example: `  rbd-warden ps
  rbd-warden ps --cluster
  rbd-warden ps --watch
  rbd-warden ps --pool rbd --all
  rbd-warden ps --image rbd/vm-1 --trace
  rbd-warden ps -c /etc/ceph/backup.conf --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := ps.settleCluster(args); err != nil {
				return err
			}
			run := ps.Run
			if ps.site {
				run = ps.runCluster
			}
			if ps.watch {
				return watchFrames(cmd.Context(), cmd.OutOrStdout(), ps.interval, run)
			}
			return run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	ps.sockets.add(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&ps.json, "json", false, "print JSON: a list of daemons, or with --cluster of sites")
	flags.BoolVar(&ps.site, "site", false, "show the daemons of all hosts of the site; the same as --cluster without a name")
	cluster := flags.Lookup("cluster")
	cluster.NoOptDefVal, cluster.Usage = wholeSite, "name of the cluster; without one: the same as --site"
	flags.BoolVar(&ps.watch, "watch", false, "show it again and again, in place, until interrupted")
	flags.DurationVar(&ps.interval, "interval", time.Second, "time between two frames of --watch")
	flags.BoolVar(&ps.view.all, "all", false, "list every image, also where there are many")
	flags.BoolVar(&ps.view.trace, "trace", false, "show each image's last steps")
	flags.BoolVar(&ps.view.history, "history", false, "show the last ends of everything, not only the last one")
	flags.StringVar(&ps.view.pool, "pool", "", "only this pool: POOL[/NAMESPACE]")
	flags.StringVar(&ps.view.image, "image", "", "only this image: its name, its global id, or POOL[/NAMESPACE]/IMAGE")
	return cmd
}

// Run asks every daemon and prints what they say.
func (ps psCommand) Run(ctx context.Context, out io.Writer) error {
	sockets, err := ps.sockets.find()
	if err != nil {
		return err
	}
	daemons := []report.Daemon{}
	var errs []error
	for _, s := range sockets {
		d, err := askReport(ctx, s, ps.view.trace)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s, err))
			continue
		}
		daemons = append(daemons, ps.view.filter(d))
	}
	if ps.json {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return errors.Join(append(errs, enc.Encode(daemons))...)
	}
	for _, d := range daemons {
		printDaemon(out, d, ps.view)
	}
	return errors.Join(errs...)
}

func askReport(ctx context.Context, socket string, traces bool) (report.Daemon, error) {
	var d report.Daemon
	ctx, cancel := context.WithTimeout(ctx, reportPatience+3*time.Second)
	defer cancel()
	client, closeConn, err := dial(socket)
	if err != nil {
		return d, err
	}
	defer closeConn()
	reply, err := client.Ps(ctx, &controlv1.PsRequest{Traces: traces})
	if err != nil {
		return d, plain(err)
	}
	return d, json.Unmarshal(reply.ReportJson, &d)
}

// printDaemon prints a supervision tree for people.
func printDaemon(out io.Writer, d report.Daemon, v view) {
	fmt.Fprintf(out, "daemon %d on %s: %s of cluster %s, version %s, up %s%s\n", d.PID, d.Host, d.Entity, d.Cluster,
		d.Version, ago(d.Taken, d.Started), when(d.Stops, ", stopping"))
	for _, w := range d.Workers {
		printWorker(out, d.Taken, w, v)
	}
}

func printWorker(out io.Writer, now time.Time, w report.Worker, v view) {
	fmt.Fprintf(out, "  worker %d: %s for %s", w.Index, w.State, ago(now, w.Since))
	if w.PID != 0 {
		fmt.Fprintf(out, ", pid %d, %s", w.PID, bytesText(w.RSS))
	}
	fmt.Fprintf(out, ", %d restarts%s\n", w.Restarts, when(!w.NextStart.IsZero(), ", next in "+ago(w.NextStart, now)))
	printCauses(out, "    ", now, w.LastCause, w.History, v)
	if o := nodeOutcome(w); o.Draining {
		fmt.Fprintf(out, "    %s: %s\n", w.Drained, drainText(o))
	}
	printMemory(out, w.Memory)
	if b := w.Budget; b != nil {
		fmt.Fprintf(out, "    in flight: %s of %s, %s at most%s%s\n", bytesText(b.Used), bytesText(b.Limit), bytesText(b.Peak),
			when(b.Waiting > 0, fmt.Sprintf(", %d reads wait", b.Waiting)), when(b.Limit < b.Full, ", of "+bytesText(b.Full)+" when memory is not short"))
	}
	for _, l := range w.Limits {
		fmt.Fprintf(out, "    limit of %s: %s %s/s, set by %s; this worker has %.0f %% of it%s\n", limitOf(l), l.Kind, rateText(l), l.By, 100*l.Part,
			when(l.Waiting > 0, fmt.Sprintf(", %d %s for it", l.Waiting, when(l.Waiting == 1, "read waits")+when(l.Waiting > 1, "reads wait"))))
	}
	if w.Waits != "" {
		fmt.Fprintf(out, "    waits: %s\n", w.Waits)
	}
	for _, n := range w.Notes {
		fmt.Fprintf(out, "    note: %s\n", n)
	}
	if len(w.Pools) > 0 && (w.PID == 0 || now.Sub(w.LastTold) > 5*time.Second) {
		fmt.Fprintf(out, "    (below: as told %s ago)\n", ago(now, w.LastTold))
	}
	for _, p := range w.Pools {
		printPool(out, now, p, v)
	}
}

// printMemory prints a worker's limit, and who enforces it.
func printMemory(out io.Writer, m *report.Memory) {
	switch {
	case m == nil || m.Limit == 0:
	case m.Group != "":
		fmt.Fprintf(out, "    memory: %s of %s used, %s at most, in cgroup %s\n", bytesText(m.Current), bytesText(m.Limit), bytesText(m.Peak), m.Group)
	default:
		fmt.Fprintf(out, "    memory: limit of %s, watched%s\n", bytesText(m.Limit), when(m.Note != "", ": "+m.Note))
	}
}

func printPool(out io.Writer, now time.Time, p report.Pool, v view) {
	name := p.Name
	if p.Namespace != "" {
		name += "/" + p.Namespace
	}
	fmt.Fprintf(out, "    pool %s%s: %s%s%s, %d restarts\n", name, when(p.Peer.Site != "", " from "+p.Peer.Site), p.Health,
		when(p.Leader, ", leader"), when(p.Peer.UUID != "" && !p.Peer.Reachable, ", peer unreachable"), p.Restarts)
	printCauses(out, "      ", now, p.LastCause, p.History, v)
	for _, c := range p.Callouts {
		if c.Text != p.Waits {
			fmt.Fprintf(out, "      %s\n", c.Text)
		}
	}
	if p.Waits != "" {
		fmt.Fprintf(out, "      waits: %s\n", p.Waits)
	}
	printImages(out, now, p.Images, v)
}

// printCauses prints of what something ended last, and if asked for, the times before.
func printCauses(out io.Writer, indent string, now time.Time, last *report.Cause, history []report.Cause, v view) {
	if last != nil {
		fmt.Fprintf(out, "%slast end, %s ago: %s\n", indent, ago(now, last.When), last)
	}
	if !v.history {
		return
	}
	for i := len(history) - 1; i >= 0; i-- {
		if c := history[i]; last == nil || !c.When.Equal(last.When) {
			fmt.Fprintf(out, "%send, %s ago, of %s: %s\n", indent, ago(now, c.When), c.What, &c)
		}
	}
}

func when(cond bool, s string) string {
	if cond {
		return s
	}
	return ""
}

// ago is the time from then to now, rounded for people.
func ago(now, then time.Time) string {
	d := now.Sub(then)
	switch {
	case then.IsZero():
		return "?"
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

func lag(seconds float64) string {
	if seconds < 0 {
		return "?"
	}
	return time.Duration(seconds * float64(time.Second)).Round(100 * time.Millisecond).String()
}

func known(n int64) string {
	if n < 0 {
		return "?"
	}
	return fmt.Sprint(n)
}

func bytesText(n int64) string {
	v, units := float64(n), "BKMGT"
	for v >= 1024 && len(units) > 1 {
		v, units = v/1024, units[1:]
	}
	if units[0] == 'B' {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %ciB", v, units[0])
}
