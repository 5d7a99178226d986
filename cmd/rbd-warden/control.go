package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/report"
)

// maxSocketPath is the longest path that a unix socket can have, in bytes.
const maxSocketPath = 107

// controlServer answers the command line on the control socket.
type controlServer struct {
	controlv1.UnimplementedControlServer
	warden *warden
	server *grpc.Server
	path   string
}

// listenControl serves the control socket. The result is usable (for Stop) also after
// an error, and if no socket is configured.
func listenControl(d *warden) (*controlServer, error) {
	c := &controlServer{warden: d, path: d.cfg.Process.ControlSocket}
	if c.path == "" {
		return c, nil
	}
	if most := maxSocketPath - len(unbornSuffix); len(c.path) > most {
		return c, fmt.Errorf("path of control socket has more than %d bytes: %s (set rbd_warden_control_socket)", most, c.path)
	}
	removeStale(socketPattern(d.cfg.Process.ControlSocket, os.Getpid()))
	if inUse(c.path) {
		return c, fmt.Errorf("control socket %s is in use by another daemon", c.path)
	}
	if err := os.Remove(c.path); err != nil && !os.IsNotExist(err) {
		return c, err
	}
	l, err := listenAt(c.path)
	if err != nil {
		return c, err
	}
	c.server = grpc.NewServer(grpc.UnaryInterceptor(recoverCall))
	controlv1.RegisterControlServer(c.server, c)
	go func() {
		if err := c.server.Serve(l); err != nil {
			d.log.Warn().Err(err).Msg("control socket ended")
		}
	}()
	return c, nil
}

// listenAt makes a socket that has its name only when it listens: before, daemons that start at the same moment would take it
// for that of a dead one, and remove it (removeStale).
func listenAt(path string) (net.Listener, error) {
	unborn := path + unbornSuffix
	if err := os.Remove(unborn); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	// The mode must be right from the start: who connects may do anything.
	old := syscall.Umask(0o177)
	l, err := net.Listen("unix", unborn)
	syscall.Umask(old)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // it would be by the old name
	if err := os.Rename(unborn, path); err != nil {
		_ = l.Close()
		_ = os.Remove(unborn)
		return nil, err
	}
	return l, nil
}

// unbornSuffix ends the name of a socket that does not listen yet. removeStale's pattern must not match it.
const unbornSuffix = "~"

// recoverCall keeps a command's panic from ending the daemon.
func recoverCall(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (reply any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = status.Errorf(codes.Internal, "panic: %v", p)
		}
	}()
	return next(ctx, req)
}

// Stop ends the service and removes the socket.
func (c *controlServer) Stop() {
	if c.server != nil {
		_ = os.Remove(c.path) // first: when nobody listens any more, it may be another daemon's
		c.server.Stop()
	}
}

// Version tells what runs.
func (c *controlServer) Version(context.Context, *controlv1.VersionRequest) (*controlv1.VersionReply, error) {
	b := thisBuild()
	return &controlv1.VersionReply{Version: b.Version, Commit: b.Commit, Go: b.Go, Pid: int64(os.Getpid())}, nil
}

// Ps answers the supervision tree.
func (c *controlServer) Ps(ctx context.Context, r *controlv1.PsRequest) (*controlv1.PsReply, error) {
	d := c.warden.report(ctx)
	if r.GetTraces() {
		c.warden.traces.Fill(&d)
	}
	data, err := json.Marshal(d)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "encode report: %v", err)
	}
	return &controlv1.PsReply{ReportJson: data}, nil
}

// Command gives a command to images.
func (c *controlServer) Command(ctx context.Context, r *controlv1.CommandRequest) (*controlv1.CommandReply, error) {
	c.warden.log.Info().Stringer("command", r.GetVerb()).Stringer("target", r.GetTarget()).Str("words", r.GetWords()).Msg("control socket")
	return c.warden.command(ctx, r, wardenSite{c.warden}), nil
}

// Move gives an image to another member.
func (c *controlServer) Move(ctx context.Context, r *controlv1.MoveRequest) (*controlv1.Outcome, error) {
	c.warden.log.Info().Stringer("target", r.GetTarget()).Str("to", r.GetTo()).Msg("control socket: move")
	return c.warden.move(ctx, r), nil
}

// Node has workers give their images away or take images again.
func (c *controlServer) Node(ctx context.Context, r *controlv1.NodeRequest) (*controlv1.NodeReply, error) {
	if r.GetVerb() != controlv1.NodeVerb_NODE_VERB_SHOW {
		c.warden.log.Info().Stringer("command", r.GetVerb()).Str("daemon", r.GetDaemon()).Uints32("workers", r.GetWorkers()).Str("words", r.GetWords()).Msg("control socket")
	}
	return c.warden.nodeOf(ctx, r), nil
}

// Limit shows or sets limits on bytes a second.
func (c *controlServer) Limit(ctx context.Context, r *controlv1.LimitRequest) (*controlv1.LimitReply, error) {
	if r.GetVerb() != controlv1.LimitVerb_LIMIT_VERB_SHOW {
		c.warden.log.Info().Stringer("command", r.GetVerb()).Stringer("limits", r).Msg("control socket")
	}
	return c.warden.limits.Do(ctx, r), nil
}

