package pool

import (
	"context"
	"errors"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/rbdwarden/rbdwarden/report"
)

// While the peer cannot be reached from the start there is no actor of an image, for
// there is nothing that it could do. The local images' statuses still say what is the
// matter: an operator who finds the other site lost looks there first.

// firstSilence is how long a first answer of the peer may take until its silence is told;
// giving up takes far longer.
const firstSilence = 3 * time.Second

var errNoAnswerYet = errors.New("no answer yet")

// lookAlone looks at the local images, outside the mailbox.
func (p *Pool) lookAlone(c actor.Context, err error, next time.Time) {
	if p.opt.Alone == nil || p.ending {
		return
	}
	if p.absent.IsZero() {
		p.absent = time.Now()
	}
	since, attempts := p.absent, p.failures
	p.async(c, func(ctx context.Context) any {
		images, err := p.opt.Alone(ctx, err, since, attempts, next)
		return alone{images, err}
	})
}

// tellAlone tells the local images' statuses; there is no remote site to tell.
func (p *Pool) tellAlone(m alone) {
	if p.remote != nil || p.ending {
		return
	}
	if m.err != nil {
		p.opt.Log.Warn().Err(m.err).Msg("cannot list the local images")
	}
	if m.err == nil {
		listed := make(map[string]struct{}, len(m.images))
		for _, image := range m.images {
			listed[image.GlobalID] = struct{}{}
		}
		p.tellListed(listed, false)
	}
	p.locals = m.images
	p.showAlone()
}

// showAlone tells the statuses of the local images that are ours while there is no peer.
func (p *Pool) showAlone() {
	for id := range p.alone {
		if !p.ours(id) {
			delete(p.alone, id)
			p.opt.Status.Forget(id)
		}
	}
	for _, image := range p.locals {
		if !p.ours(image.GlobalID) {
			continue
		}
		if p.alone == nil {
			p.alone = map[string]report.Image{}
		}
		p.alone[image.GlobalID] = image
		p.opt.Status.Set(image.GlobalID, image)
	}
}

// notAlone hands the statuses on to the images' actors, or to whoever comes.
func (p *Pool) notAlone() {
	for id := range p.alone {
		if p.children[id] == nil {
			p.opt.Status.Forget(id)
		}
	}
	p.locals, p.alone, p.absent = nil, nil, time.Time{}
}
