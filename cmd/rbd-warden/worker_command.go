package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
)

// newWorkerCommand makes the commands for worker processes.
func newWorkerCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "worker", Short: "Command worker processes of this host"}
	var (
		sockets socketFlags
		timeout time.Duration
	)
	restart := &cobra.Command{
		Use:   "restart [INDEX|all]",
		Short: "Replace worker processes by new ones, each after a clean stop of the old one",
		Long: `Replace worker processes by new ones: one of them, or all (the default), one after the other. The next one is restarted only when
the one before is ready, so that its images replay or are about to. A worker that waits for its restart, or is parked,
starts at once. The images of other workers go on meanwhile.`,
		Example: "  rbd-warden worker restart\n  rbd-warden worker restart 1",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := &controlv1.RestartWorkersRequest{TimeoutNanos: timeout.Nanoseconds()}
			if len(args) > 0 && args[0] != "all" {
				index, err := strconv.ParseUint(args[0], 10, 32)
				if err != nil {
					return fmt.Errorf("%q is no index of a worker", args[0])
				}
				r.Indexes = []uint32{uint32(index)}
			}
			return sockets.each(func(_ string, client controlv1.ControlClient) error {
				stream, err := client.RestartWorkers(cmd.Context(), r)
				for err == nil {
					var told *controlv1.WorkerRestarted
					if told, err = stream.Recv(); err == nil && told.Code != 0 {
						return errors.New(told.Text)
					} else if err == nil {
						fmt.Fprintln(cmd.OutOrStdout(), told.Text)
					}
				}
				if errors.Is(err, io.EOF) {
					return nil
				}
				return err
			})
		},
	}
	sockets.add(restart)
	restart.Flags().DurationVar(&timeout, "timeout", 2*time.Minute, "how long each may take to stop and get ready")
	cmd.AddCommand(restart)
	return cmd
}
