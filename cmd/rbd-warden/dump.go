package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/journal"
	"github.com/rbdwarden/rbdwarden/rados"
)

func newDumpCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "dump", Short: "Print what is stored in a cluster, byte for byte explained"}
	cmd.AddCommand(newDumpJournalCommand())
	return cmd
}

// dumpJournal holds the flags of `rbd-warden dump journal`.
type dumpJournal struct {
	ceph cephFlags
	byID bool
	json bool
}

func newDumpJournalCommand() *cobra.Command {
	var dump dumpJournal
	cmd := &cobra.Command{
		Use:   "journal POOL[/NAMESPACE]/IMAGE",
		Short: "Print an image's journal: header, clients, tags and entries",
		Long: `Print an image's journal: its header, clients, tags and every entry. Nothing is changed, and the journal may be
in use. Where stored bytes are damaged, that is printed, and what follows the damage too.`,
		Example: `  rbd-warden dump journal rbd/vm-1
  rbd-warden dump journal -c /etc/ceph/backup.conf --by-id rbd/10226b8b4567 --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return dump.Run(cmd.Context(), args[0], cmd.OutOrStdout())
		},
	}
	dump.ceph.add(cmd)
	cmd.Flags().BoolVar(&dump.byID, "by-id", false, "IMAGE is an image id and not a name")
	cmd.Flags().BoolVar(&dump.json, "json", false, "print JSON, one object a line")
	return cmd
}

// imageSpec is a POOL[/NAMESPACE]/IMAGE.
type imageSpec struct{ pool, namespace, image string }

func parseImageSpec(s string) (imageSpec, error) {
	parts := strings.Split(s, "/")
	for _, p := range parts {
		if p == "" {
			parts = nil
		}
	}
	switch len(parts) {
	case 2:
		return imageSpec{parts[0], "", parts[1]}, nil
	case 3:
		return imageSpec{parts[0], parts[1], parts[2]}, nil
	}
	return imageSpec{}, fmt.Errorf("%q is not of the form POOL[/NAMESPACE]/IMAGE", s)
}

// Run dumps the journal of one image.
func (d dumpJournal) Run(ctx context.Context, target string, out io.Writer) error {
	spec, err := parseImageSpec(target)
	if err != nil {
		return err
	}
	cfg, err := d.ceph.resolve(strconv.Itoa(os.Getpid()))
	if err != nil {
		return err
	}
	log := zerolog.New(zerolog.ConsoleWriter{Out: os.Stderr, NoColor: true}).Level(zerolog.WarnLevel)
	c, _, err := connect(ctx, cfg, "", log)
	if err != nil {
		return err
	}
	defer c.Close()
	io, err := c.Open(ctx, spec.pool, spec.namespace)
	if errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("there is no pool %s", spec.pool)
	}
	if err != nil {
		return err
	}
	defer io.Close()
	id := spec.image
	if !d.byID {
		if id, err = rados.Ask(ctx, io, rbd.IDObject(spec.image), rbd.GetID()); errors.Is(err, syscall.ENOENT) {
			return fmt.Errorf("there is no image %s", target)
		} else if err != nil {
			return err
		}
	}
	err = journal.Dump(ctx, io, id, out, d.json)
	if errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("image %s has no journal: %w", target, err)
	}
	return err
}
