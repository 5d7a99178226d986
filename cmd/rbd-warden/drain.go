package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/config"
	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/report"
)

// drainer has workers of this daemon give their images away or take images again.
//
// Invariant: that a worker drains is noted for workers to come before it is told; so one that
// dies or starts in the middle goes by it, too.
type drainer struct {
	crew   []caller
	report func(ctx context.Context) report.Daemon
	note   func(func(*config.Config))
	wishes func() map[int]string // as noted
}

// caller is a worker as a drainer sees it: *process.Supervisor.
type caller interface {
	Call(ctx context.Context, r *controlv1.CallRequest) (*controlv1.CallReply, error)
}

// node does what is asked of workers of this daemon.
func (d *warden) node(ctx context.Context, r *controlv1.NodeRequest) *controlv1.NodeReply {
	n := drainer{report: d.report, note: d.change, wishes: func() map[int]string { return d.config().Drains }}
	for _, w := range d.workers {
		n.crew = append(n.crew, w)
	}
	return n.Do(ctx, r)
}

// Do does it.
func (n *drainer) Do(ctx context.Context, r *controlv1.NodeRequest) *controlv1.NodeReply {
	d := n.report(ctx)
	indexes, refusal := whichWorkers(d, r.GetWorkers())
	if refusal == nil && r.GetVerb() == controlv1.NodeVerb_NODE_VERB_DRAIN {
		refusal = nobodyTakes(d, indexes)
	}
	if refusal != nil {
		return refusal
	}
	reply := &controlv1.NodeReply{Daemon: report.DaemonName(d.Host, d.PID)}
	switch r.GetVerb() {
	case controlv1.NodeVerb_NODE_VERB_SHOW:
		for _, i := range indexes {
			o := nodeOutcome(d.Workers[i])
			o.Text = standingOf(o)
			reply.Outcomes = append(reply.Outcomes, o)
		}
	case controlv1.NodeVerb_NODE_VERB_DRAIN, controlv1.NodeVerb_NODE_VERB_UNDRAIN:
		reply.Outcomes = n.change(ctx, d, indexes, r)
	default:
		return &controlv1.NodeReply{Code: int32(syscall.EINVAL), Text: fmt.Sprintf("there is no such command: %v", r.GetVerb())}
	}
	return reply
}

// change notes and tells that workers drain, or do so no more.
func (n *drainer) change(ctx context.Context, d report.Daemon, indexes []int, r *controlv1.NodeRequest) []*controlv1.NodeOutcome {
	drain, words := r.GetVerb() == controlv1.NodeVerb_NODE_VERB_DRAIN, report.Bounded(report.OneLine(r.GetWords()), maxWords)
	if words == "" {
		words = "drained"
	}
	n.note(func(c *config.Config) {
		if c.Drains == nil {
			c.Drains = map[int]string{}
		}
		for _, i := range indexes {
			switch {
			case !drain:
				delete(c.Drains, i)
			case c.Drains[i] == "": // who was first stays
				c.Drains[i] = words
			}
		}
	})
	var all []*controlv1.NodeOutcome
	for _, i := range indexes {
		o := nodeOutcome(d.Workers[i])
		was := o.GetDraining()
		o.Draining = drain
		o.Text = changeText(o, was)
		if d.Workers[i].PID == 0 {
			o.Text = fmt.Sprintf("it does not run (%s); it is noted for when it does", d.Workers[i].State)
		} else if err := n.tell(ctx, i); err != nil {
			o.Code, o.Text = int32(syscall.EAGAIN), "it does not answer, and will be told when it does: "+report.OneLine(err.Error())
		}
		all = append(all, o)
	}
	return all
}

// tellPatience is how long whoever gives a command waits for a worker to hear it.
const tellPatience = 2 * time.Second

// tell tells a worker what is noted for it. One that cannot hear yet, because it starts, is told
// beside that for a while; if it ends, the next one is started with it.
func (n *drainer) tell(ctx context.Context, i int) (err error) {
	beside, cancel := context.WithTimeout(context.WithoutCancel(ctx), notedWithin)
	heard, last := make(chan struct{}), make(chan error, 1)
	go func() {
		defer cancel()
		for {
			words, drain := n.wishes()[i]
			command := undrainCommand
			if drain {
				command = drainCommand
			}
			reply, err := n.crew[i].Call(beside, &controlv1.CallRequest{Command: command, Arguments: map[string]string{"words": words}})
			if err == nil && reply.GetCode() != 0 {
				err = errors.New(reply.GetText())
			}
			if err == nil {
				close(heard)
				return
			}
			select {
			case last <- err:
			default:
			}
			select {
			case <-beside.Done():
				return
			case <-time.After(retryCommand):
			}
		}
	}()
	select {
	case <-heard:
		return nil
	case <-ctx.Done():
	case <-time.After(tellPatience):
	}
	select {
	case err = <-last:
	default:
		err = context.DeadlineExceeded
	}
	return err
}

