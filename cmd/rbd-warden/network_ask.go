package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	cephmirror "github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/cluster/provider"
	"github.com/rbdwarden/rbdwarden/image"
	mirrorpool "github.com/rbdwarden/rbdwarden/mirror"
	clusterv1 "github.com/rbdwarden/rbdwarden/proto/cluster/v1"
	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/report"
)

// What a daemon asks its worker for about the site.
const (
	clusterReport  = "cluster report"
	clusterFind    = "cluster find"
	clusterCommand = "cluster command"
	clusterNode    = "cluster node"
	clusterMove    = "cluster move"
)

// call does what the daemon asks about the site.
func (n *network) call(ctx context.Context, r *controlv1.CallRequest) ([]byte, error) {
	if n == nil {
		return nil, fmt.Errorf("this worker is not connected to other daemons: %w", syscall.ENOTCONN)
	}
	var result any
	var err error
	switch r.GetCommand() {
	case clusterReport:
		result = n.report(ctx)
	case clusterFind:
		result, err = n.find(ctx, r.GetArguments())
	case clusterCommand:
		command := &controlv1.CommandRequest{}
		if err := protojson.Unmarshal([]byte(r.GetArguments()["command"]), command); err != nil {
			return nil, fmt.Errorf("%w: %w", syscall.EINVAL, err)
		}
		result, err = n.spread(ctx, command, r.GetArguments()["owner"], audience(r.GetArguments()["to"]))
	case clusterMove:
		return json.Marshal(n.move(ctx, r.GetArguments()))
	case clusterNode:
		return n.nodeOf(ctx, r.GetArguments()["daemon"], r.GetArguments()["request"])
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(result)
}

// Bounds of asking for reports.
const (
	// neighbourPatience is how long other daemons are waited for.
	neighbourPatience = 2 * time.Second
	// second is how long one worker of a daemon is waited for before another is asked, too.
	second = 500 * time.Millisecond
	// maxTold bounds the reports of all daemons together, for the way to our own.
	maxTold = 40 << 20
)

// report asks all other daemons of the site for their reports. Its own daemon's it leaves to
// that.
func (n *network) report(ctx context.Context) report.Cluster {
	ctx, cancel := context.WithTimeout(ctx, neighbourPatience)
	defer cancel()
	neighbours, frozen := n.neighbours()
	c := report.Cluster{FSID: n.fsid, Frozen: frozen, Daemons: make([]report.ClusterDaemon, len(neighbours))}
	sizes := make([]int, len(neighbours))
	var all sync.WaitGroup
	for i, d := range neighbours {
		entry := &c.Daemons[i]
		*entry = report.ClusterDaemon{Host: d.host, PID: d.pid, Members: d.living, State: report.DaemonAnswers}
		switch {
		case len(d.living) == 0:
			entry.State = report.DaemonDead
			entry.Since, entry.Text = lastDeath(d)
		case !slices.Contains(d.living, n.self):
			all.Go(func() {
				var err error
				if entry.Report, sizes[i], err = n.reportOf(ctx, d.living); err != nil {
					entry.State, entry.Text = report.DaemonSilent, report.OneLine(err.Error())
				}
			})
		}
	}
	all.Wait()
	total := 0
	for i := range sizes {
		if total += sizes[i]; total > maxTold {
			withoutImages(c.Daemons[i].Report)
			c.Notes = append(c.Notes, "the images of "+c.Daemons[i].Name()+" are left out, for there are too many")
		}
	}
	return c
}

// lastDeath is when, and of what, the last of a daemon's members died.
func lastDeath(d *neighbour) (since time.Time, text string) {
	for _, m := range d.dead {
		if m.Since.After(since) {
			since, text = m.Since, m.Cause
			if m.Fenced {
				text += ", fenced"
			}
		}
	}
	return since, text
}

func withoutImages(d *report.Daemon) {
	if d == nil {
		return
	}
	for w := range d.Workers {
		for p := range d.Workers[w].Pools {
			d.Workers[w].Pools[p].Images = nil
		}
	}
}

// reportOf asks the workers of a daemon for its report: one first, and if that says nothing
// for a moment the next, too. size is about that of the report.
func (n *network) reportOf(ctx context.Context, members []string) (*report.Daemon, int, error) {
	type told struct {
		daemon *report.Daemon
		size   int
		err    error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan told, len(members))
	ask := func(id string) {
		var t told
		a, err := n.question(ctx, id, &clusterv1.Question{What: &clusterv1.Question_Report{Report: &clusterv1.ReportQuestion{}}})
		if t.err = err; err == nil {
			var data []byte
			if data, t.err = decompress(a.GetReportGzip()); t.err == nil {
				t.daemon, t.size = &report.Daemon{}, len(data)
				t.err = json.Unmarshal(data, t.daemon)
			}
		}
		answers <- t
	}
	var errs []error
	asked := 0
	for {
		if asked < len(members) {
			go ask(members[asked])
			asked++
		}
		var next <-chan time.Time
		if asked < len(members) {
			next = time.After(second)
		}
		select {
		case t := <-answers:
			if t.err == nil {
				return t.daemon, t.size, nil
			}
			errs = append(errs, t.err)
			if len(errs) == len(members) {
				return nil, 0, errors.Join(errs...)
			}
		case <-next:
		case <-ctx.Done():
			return nil, 0, errors.Join(append(errs, fmt.Errorf("does not answer for %v", neighbourPatience), n.transport.Trouble(members[0]))...)
		}
	}
}

// whereabouts is what a worker finds out about an image that its daemon does not know.
type whereabouts struct {
	GlobalID string `json:"global_id"`
	// Owner is the member that the image map gives the image to, "" if there is none that
	// lives; Host and PID are its daemon.
	Owner string `json:"owner"`
	Host  string `json:"host"`
	PID   int    `json:"pid"`
}

// find finds an image by its name or its global id in the pool, and its owner in the map.
// ENOENT: it is not mirrored.
func (n *network) find(ctx context.Context, of map[string]string) (w whereabouts, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	io, err := n.openPool(ctx, of["pool"], of["namespace"])
	if err != nil {
		return w, err
	}
	defer io.Close()
	w.GlobalID = of["image"]
	id, err := image.ID(ctx, io, of["image"])
	if err == nil {
		var record cephmirror.Image
		if record, err = mirrorpool.GetImage(ctx, io, id); err == nil {
			w.GlobalID = record.GlobalID
		}
	}
	if err != nil { // perhaps it is a global id
		if _, _, errID := mirrorpool.FindImage(ctx, io, of["image"]); errID != nil {
			return w, fmt.Errorf("image %s: %w", of["image"], err)
		}
	}
	pid := n.cluster.Get(provider.Image{PoolID: io.Pool().ID, Namespace: of["namespace"], GlobalID: w.GlobalID}.Identity(), provider.KindImage)
	if pid == nil {
		return w, nil
	}
	w.Owner = pid.GetAddress()
	neighbours, _ := n.neighbours()
	for _, d := range neighbours {
		if slices.Contains(d.living, w.Owner) {
			w.Host, w.PID = d.host, d.pid
		}
	}
	return w, nil
}

// spreadReply is what another daemon said to a command.
type spreadReply struct {
	Host string `json:"host"`
	PID  int    `json:"pid"`
	// Reply is a controlv1.CommandReply in protobuf; if Error is not "", there is none.
	Reply []byte `json:"reply"`
	Error string `json:"error,omitempty"`
}

// spread gives a command to other daemons, through one worker of each: the one named owner
// where it is.
func (n *network) spread(ctx context.Context, r *controlv1.CommandRequest, owner string, to audience) ([]spreadReply, error) {
	wait := time.Duration(r.GetTimeoutNanos()) + neighbourPatience
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	neighbours, _ := n.neighbours()
	neighbours = slices.DeleteFunc(neighbours, func(d *neighbour) bool {
		owns := slices.Contains(d.living, owner)
		return len(d.living) == 0 || slices.Contains(d.living, n.self) || to == toOwner && !owns || to == toOthers && owns
	})
	replies := make([]spreadReply, len(neighbours))
	var all sync.WaitGroup
	for i, d := range neighbours {
		all.Go(func() {
			replies[i] = spreadReply{Host: d.host, PID: d.pid}
			to := d.living[0]
			if slices.Contains(d.living, owner) {
				to = owner
			}
			a, err := n.order(ctx, to, &clusterv1.Question{What: &clusterv1.Question_Command{Command: r}})
			if err == nil {
				replies[i].Reply, err = marshalReply(a.GetCommand())
			}
			if err != nil {
				replies[i].Error = report.OneLine(err.Error())
			}
		})
	}
	all.Wait()
	return replies, nil
}

// openPool opens a mirrored pool that this worker takes part in.
func (n *network) openPool(ctx context.Context, name, namespace string) (rados.IOContext, error) {
	n.mu.Lock()
	pools := make([]int64, 0, len(n.views))
	for id := range n.views {
		pools = append(pools, id)
	}
	n.mu.Unlock()
	for _, id := range pools {
		io, err := n.open(ctx, id, namespace)
		if err != nil {
			continue // it may have been removed
		}
		if io.Pool().Name == name {
			return io, nil
		}
		io.Close()
	}
	return nil, fmt.Errorf("pool %s is not mirrored: %w", name, syscall.ENOENT)
}
