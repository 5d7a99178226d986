package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/report"
)

func marshalReply(r *controlv1.CommandReply) ([]byte, error) {
	if r == nil {
		return nil, errors.New("the answer is to another question")
	}
	return proto.Marshal(r)
}

// answerAsk answers what a worker asks, because a worker of another daemon has asked it.
func (d *warden) answerAsk(ctx context.Context, ask *controlv1.Ask) *controlv1.Told {
	switch what := ask.GetWhat().(type) {
	case *controlv1.Ask_Report:
		if deadline, ok := ctx.Deadline(); ok { // a worker that says nothing must not use up the time
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, deadline.Add(-answerSlack))
			defer cancel()
		}
		data, err := json.Marshal(d.report(ctx))
		if err != nil {
			return &controlv1.Told{Error: err.Error()}
		}
		return &controlv1.Told{What: &controlv1.Told_Report{Report: &controlv1.PsReply{ReportJson: data}}}
	case *controlv1.Ask_Command:
		r := what.Command
		d.log.Info().Stringer("command", r.GetVerb()).Stringer("target", r.GetTarget()).Str("words", r.GetWords()).Msg("from another daemon")
		r.HereOnly = true
		return &controlv1.Told{What: &controlv1.Told_Command{Command: d.command(ctx, r, nil)}}
	case *controlv1.Ask_Node:
		if what.Node.GetVerb() != controlv1.NodeVerb_NODE_VERB_SHOW {
			d.log.Info().Stringer("command", what.Node.GetVerb()).Str("words", what.Node.GetWords()).Msg("from another daemon")
		}
		return &controlv1.Told{What: &controlv1.Told_Node{Node: d.node(ctx, what.Node)}}
	}
	return &controlv1.Told{Error: "the daemon does not know what is asked"}
}

// siteCall asks one worker after the other about the site, until one knows.
func (d *warden) siteCall(ctx context.Context, command string, arguments map[string]string, result any) error {
	err := fmt.Errorf("no worker is ready to ask them: %w", syscall.EHOSTDOWN)
	for _, w := range d.workers {
		if w.View().State != report.WorkerReady {
			continue
		}
		reply, callErr := w.Call(ctx, &controlv1.CallRequest{Command: command, Arguments: arguments})
		switch {
		case callErr != nil:
			err = callErr
		case reply.GetCode() != 0:
			if err = (&workerError{syscall.Errno(reply.GetCode()), reply.GetText()}); reply.GetCode() == int32(syscall.ENOENT) {
				return err
			}
		default:
			return json.Unmarshal(reply.GetJson(), result)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return err
}

// workerError is what a worker answered.
type workerError struct {
	errno syscall.Errno
	text  string
}

func (e *workerError) Error() string { return e.text }
func (e *workerError) Unwrap() error { return e.errno }

// clusterPatience bounds the collecting of all daemons' reports.
const clusterPatience = neighbourPatience + time.Second

// clusterReport collects the reports of all daemons of the site.
func (d *warden) clusterReport(ctx context.Context) report.Cluster {
	ctx, cancel := context.WithTimeout(ctx, clusterPatience)
	defer cancel()
	var own report.Daemon
	var all sync.WaitGroup
	all.Go(func() { own = d.report(ctx) })
	var c report.Cluster
	err := d.siteCall(ctx, clusterReport, nil, &c)
	all.Wait()
	if err != nil {
		c.Notes = append(c.Notes, "other daemons cannot be asked: "+report.OneLine(err.Error()))
	}
	c.Asked, c.Taken = report.DaemonName(own.Host, own.PID), time.Now()
	known := false
	for i := range c.Daemons {
		if e := &c.Daemons[i]; e.Host == own.Host && e.PID == own.PID {
			e.State, e.Text, e.Report, known = report.DaemonAnswers, "", &own, true
		}
	}
	if !known {
		c.Daemons = append(c.Daemons, report.ClusterDaemon{Host: own.Host, PID: os.Getpid(), State: report.DaemonAnswers, Report: &own})
	}
	c.Pools = c.Leaders()
	return c
}

// siteDaemons are what a command needs of the other daemons; nil: they are not asked.
type siteDaemons interface {
	// find finds out about an image that this daemon does not know. ENOENT: it is not mirrored.
	find(ctx context.Context, t *controlv1.Target) (whereabouts, error)
	// spread gives a command to others. owner is the member that owns its image, "" if nobody
	// does.
	spread(ctx context.Context, r *controlv1.CommandRequest, owner string, to audience) ([]spreadReply, error)
}

// audience says to which of the other daemons a command goes.
type audience string

const (
	toAll    audience = "all"
	toOwner  audience = "owner"  // that of the image's owner
	toOthers audience = "others" // all but that
)

// wardenSite is the site as a daemon's workers know it.
type wardenSite struct{ d *warden }

func (s wardenSite) find(ctx context.Context, t *controlv1.Target) (w whereabouts, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout+time.Second)
	defer cancel()
	err = s.d.siteCall(ctx, clusterFind, map[string]string{"pool": t.GetPool(), "namespace": t.GetNamespace(), "image": t.GetImage()}, &w)
	return w, err
}

func (s wardenSite) spread(ctx context.Context, r *controlv1.CommandRequest, owner string, to audience) (replies []spreadReply, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(r.GetTimeoutNanos())+clusterPatience)
	defer cancel()
	text, err := protojson.Marshal(r)
	if err != nil {
		return nil, err
	}
	err = s.d.siteCall(ctx, clusterCommand, map[string]string{"command": string(text), "owner": owner, "to": string(to)}, &replies)
	return replies, err
}
