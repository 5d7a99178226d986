package pool

import (
	"context"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/rbdwarden/rbdwarden/messages"
	"github.com/rbdwarden/rbdwarden/supervision"
)

// ending says why an image's actor is to end.
type ending int

const (
	stays   ending = iota // it is not
	gone                  // neither site mirrors the image any more
	another               // another member is to run it
)

// tell is what becomes of the image's status.
func (e ending) tell() func(s StatusSink, globalID string) {
	if e == gone {
		return StatusSink.Remove
	}
	return StatusSink.Forget // whoever runs it next writes it
}

// assigned takes a new share.
//
// Invariant: Applied is told of an epoch only when no image runs here that the share of
// that epoch does not name. Other members begin with what we lost after that.
func (p *Pool) assigned(c actor.Context, share Share) {
	p.share = &share
	p.showAlone()
	p.reconcile(c)
	for id := range share.Run {
		if _, ok := p.ids[id]; !ok && p.ids != nil {
			p.list(c) // the leader has seen a newer image than we have
			return
		}
	}
}

// ours tells whether this member is to run the image.
func (p *Pool) ours(globalID string) bool {
	if p.share == nil {
		return false
	}
	_, ok := p.share.Run[globalID]
	return ok
}

// reconcile makes what runs agree with what is mirrored and with our share of it.
func (p *Pool) reconcile(c actor.Context) {
	if p.ending || p.share == nil {
		return
	}
	for id, ch := range p.children {
		_, mirrored := p.ids[id]
		switch {
		case !mirrored: // then its status goes, too, whoever's it is
			p.letGo(c, id, ch, gone)
		case !p.ours(id):
			p.letGo(c, id, ch, another)
		case ch.stop:
			// It ends already; when it has, it is begun with anew.
		default:
			ch.ends = stays
		}
	}
	if p.remote != nil && p.ids != nil {
		for id := range p.share.Run {
			if _, mirrored := p.ids[id]; mirrored && p.children[id] == nil {
				p.begin(c, id)
			}
		}
		p.known = p.known || len(p.share.Run) > 0
	}
	p.tellApplied()
}

// dropped goes on after an image's end.
func (p *Pool) dropped(c actor.Context, globalID string) {
	if p.ending {
		p.maybeEnd(c)
		return
	}
	if _, mirrored := p.ids[globalID]; mirrored && p.ours(globalID) {
		p.begin(c, globalID) // it is ours again by now
	}
	if p.share != nil {
		p.tellApplied()
	}
}

// begin starts with an image.
func (p *Pool) begin(c actor.Context, globalID string) {
	ch := &child{restart: supervision.NewRestarter(p.opt.Strategy)}
	if !p.known {
		ch.past = p.opt.Past
	}
	p.children[globalID] = ch
	p.spawnChild(c, globalID, ch)
}

// letGo ends an image that is not to be run here any more.
func (p *Pool) letGo(c actor.Context, globalID string, ch *child, why ending) {
	ch.ends = why
	if ch.pid == nil {
		p.drop(globalID, why.tell())
		return
	}
	reason := "stopped: the image is not mirrored any more"
	if why == another {
		reason = "stopped: another member of the cluster goes on with the image"
	}
	p.stopChild(c, ch, reason)
}

// tellApplied tells that nothing runs that is not in our share.
func (p *Pool) tellApplied() {
	if p.applied == p.share.Epoch {
		return
	}
	for id := range p.children {
		if !p.ours(id) {
			return
		}
	}
	p.applied = p.share.Epoch
	if p.opt.Applied != nil {
		p.opt.Applied(p.applied)
	}
}

// lead starts and ends what only the pool's leader does.
func (p *Pool) lead(c actor.Context, leads bool) {
	if p.opt.Trash == nil || leads == p.leads || p.ending {
		return
	}
	p.leads = leads
	if !leads {
		p.trash.cancel()
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	self, system, earlier := c.Self(), c.ActorSystem(), p.trash
	p.trash = &reign{cancel: cancel, ended: make(chan struct{})}
	p.opt.Trash.Fenced = func(err error) { system.Root.Send(self, messages.ClientFenced{Err: err}) }
	go func(ended chan struct{}) {
		defer close(ended)
		if earlier != nil {
			<-earlier.ended // two at once would work on the same images over one connection
		}
		p.opt.Trash.Run(ctx)
	}(p.trash.ended)
}

// reign is a run of the deleter.
type reign struct {
	cancel context.CancelFunc
	ended  chan struct{}
}

// end ends it, and waits until it has.
func (r *reign) end() {
	if r != nil {
		r.cancel()
		<-r.ended
	}
}
