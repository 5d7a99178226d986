// Command rbd-warden mirrors RBD images between Ceph clusters. Started under the name
// rbd-mirror it takes the command line of Ceph's daemon of that name and stands in
// for it. A worker process of the daemon is this program, too.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/rbdwarden/rbdwarden/supervision/daemon"
	"github.com/rbdwarden/rbdwarden/supervision/worker"
)

func main() { os.Exit(run(os.Args)) }

// run does what the command line says and returns the exit code.
func run(args []string) int {
	if worker.Attached() {
		return runWorker(context.Background())
	}
	if filepath.Base(args[0]) == "rbd-mirror" {
		if len(args) == 1 {
			fmt.Fprintf(os.Stderr, "%s: -h or --help for usage\n", args[0])
			return 1
		}
		return exitCode(args[0], runDaemon(args, args[1:]))
	}
	root := newRootCommand(args)
	root.SetArgs(args[1:])
	return exitCode(args[0], root.ExecuteContext(context.Background()))
}

// exitCode reports an error and gives its exit code.
func exitCode(name string, err error) int {
	var exit *daemon.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit): // it was reported by whoever exited
		return exit.Code
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(name), err)
	return 1
}
