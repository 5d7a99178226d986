package main

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/rbdwarden/rbdwarden/config"
)

// newOptionsCommand lists the options of the configuration.
func newOptionsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "options",
		Short: "List the options of ceph.conf that rbd-warden uses, with their defaults",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(config.Table())
			}
			tw := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(tw, "OPTION\tTYPE\tDEFAULT\tMEANING")
			for _, o := range config.Table() {
				fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", o.Name, o.Type, o.Default, o.About)
			}
			return tw.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
