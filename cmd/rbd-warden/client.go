package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/rbdwarden/rbdwarden/config"
	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
)

// socketFlags say which daemons of this host a command talks to.
type socketFlags struct {
	socket string
	ceph   cephFlags
}

// cephFlags say which cluster a command talks to and as whom, as in Ceph's commands.
type cephFlags struct {
	cluster, conf, id, name string
}

func (f *cephFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.cluster, "cluster", "", "name of the cluster")
	flags.StringVarP(&f.conf, "conf", "c", "", "configuration file of the cluster")
	flags.StringVar(&f.id, "id", "", "ID portion of the name to authenticate as")
	flags.StringVarP(&f.name, "name", "n", "", "name to authenticate as, TYPE.ID")
}

// resolve reads the configuration as the daemon would.
func (f *cephFlags) resolve(pid string) (config.Config, error) {
	var args []string
	for _, o := range [...][2]string{{"cluster", f.cluster}, {"conf", f.conf}, {"id", f.id}, {"name", f.name}} {
		if o[1] != "" {
			args = append(args, "--"+o[0], o[1])
		}
	}
	inv, err := config.ParseArgs(args, os.Getenv)
	if err != nil {
		return config.Config{}, err
	}
	cfg, _, err := config.Resolve(inv, thisHost(pid))
	return cfg, err
}

func (f *socketFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.socket, "socket", "", "control socket of the daemon (default: all that run here under this configuration and name)")
	f.ceph.add(cmd)
}

// find lists the control sockets of running daemons.
func (f *socketFlags) find() ([]string, error) {
	if f.socket != "" {
		return []string{f.socket}, nil
	}
	cfg, err := f.ceph.resolve("*")
	if err != nil {
		return nil, err
	}
	pattern := cfg.Process.ControlSocket
	if f.ceph.id == "" && f.ceph.name == "" {
		// Nobody said which: whatever the daemons authenticate as.
		dir, base := filepath.Split(pattern)
		pattern = filepath.Join(dir, strings.ReplaceAll(base, cfg.Entity.String(), "*"))
	}
	paths, err := filepath.Glob(pattern)
	if err != nil {
		return nil, err
	}
	var live []string
	for _, p := range paths {
		if inUse(p) {
			live = append(live, p)
		}
	}
	if len(live) == 0 {
		return nil, fmt.Errorf("no daemon listens on %s (is one running? see --conf, --name and --socket)", pattern)
	}
	return live, nil
}

// dial connects to a control socket.
func dial(socket string) (controlv1.ControlClient, func(), error) {
	path, err := filepath.Abs(socket)
	if err != nil {
		return nil, nil, err
	}
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)))
	if err != nil {
		return nil, nil, fmt.Errorf("control socket %s: %w", socket, err)
	}
	return controlv1.NewControlClient(conn), func() { _ = conn.Close() }, nil
}

// each does something with every daemon that was found. It goes on after an error.
func (f *socketFlags) each(do func(socket string, client controlv1.ControlClient) error) error {
	sockets, err := f.find()
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range sockets {
		client, closeConn, err := dial(s)
		if err != nil {
			return err
		}
		errs = append(errs, plain(do(s, client)))
		closeConn()
	}
	return errors.Join(errs...)
}

// plain takes gRPC's dressing off an error.
func plain(err error) error {
	if s, ok := status.FromError(err); ok && err != nil {
		return errors.New(s.Message())
	}
	return err
}

// isGone tells whether connecting failed because nobody listens.
func isGone(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT)
}
