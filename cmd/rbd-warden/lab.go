package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/rbdwarden/rbdwarden/lab"
)

// guardArgs are the arguments with which this program, started anew, guards a lab's cluster: see lab.Options.Guard.
var guardArgs = []string{"lab", "guard"}

// newLabCommand makes `rbd-warden lab`, which starts and stops throwaway Ceph clusters on loopback.
func newLabCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Start and stop throwaway Ceph clusters on this machine",
		Long: `Start and stop throwaway one-node Ceph clusters (monitor, mgr and OSD) on the loopback interface, to try
rbd-warden on or to test with. They need Ceph's packages (make deps) and a few hundred megabytes of memory each.`,
	}
	cmd.AddCommand(newLabUpCommand(), newLabDownCommand(), newLabStatusCommand(), newLabGuardCommand())
	return cmd
}

// labUp holds the flags of `rbd-warden lab up`.
type labUp struct {
	dir, store, mirror, mode string
	clusters                 int
	json                     bool
}

func newLabUpCommand() *cobra.Command {
	var up labUp
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start clusters",
		Example: `  rbd-warden lab up --clusters 2 --mirror rbd
  rbd-warden lab up --dir /srv/lab --store bluestore`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return up.Run(ctx, cmd.OutOrStdout())
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&up.clusters, "clusters", 1, "how many clusters")
	flags.StringVar(&up.dir, "dir", "", "directory for them, new or empty (default: one in the temporary directory)")
	flags.StringVar(&up.store, "store", string(lab.Memstore), "where OSDs keep data: memstore or bluestore")
	flags.StringVar(&up.mirror, "mirror", "", "create this pool on the first two clusters and make them mirror it")
	flags.StringVar(&up.mode, "mode", string(lab.PoolMode), "with --mirror: what is mirrored, pool or image")
	flags.BoolVar(&up.json, "json", false, "print JSON")
	return cmd
}

// Run starts the clusters and prints how to reach them. Upon an error nothing is left running.
func (up labUp) Run(ctx context.Context, out io.Writer) error {
	switch {
	case up.mirror != "" && up.clusters < 2:
		up.clusters = 2
	case up.mode != string(lab.PoolMode) && up.mode != string(lab.ImageMode):
		return fmt.Errorf("unknown mode %q (want pool or image)", up.mode)
	}
	if up.dir == "" {
		var err error
		if up.dir, err = os.MkdirTemp("", "warden-lab-"); err != nil {
			return err
		}
	}
	clusters, err := lab.StartSites(ctx, up.clusters, lab.Options{Dir: up.dir, Store: lab.Store(up.store)})
	if err != nil {
		return err
	}
	if up.mirror != "" {
		if err := mirrorPair(ctx, clusters, up.mirror, lab.MirrorMode(up.mode)); err != nil {
			return errors.Join(err, lab.StopSites(up.dir))
		}
	}
	if err := printLab(ctx, out, clusters, up.json); err != nil || up.json {
		return err
	}
	if up.mirror != "" {
		fmt.Fprintf(out, "\nMirror pool %s to %s:\n  rbd-warden daemon -c %s -n %s\n",
			up.mirror, clusters[1].Name(), clusters[1].Conf(), lab.DaemonUser)
	}
	fmt.Fprintf(out, "\nStop and remove:\n  rbd-warden lab down %s\n", up.dir)
	return nil
}

// mirrorPair makes the first two clusters mirror a pool.
func mirrorPair(ctx context.Context, clusters []*lab.Cluster, pool string, mode lab.MirrorMode) error {
	pair, err := lab.PairOf(ctx, clusters[0], clusters[1])
	if err != nil {
		return err
	}
	return pair.MirrorPool(ctx, pool, mode)
}

func newLabDownCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "down DIR",
		Short: "Stop clusters and remove their directory, also when what started them is long dead",
		Args:  cobra.ExactArgs(1),
		RunE:  func(_ *cobra.Command, args []string) error { return lab.StopSites(args[0]) },
	}
}

func newLabStatusCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status DIR",
		Short: "Show clusters and their daemons",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			clusters, err := lab.OpenSites(args[0])
			if err != nil {
				return err
			}
			return printLab(cmd.Context(), cmd.OutOrStdout(), clusters, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// newLabGuardCommand makes the command that this program starts for itself: see lab.Guard.
func newLabGuardCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "guard DIR",
		Short:  "Stop a cluster once standard input ends",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE:   func(_ *cobra.Command, args []string) error { return lab.Guard(args[0]) },
	}
}

// printLab prints the state of clusters, as a table or as JSON.
func printLab(ctx context.Context, out io.Writer, clusters []*lab.Cluster, asJSON bool) error {
	var states []lab.Status
	for _, c := range clusters {
		states = append(states, c.Status(ctx))
	}
	if asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(states)
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "CLUSTER\tSTORE\tDAEMONS\tCONF")
	for _, s := range states {
		var daemons []string
		for _, d := range s.Daemons {
			daemons = append(daemons, d.Name+" "+d.State)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", s.Name, s.Store, strings.Join(daemons, ", "), s.Conf)
	}
	return table.Flush()
}