// PsCluster answers what all daemons of the site say.
func (c *controlServer) PsCluster(ctx context.Context, _ *controlv1.PsClusterRequest) (*controlv1.PsReply, error) {
	data, err := json.Marshal(c.warden.clusterReport(ctx))
	if err != nil {
		return nil, status.Errorf(codes.Internal, "encode report: %v", err)
	}
	return &controlv1.PsReply{ReportJson: data}, nil
}

// RestartWorkers replaces workers, one after the other.
func (c *controlServer) RestartWorkers(r *controlv1.RestartWorkersRequest, out controlv1.Control_RestartWorkersServer) error {
	workers := c.warden.workers
	indexes := r.GetIndexes()
	if len(indexes) == 0 {
		for i := range workers {
			indexes = append(indexes, uint32(i))
		}
	}
	for _, i := range indexes {
		if int(i) >= len(workers) {
			return status.Errorf(codes.NotFound, "there is no worker %d (there are %d)", i, len(workers))
		}
	}
	for _, i := range indexes {
		c.warden.log.Info().Uint32("worker", i).Msg("control socket: restart")
		told := restartWorker(out.Context(), workers[i], time.Duration(r.GetTimeoutNanos()))
		told.Index = i
		if err := out.Send(told); err != nil || told.Code != 0 {
			return err
		}
	}
	return nil
}

// restartable is a worker as RestartWorkers sees it: *process.Supervisor.
type restartable interface {
	Restart()
	View() report.Worker
}

// restartWorker replaces one worker and waits until the new one is ready.
func restartWorker(ctx context.Context, w restartable, timeout time.Duration) *controlv1.WorkerRestarted {
	was, began := w.View(), time.Now()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	w.Restart()
	for {
		is := w.View()
		switch {
		case is.State == report.WorkerReady && is.PID != was.PID:
			return &controlv1.WorkerRestarted{Text: fmt.Sprintf("worker %d: was %s, pid %d; ready after %s, pid %d", is.Index, was.State, was.PID,
				time.Since(began).Round(10*time.Millisecond), is.PID)}
		case is.State == report.WorkerStopped:
			return &controlv1.WorkerRestarted{Code: int32(syscall.ESHUTDOWN), Text: fmt.Sprintf("worker %d: the daemon stops", is.Index)}
		}
		select {
		case <-ctx.Done():
			text := fmt.Sprintf("worker %d is not ready yet: it is %s", is.Index, is.State)
			if is.LastCause != nil {
				text += "; the last one ended: " + is.LastCause.String()
			}
			return &controlv1.WorkerRestarted{Code: int32(syscall.ETIMEDOUT), Text: text}
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// patience is how long a report waits for workers.
const reportPatience = 2 * time.Second

// report makes the supervision tree. A worker that does not answer is shown with what
// it said last.
func (d *warden) report(ctx context.Context) report.Daemon {
	ctx, cancel := context.WithTimeout(ctx, reportPatience)
	defer cancel()
	host, _ := os.Hostname()
	r := report.Daemon{
		Version: version, Host: host, PID: os.Getpid(), Cluster: d.config().Cluster,
		Entity: d.cfg.Entity.String(), Started: d.started, Stops: d.stopping(),
		Workers: make([]report.Worker, len(d.workers)),
	}
	var all sync.WaitGroup
	for i, w := range d.workers {
		all.Go(func() { r.Workers[i] = w.Report(ctx) })
	}
	all.Wait()
	book := d.ledger.Book()
	r.Ends = book.Counts
	for i := range r.Workers {
		r.Workers[i].History = book.Records[report.LevelWorker][workerName(i)].Ends
	}
	own(&r)
	d.names.Fill(&r)
	r.Taken = time.Now()
	return r
}

// own gives a report images of its own, to be changed: what workers told last is shared by
// all reports until they tell it anew.
func own(r *report.Daemon) {
	for w := range r.Workers {
		r.Workers[w].Pools = slices.Clone(r.Workers[w].Pools)
		for p := range r.Workers[w].Pools {
			r.Workers[w].Pools[p].Images = slices.Clone(r.Workers[w].Pools[p].Images)
		}
	}
}

// socketPattern makes a pattern that the sockets of all daemons like this one match,
// from the path of this one's.
func socketPattern(path string, pid int) string {
	dir, base := filepath.Split(path)
	return filepath.Join(dir, strings.ReplaceAll(base, fmt.Sprintf(".%d.", pid), ".*."))
}

// removeStale removes the sockets of daemons that died without removing theirs.
func removeStale(pattern string) {
	paths, err := filepath.Glob(pattern)
	if err != nil || !strings.Contains(pattern, "*") {
		return
	}
	for _, p := range paths {
		if !inUse(p) {
			// Whoever may not remove it leaves it, and it does no harm.
			_ = os.Remove(p)
		}
	}
}

// inUse tells whether somebody listens on a socket. A socket that we may not connect
// to counts as in use.
func inUse(path string) bool {
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return true
	}
	return !isGone(err)
}
