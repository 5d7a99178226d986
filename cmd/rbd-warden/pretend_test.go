package main

import (
	"slices"
	"sync"
	"time"

	"github.com/rbdwarden/rbdwarden/actors/pool"
	"github.com/rbdwarden/rbdwarden/actors/site"
	"github.com/rbdwarden/rbdwarden/config"
	"github.com/rbdwarden/rbdwarden/messages"
	"github.com/rbdwarden/rbdwarden/report"
)

// pretenders are images of a worker that obey commands without a cluster.
type pretenders struct {
	mu     sync.Mutex
	halts  config.Halts
	images []report.Image
	slow   string // global id of an image that does not obey
	sent   []site.Command
}

// newPretenders makes images of pool rbd that replay, or what the halts want of them.
func newPretenders(halts config.Halts, images ...report.Image) *pretenders {
	p := &pretenders{halts: halts, images: images}
	for i := range p.images {
		p.images[i].Pool = "rbd"
		p.obey(&p.images[i])
	}
	return p
}

// obey makes an image what is wanted of it.
func (p *pretenders) obey(i *report.Image) {
	wish := p.halts.Of(i.Pool, i.Namespace, i.GlobalID)
	i.Stopped, i.Paused, i.Settled = wish.Reason != "" && !wish.Pause, wish.Pause, time.Now()
	switch {
	case i.Stopped:
		i.State, i.Step, i.Description = "stopped", stoppedStep, wish.Reason
	case i.Paused:
		i.State, i.Step, i.Description = "stopped", pausedStep, wish.Reason
	default:
		i.State, i.Step, i.Description = "replaying", "REPLAYING", "replaying, {}"
	}
}

func (p *pretenders) pools() []report.Pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return []report.Pool{{
		Name: "rbd", Peer: report.Peer{UUID: "u", Site: "site-a", Reachable: true}, Health: report.HealthOK, Images: slices.Clone(p.images),
	}}
}

// squad is what a command needs of them.
func (p *pretenders) squad() squad {
	return squad{
		snapshot: func() ([]report.Pool, error) { return p.pools(), nil },
		send:     p.send,
		flush: func(all []site.Command, _ time.Time) []bool {
			done := make([]bool, len(all))
			for i, m := range all {
				done[i] = m.Image != p.slow
			}
			return done
		},
	}
}

func (p *pretenders) send(m site.Command) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent = append(p.sent, m)
	if wish, ok := pool.Wish(m.Message); ok {
		wish.Pool, wish.Namespace, wish.GlobalID = m.Pool, m.Namespace, m.Image
		p.halts = p.halts.With(wish)
	}
	for n := range p.images {
		i := &p.images[n]
		if m.Image != "" && m.Image != i.GlobalID || m.Pool != "" && m.Pool != i.Pool || i.GlobalID == p.slow {
			continue
		}
		_, restart := m.Message.(messages.RestartImage)
		if was := *i; restart || p.halts.Of(i.Pool, "", i.GlobalID).Reason != "" != (was.Stopped || was.Paused) || was.Paused {
			p.obey(i)
		}
	}
}
