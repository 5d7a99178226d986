package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"google.golang.org/protobuf/proto"

	"github.com/rbdwarden/rbdwarden/config"
	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/report"
)

// elsewhere gives a command to an image that this daemon does not run: to all daemons of the
// site, of which one runs it, and the others note what is to hold when it moves to them.
//
// Invariant: a command that the image's daemon refuses is noted by nobody.
//
// refusal is what is answered if no daemon has the image.
func (c *commander) elsewhere(ctx context.Context, d report.Daemon, r *controlv1.CommandRequest, refusal *controlv1.CommandReply) *controlv1.CommandReply {
	at, err := c.site.find(ctx, r.GetTarget())
	switch {
	case errors.Is(err, syscall.ENOENT):
		return refusal
	case err != nil:
		return refused(syscall.Errno(refusal.Code), "%s; other daemons cannot be asked about it: %v", refusal.Text, err)
	}
	t := r.GetTarget()
	spec := join(t.GetPool(), t.GetNamespace()) + "/" + t.GetImage()
	if at.Owner != "" && at.Host == d.Host && at.PID == d.PID { // one that moved here while it was stopped has no name yet
		r = proto.CloneOf(r)
		r.Target.Image = at.GlobalID
		d = c.report(ctx) // or that came only now
		found, _ := resolve(d, r.GetTarget())
		reply := c.here(ctx, d, r, found)
		if reply.GetCode() == 0 && len(reply.GetOutcomes()) == 0 {
			reply = &controlv1.CommandReply{Outcomes: []*controlv1.Outcome{{
				Image: spec, GlobalId: at.GlobalID, Code: nobodyCode(r.GetVerb()), Text: "this daemon is to run it, and does not yet; " + noted(r.GetVerb()),
			}}}
		}
		return named(reply, at, spec)
	}
	told := &controlv1.CommandRequest{
		Verb: r.GetVerb(), Words: wordsOf(r), TimeoutNanos: r.GetTimeoutNanos(), HereOnly: true,
		Target: &controlv1.Target{Pool: t.GetPool(), Namespace: t.GetNamespace(), Image: at.GlobalID},
	}
	var replies []spreadReply
	to := toAll
	if r.GetVerb() == controlv1.Verb_VERB_PAUSE && at.Owner != "" {
		// The only command that who runs the image may refuse. What is refused is noted by nobody.
		if replies, err = c.site.spread(ctx, told, at.Owner, toOwner); err != nil {
			return refused(syscall.EHOSTDOWN, "other daemons cannot be told: %v", err)
		}
		if refusal := refusalOf(replies); refusal != nil {
			return refusal
		}
		to = toOthers
	}
	reply := &controlv1.CommandReply{}
	if wish, ok := wishOf(told); ok {
		c.note(wish)
		here := c.tell(ctx, d, nil, withTimeout(told, commandSlack)) // nobody here runs it, or only just
		reply.Outcomes = here.GetOutcomes()
	}
	rest, err := c.site.spread(ctx, told, at.Owner, to)
	if err != nil && len(replies) == 0 {
		return refused(syscall.EHOSTDOWN, "other daemons cannot be told: %v; %s", err, noted(r.GetVerb()))
	}
	return named(gather(reply, append(replies, rest...), at, spec, r.GetVerb()), at, spec)
}

// named calls an image as whoever gave the command did.
func named(reply *controlv1.CommandReply, at whereabouts, spec string) *controlv1.CommandReply {
	for _, o := range reply.GetOutcomes() {
		if o.GetGlobalId() == at.GlobalID {
			o.Image = spec
		}
	}
	return reply
}

// refusalOf is the refusal in what daemons said; nil if there is none.
func refusalOf(replies []spreadReply) *controlv1.CommandReply {
	for _, s := range replies {
		var said controlv1.CommandReply
		if s.Error == "" && proto.Unmarshal(s.Reply, &said) == nil && said.GetCode() != 0 {
			return refused(syscall.Errno(said.GetCode()), "the daemon %s, which runs it, refuses: %s", report.DaemonName(s.Host, s.PID), said.GetText())
		}
	}
	return nil
}

// gather makes one answer of what all daemons said.
func gather(reply *controlv1.CommandReply, replies []spreadReply, at whereabouts, spec string, verb controlv1.Verb) *controlv1.CommandReply {
	for _, s := range replies {
		name, runs := report.DaemonName(s.Host, s.PID), s.Host == at.Host && s.PID == at.PID
		var said controlv1.CommandReply
		if s.Error == "" {
			if err := proto.Unmarshal(s.Reply, &said); err != nil {
				s.Error = err.Error()
			}
		}
		switch {
		case runs && s.Error != "":
			return refused(syscall.EHOSTDOWN, "image %s is run by the daemon %s, which cannot be told: %s; %s", spec, name, s.Error, noted(verb))
		case runs && said.GetCode() != 0:
			return refused(syscall.Errno(said.GetCode()), "the daemon %s, which runs it, refuses: %s", name, said.GetText())
		}
		for _, o := range said.GetOutcomes() {
			o.Daemon = name
			reply.Outcomes = append(reply.Outcomes, o)
		}
	}
	if len(reply.Outcomes) == 0 {
		text := "no daemon of the site runs it at the moment; " + noted(verb)
		if at.Owner != "" {
			text = fmt.Sprintf("the daemon %s is to run it, and does not yet; %s", report.DaemonName(at.Host, at.PID), noted(verb))
		}
		reply.Outcomes = []*controlv1.Outcome{{Image: spec, GlobalId: at.GlobalID, Code: nobodyCode(verb), Text: text}}
	}
	tellUntold(reply, replies)
	return reply
}

// tellUntold says which daemons have not noted a command.
func tellUntold(reply *controlv1.CommandReply, replies []spreadReply) {
	var untold []string
	for _, s := range replies {
		if s.Error != "" {
			untold = append(untold, report.DaemonName(s.Host, s.PID))
		}
	}
	if len(untold) == 0 {
		return
	}
	for _, o := range reply.GetOutcomes() {
		o.Text += " (not told, for they do not answer: " + strings.Join(untold, "; ") + ")"
	}
}

// others has all other daemons note a command for an image that this one runs. The result
// tells the answer which of them did not.
func (c *commander) others(ctx context.Context, told *controlv1.CommandRequest) (finish func(*controlv1.CommandReply)) {
	if _, isWish := wishOf(told); c.site == nil || !isWish || told.GetTarget().GetImage() == "" {
		return func(*controlv1.CommandReply) {}
	}
	notice := proto.CloneOf(told)
	notice.HereOnly, notice.TimeoutNanos = true, 0
	done := make(chan []spreadReply, 1)
	go func() {
		replies, err := c.site.spread(ctx, notice, "", toAll)
		if err != nil {
			replies = nil // there is no way to the others: "ps --cluster" says so
		}
		done <- replies
	}()
	return func(reply *controlv1.CommandReply) { tellUntold(reply, <-done) }
}

// command gives a command to images, whichever workers run them. What it stops or starts
// is kept for workers to come. others are the site's other daemons, nil: this one only.
func (d *warden) command(ctx context.Context, r *controlv1.CommandRequest, others siteDaemons) *controlv1.CommandReply {
	c := commander{site: others, report: d.report, note: func(wish config.Halt) {
		d.change(func(c *config.Config) { c.Halts = c.Halts.With(wish) })
	}}
	for _, w := range d.workers {
		c.crew = append(c.crew, w)
	}
	return c.Do(ctx, r)
}
