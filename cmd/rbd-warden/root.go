package main

import (
	"github.com/spf13/cobra"
)

// newRootCommand makes the command line. args are the whole command line, for
// commands that start this program again.
func newRootCommand(args []string) *cobra.Command {
	root := &cobra.Command{
		Use:   "rbd-warden",
		Short: "Mirror RBD images between Ceph clusters",
		Long: `rbd-warden mirrors RBD images between Ceph clusters. It does the job of Ceph's rbd-mirror daemon, with the same
formats on disk, the same configuration and the same "rbd mirror" commands. Each image is supervised on its own, so
that nothing that happens to one image, or to the process, stops replication until a person notices.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       versionText(),
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.AddCommand(
		newDaemonCommand(args), newPsCommand(), newImageCommand(), newPoolCommand(), newVerifyCommand(), newResyncCommand(), newWorkerCommand(), newNodeCommand(), newLimitCommand(),
		newDumpCommand(), newOptionsCommand(), newVersionCommand(),
		newLabCommand(), newDemoCommand(),
	)
	return root
}
