package coordinator

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/cluster/imagemap"
	"github.com/rbdwarden/rbdwarden/cluster/leader"
	"github.com/rbdwarden/rbdwarden/cluster/membership"
	"github.com/rbdwarden/rbdwarden/cluster/placement"
)

// reign is what we know as the leader, in one term.
type reign struct {
	of    *leader.Term
	begun time.Time
	now   *imagemap.Term // nil until the map was read for it
	loads loads
}

// govern shares the namespace's images out, if we lead.
//
// Invariant 7: whatever is decided here is written with the lock asserted in the same operation.
// The dead are fenced before their images are given to others.
func (n *namespace) govern(ctx context.Context, in inputs) {
	if in.term == nil {
		n.reign, n.written = nil, 0
		return
	}
	l := in.lists[n.name]
	if in.view.Frozen || !l.listed {
		n.refuse(in, fmt.Errorf("the leader cannot decide yet: %w", syscall.EAGAIN))
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if n.reign == nil || n.reign.of != in.term {
		n.reign = &reign{of: in.term, begun: time.Now()}
	}
	if err := n.rule(ctx, in, l); err != nil && ctx.Err() == nil {
		n.say(err, "cannot share out the images")
		n.refuse(in, err)
	}
}

// rule brings the map in line with what is mirrored and with who lives.
func (n *namespace) rule(ctx context.Context, in inputs, l list) error {
	r := n.reign
	if r.now == nil {
		assert, err := r.of.Assert(ctx, n.name)
		if err != nil {
			return err
		}
		term, err := imagemap.Begin(ctx, n.io, assert)
		if err != nil {
			return err
		}
		r.now = term
		n.announceMap(term.Map().Epoch)
	}
	r.loads.take(in.loads, n.name, r.now.Map(), n.c.opt.Now())
	feared := n.fence(ctx, in.view)
	if err := n.moveSome(ctx, in, feared); err != nil {
		return err
	}
	set, remove := n.decide(in, l, feared)
	if len(set) == 0 && len(remove) == 0 {
		return nil
	}
	if err := r.now.Write(ctx, set, remove); err != nil {
		r.now = nil // begin anew, if we still lead
		return err
	}
	n.announceMap(r.now.Map().Epoch)
	return nil
}

// fence makes certain of deaths. Those are left of whom that could not be done.
func (n *namespace) fence(ctx context.Context, v membership.View) (feared map[string]bool) {
	feared = map[string]bool{}
	for _, d := range v.Dead {
		if d.Fenced {
			continue
		}
		if err := n.c.group.Fence(ctx, d.ID); err != nil {
			feared[d.ID] = true
			if !errors.Is(err, membership.ErrAlive) {
				n.say(err, "cannot fence a dead member")
			}
		}
	}
	return feared
}

// decide asks who is to run what. The images of those who may still be alive stay with them.
func (n *namespace) decide(in inputs, l list, feared map[string]bool) (set map[string]imagemap.Entry, remove []string) {
	now, m := n.c.opt.Now(), n.reign.now.Map()
	d := placement.Decide(placement.Input{
		Options: n.c.opt.Placement, Leader: n.c.group.ID(), Begun: now.Add(-time.Since(n.reign.begun)), Now: now,
		Members: candidates(in.view, n.c.cut, now), Images: n.images(l, m, n.reign.loads.complete(in.view, time.Now())),
	})
	set = map[string]imagemap.Entry{}
	reasons := map[placement.Reason]int{}
	for _, move := range d.Moves {
		if feared[move.From] {
			continue
		}
		e := m.Images[move.Image]
		e.Owner, e.Seat, e.Mapped, e.Moved = move.To, move.Seat, now, move.Moved
		if e.Pin != move.Seat {
			e.Pin = "" // it had to go elsewhere
		}
		set[move.Image] = e
		reasons[move.Reason]++
	}
	if l.complete {
		listed := make(map[string]bool, len(l.ids))
		for _, id := range l.ids {
			listed[id] = true
		}
		for id := range m.Images {
			if !listed[id] {
				remove = append(remove, id)
			}
		}
		for id := range m.Damaged {
			if !listed[id] {
				remove = append(remove, id)
			}
		}
	}
	if len(set)+len(remove) > 0 {
		e := n.log.Info().Int("members", len(in.view.Members)).Int("removed", len(remove))
		for reason, count := range reasons {
			e = e.Int(reason.String(), count)
		}
		e.Msg("shares out images")
	}
	return set, remove
}

// images are those to be placed: what is listed, and what the map has while the list is not
// complete. What is damaged in the map is not: nobody knows who runs it.
func (n *namespace) images(l list, m imagemap.Map, loaded bool) []placement.Image {
	images := make([]placement.Image, 0, len(l.ids))
	add := func(id string) {
		if _, damaged := m.Damaged[id]; damaged {
			return
		}
		e := m.Images[id]
		image := placement.Image{ID: id, Owner: e.Owner, Seat: e.Seat, Pin: e.Pin, Mapped: e.Mapped, Moved: e.Moved}
		if loaded {
			image.Load = n.reign.loads.images[id]
		}
		images = append(images, image)
	}
	listed := make(map[string]bool, len(l.ids))
	for _, id := range l.ids {
		listed[id] = true
		add(id)
	}
	if !l.complete {
		for id := range m.Images {
			if !listed[id] {
				add(id)
			}
		}
	}
	return images
}

// candidates are all members, the living and the dead, as of now by the clock of the map's times.
func candidates(v membership.View, cut map[string]bool, now time.Time) []placement.Member {
	all := make([]placement.Member, 0, len(v.Members)+len(v.Dead))
	add := func(m membership.Member, dead time.Time) {
		count, err := strconv.Atoi(m.Extra[extraWorkers])
		if err != nil {
			count = 0 // not known
		}
		all = append(all, placement.Member{
			ID: m.ID, Seat: m.Seat, Host: m.Host, Daemon: Daemon(m.Seat), Workers: count, Started: m.Started, Draining: m.Draining, Silent: m.Extra[extraRemote] == remoteSilent, Cut: cut[m.ID],
			DeadSince: dead,
		})
	}
	for _, m := range v.Members {
		add(m, time.Time{})
	}
	for _, d := range v.Dead {
		add(d.Member, now.Add(-time.Since(d.Since)))
	}
	return all
}

// Seat names the place of a worker: its host, its daemon's process, its index.
func Seat(host string, daemon, index int) string { return fmt.Sprintf("%s/%d/%d", host, daemon, index) }

// Daemon is a seat without its index: what all workers of a daemon have in common.
func Daemon(seat string) string {
	if i := strings.LastIndexByte(seat, '/'); i >= 0 {
		return seat[:i]
	}
	return seat
}