// whichWorkers are the workers that a request is for.
func whichWorkers(d report.Daemon, asked []uint32) (indexes []int, refusal *controlv1.NodeReply) {
	if len(asked) == 0 {
		for i := range d.Workers {
			indexes = append(indexes, i)
		}
		return indexes, nil
	}
	for _, i := range asked {
		if int(i) >= len(d.Workers) {
			return nil, &controlv1.NodeReply{Code: int32(syscall.ENOENT), Text: fmt.Sprintf("there is no worker %d (the daemon has %d)", i, len(d.Workers))}
		}
		if !slices.Contains(indexes, int(i)) {
			indexes = append(indexes, int(i))
		}
	}
	slices.Sort(indexes)
	return indexes, nil
}

// nobodyTakes refuses to drain the last that could run a pool's images. What drains already
// is no reason.
func nobodyTakes(d report.Daemon, indexes []int) *controlv1.NodeReply {
	own := map[string]bool{} // seats of those that are to drain
	for _, i := range indexes {
		own[seatOf(d, i)] = true
	}
	var pools []string
	for _, i := range indexes {
		if d.Workers[i].Drained != "" {
			continue
		}
		for _, p := range d.Workers[i].Parts {
			takes := func(seat string) bool { return !own[seat] }
			if name := poolName(d, p.PoolID); !slices.ContainsFunc(p.Takers, takes) && !slices.Contains(pools, name) {
				pools = append(pools, name)
			}
		}
	}
	if len(pools) == 0 {
		return nil
	}
	slices.Sort(pools)
	return &controlv1.NodeReply{Code: int32(syscall.EBUSY), Text: fmt.Sprintf(
		"nobody else can take the images of %s %s: no other daemon takes part, or those that do drain, too; nothing was changed",
		plural(len(pools), "pool"), strings.Join(pools, ", "))}
}

// poolName is a pool's name by its id.
func poolName(d report.Daemon, id int64) string {
	for _, w := range d.Workers {
		for _, p := range w.Pools {
			if p.ID == id {
				return p.Name
			}
		}
	}
	return fmt.Sprint("with the id ", id)
}

// nodeOutcome is what a worker has, and whether it drains.
func nodeOutcome(w report.Worker) *controlv1.NodeOutcome {
	o := &controlv1.NodeOutcome{Worker: uint32(w.Index), Draining: w.Drained != ""}
	images, mapped, stuck := 0, 0, false
	for _, p := range w.Pools {
		images += len(p.Images)
		o.Leads = o.Leads || p.Leader
	}
	for _, p := range w.Parts {
		mapped += p.Images
		stuck = stuck || p.Images > 0 && len(p.Takers) == 0
		if p.Frozen {
			o.Waits = "RADOS cannot be read"
		}
	}
	o.Left = uint32(max(images, mapped)) // what is let go is still in the first, what is to come in the second
	if stuck && o.Waits == "" {
		o.Waits = "nobody else can take them: no other daemon takes part, or those that do drain, too"
	}
	return o
}

// drainText is how far a worker's drain is.
func drainText(o *controlv1.NodeOutcome) string {
	if o.GetLeft() == 0 {
		return "it runs no image" + when(o.GetLeads(), ", and leads still")
	}
	return fmt.Sprintf("%d %s left", o.GetLeft(), plural(int(o.GetLeft()), "image")) + when(o.GetWaits() != "", "; "+o.GetWaits())
}

// standingOf is a worker's standing for people.
func standingOf(o *controlv1.NodeOutcome) string {
	if o.GetDraining() {
		return "drains: " + drainText(o)
	}
	return fmt.Sprintf("takes images, and has %d", o.GetLeft())
}

func changeText(o *controlv1.NodeOutcome, was bool) string {
	switch {
	case o.GetDraining() && was:
		return "drained already: " + drainText(o)
	case o.GetDraining():
		return fmt.Sprintf("took images, gives away %d", o.GetLeft())
	case was:
		return "was drained, takes images again"
	}
	return "was not drained"
}
