package main

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/admin"
	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
)

// adminServer is the daemon's admin socket, where rbd-mirror's would be. It is served by
// the daemon process: it answers also while no worker runs.
type adminServer struct {
	d      *warden
	server *admin.Server
	perf   perfBase
}

// listenAdmin serves the admin socket. The result is usable (for Close) also after an
// error, and if no socket is configured.
func listenAdmin(d *warden) (*adminServer, error) {
	a := &adminServer{d: d}
	path := d.cfg.Process.AdminSocket
	if path == "" {
		return a, nil
	}
	removeStale(socketPattern(path, os.Getpid()))
	var err error
	a.server, err = admin.Listen(path, os.FileMode(d.cfg.Process.AdminSocketMode), a.commands)
	return a, err
}

// Close ends the service and removes the socket.
func (a *adminServer) Close() {
	if err := a.server.Close(); err != nil {
		a.d.log.Warn().Err(err).Msg("closing the admin socket")
	}
}

// commands are all commands that can be given at the moment: those of rbd-mirror's own
// process, and those of its pools and images.
func (a *adminServer) commands(ctx context.Context) []admin.Command {
	r := a.d.report(ctx)
	return slices.Concat(a.processCommands(), a.perfCommands(r), a.configCommands(), a.mirrorCommands(r))
}

// processCommands are about the process and its log.
func (a *adminServer) processCommands() []admin.Command {
	empty := func(do func() error) func(context.Context, admin.Args) (admin.Answer, error) {
		return func(context.Context, admin.Args) (admin.Answer, error) {
			if err := do(); err != nil {
				return admin.Answer{}, err
			}
			return admin.Answer{Value: admin.NewObject("log")}, nil
		}
	}
	nothing := func() error { return nil } // lines are written as they come
	return []admin.Command{
		{Prefix: "0", Run: func(context.Context, admin.Args) (admin.Answer, error) {
			return admin.Answer{Raw: []byte("2")}, nil // the protocol's version
		}},
		{Prefix: "version", Help: "get ceph version", Run: a.version},
		{Prefix: "git_version", Help: "get git sha1", Run: a.inner("git_version", false)},
		{Prefix: "log flush", Help: "flush log entries to log file", Run: empty(nothing)},
		{Prefix: "log dump", Help: "dump recent log entries to log file", Run: empty(nothing)},
		{Prefix: "log reopen", Help: "reopen log file", Run: empty(a.d.reopenLogs)},
		{Prefix: "dump_mempools", Help: "get mempool stats", Run: a.inner("dump_mempools", false)},
		{Prefix: "objecter_requests", Help: "show in-progress osd requests", Run: a.inner("objecter_requests", false)},
		{Prefix: "rbd-warden ps", Help: "dump the supervision tree: daemon, workers, pools, images", Run: a.tree},
	}
}

// version tells Ceph's version, as the libraries that a worker uses say it, and ours.
func (a *adminServer) version(ctx context.Context, _ admin.Args) (admin.Answer, error) {
	v, err := a.ask(ctx, 0, "version", nil)
	if err != nil {
		v = admin.NewObject("version")
	}
	v.PutString("rbd_warden_version", version)
	return admin.Answer{Value: v}, nil
}

// tree is the report as it is.
func (a *adminServer) tree(ctx context.Context, _ admin.Args) (admin.Answer, error) {
	b, err := json.Marshal(a.d.report(ctx))
	if err != nil {
		return admin.Answer{}, err
	}
	v, err := admin.Parse("rbd_warden", b)
	return admin.Answer{Value: v}, err
}

// inner is a command that librados answers, in the first worker or in all of them.
func (a *adminServer) inner(prefix string, all bool) func(context.Context, admin.Args) (admin.Answer, error) {
	return func(ctx context.Context, args admin.Args) (admin.Answer, error) {
		if !all {
			v, err := a.ask(ctx, 0, prefix, args)
			return admin.Answer{Value: v}, err
		}
		var answer admin.Answer
		for i := range a.d.workers {
			v, err := a.ask(ctx, i, prefix, args)
			if err != nil {
				return admin.Answer{}, err
			}
			answer.Value = v
		}
		return answer, nil
	}
}

// ask asks the admin socket of a worker's connection to the local cluster. The names of
// its answer's root are those of Ceph's commands.
func (a *adminServer) ask(ctx context.Context, worker int, prefix string, args admin.Args) (*admin.Value, error) {
	r := &controlv1.CallRequest{Command: libradosCommand + " " + prefix, Arguments: encodeArgs(args)}
	reply, err := a.call(ctx, worker, r)
	if err != nil || len(reply.Json) == 0 {
		return nil, err
	}
	name := map[string]string{
		"version": "version", "git_version": "version", "perf dump": "perfcounter_collection",
		"perf schema": "perfcounter_collection", "config show": "config_show", "config get": "config_get",
		"config diff": "config_diff", "config help": "config_help", "config set": "config_set", "config unset": "config_unset",
	}[prefix]
	if name == "" {
		name = prefix
	}
	v, err := admin.Parse(name, reply.Json)
	if err != nil {
		return nil, admin.Errorf(syscall.EIO, "librados answered %q with something else than JSON: %v", prefix, err)
	}
	return v, nil
}

// callPatience is how long a worker gets for a command.
const callPatience = 25 * time.Second

// call hands a command to a worker; its failure is an error for the client.
func (a *adminServer) call(ctx context.Context, worker int, r *controlv1.CallRequest) (*controlv1.CallReply, error) {
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	reply, err := a.d.workers[worker].Call(ctx, r)
	if err != nil {
		return nil, err
	}
	if reply.Code != 0 {
		return nil, admin.Errorf(syscall.Errno(reply.Code), "%s", reply.Text)
	}
	return reply, nil
}
