package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/spf13/cobra"

	cephmirror "github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/journal"
	mirrorpool "github.com/rbdwarden/rbdwarden/mirror"
)

// resync holds the flags of `rbd-warden resync`.
type resync struct {
	ceph           cephFlags
	checksum, full bool
}

func newResyncCommand() *cobra.Command {
	r := resync{}
	cmd := &cobra.Command{
		Use:   "resync POOL[/NAMESPACE]/IMAGE",
		Short: "Ask for a re-sync of a replica from its primary",
		Long: `Ask the daemon to make the local, non-primary copy of an image right again, as "rbd mirror image resync" does, and say in
which way. --checksum keeps the copy, compares checksums that the OSDs compute, and copies only what differs; --full
removes the copy and copies everything. Without either it goes as rbd_warden_resync_in_place says.`,
		Example: `  rbd-warden resync rbd/vm-1 --checksum`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.Run(cmd.Context(), args[0], cmd.OutOrStdout())
		},
	}
	r.ceph.add(cmd)
	cmd.Flags().BoolVar(&r.checksum, "checksum", false, "keep the copy and change what differs")
	cmd.Flags().BoolVar(&r.full, "full", false, "remove the copy and make a new one")
	cmd.MarkFlagsMutuallyExclusive("checksum", "full")
	return cmd
}

// Run asks for the re-sync.
func (r resync) Run(ctx context.Context, target string, out io.Writer) error {
	spec, err := parseImageSpec(target)
	if err != nil {
		return err
	}
	here, _, err := openHere(ctx, r.ceph, spec)
	if err != nil {
		return err
	}
	defer (&bothSites{here: here}).Close()
	record, err := mirrorpool.GetImage(ctx, here.io, here.id)
	switch {
	case errors.Is(err, syscall.ENOENT):
		return fmt.Errorf("image %s is not mirrored", target)
	case err != nil:
		return err
	case record.Mode == cephmirror.ImageSnapshot:
		return fmt.Errorf("image %s is mirrored by snapshots, not by its journal", target)
	}
	j, err := journal.Open(ctx, here.io, here.id)
	if err != nil {
		return err
	}
	defer j.Close()
	role, err := roleIn(ctx, j)
	if err != nil {
		return err
	}
	if role.primary {
		return fmt.Errorf("image %s is primary: there is nothing to re-sync it from; demote it first", target)
	}
	choice := journal.ResyncDefault
	switch {
	case r.checksum:
		choice = journal.ResyncInPlace
	case r.full:
		choice = journal.ResyncFull
	}
	if err := j.RequestResync(ctx, choice); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s: re-sync requested\n", target)
	return err
}
