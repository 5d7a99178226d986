package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/rbdwarden/rbdwarden/cluster/imagemap"
	"github.com/rbdwarden/rbdwarden/cluster/membership"
	"github.com/rbdwarden/rbdwarden/cluster/placement"
)

// ErrNotLeading refuses a move that only the pool's leader can decide.
var ErrNotLeading = errors.New("this member does not lead the pool")

// move is an operator's wish, for the leader.
type move struct {
	namespace, image string
	to               []string // ids of members, one of which gets it; none: the pin ends
	done             chan moved
}

type moved struct {
	from, to membership.Member
	err      error
}

// Move gives an image to one of some members, to whoever of them has the fewest images, and
// pins it there: as long as that member's seat is held and takes images, balance moves others
// instead. When it has to go elsewhere (its member died, left or drains), the pin ends. None of
// the members: the pin ends now. It answers who had the image and who has it by the map.
//
// Only the leader can; the entry is written as all others are, with its lock asserted.
func (c *Coordinator) Move(ctx context.Context, namespace, globalID string, to []string) (from, is membership.Member, err error) {
	m := &move{namespace: namespace, image: globalID, to: to, done: make(chan moved, 1)}
	c.set(func() { c.moves = append(c.moves, m) })
	select {
	case r := <-m.done:
		return r.from, r.to, r.err
	case <-ctx.Done():
		return from, is, ctx.Err()
	}
}

// refuseMoves answers those that nobody here can decide.
func (c *Coordinator) refuseMoves(in inputs) {
	for _, m := range in.moves {
		switch {
		case in.term == nil:
			m.done <- moved{err: ErrNotLeading}
		case c.namespaces[m.namespace] == nil:
			m.done <- moved{err: fmt.Errorf("the namespace %q of the pool is not mirrored: %w", m.namespace, syscall.ENOENT)}
		}
	}
}

// moveSome does the moves of this namespace that were asked for.
func (n *namespace) moveSome(ctx context.Context, in inputs, feared map[string]bool) error {
	for _, m := range in.moves {
		if m.namespace != n.name {
			continue
		}
		r, e := n.place(in.view, feared, m)
		if r.err == nil {
			if r.err = n.reign.now.Write(ctx, map[string]imagemap.Entry{m.image: e}, nil); r.err == nil {
				n.announceMap(n.reign.now.Map().Epoch)
				n.log.Info().Str("image", m.image).Str("from", r.from.ID).Str("to", r.to.ID).Str("pin", e.Pin).Msg("moved by command")
			} else {
				n.reign.now = nil // begin anew, if we still lead
			}
		}
		m.done <- r
		if n.reign.now == nil {
			return r.err
		}
	}
	return nil
}

// place decides a move: the entry to write, or why not.
func (n *namespace) place(v membership.View, feared map[string]bool, m *move) (r moved, e imagemap.Entry) {
	entries := n.reign.now.Map()
	e, known := entries.Images[m.image]
	owner, lives := v.Find(e.Owner)
	if r.from = owner; !lives {
		r.from = membership.Member{ID: e.Owner, Seat: e.Seat}
	}
	switch {
	case n.c.opt.Placement.Policy == placement.None:
		r.err = fmt.Errorf("rbd_mirror_image_policy_type is none: the leader runs all images, and none can be moved: %w", syscall.ENOTSUP)
	case !known:
		r.err = fmt.Errorf("the image map does not have the image: %w", syscall.ENOENT)
	case feared[e.Owner]:
		r.err = fmt.Errorf("the image's member %s is being fenced: %w", e.Owner, syscall.EAGAIN)
	}
	if r.err != nil {
		return r, e
	}
	if len(m.to) == 0 {
		e.Pin, r.to = "", r.from
		return r, e
	}
	to, err := n.best(v, entries, m.to, e.Owner)
	if err != nil {
		r.err = err
		return r, e
	}
	if r.to = to; e.Owner != to.ID {
		e.Mapped = n.c.opt.Now()
	}
	e.Owner, e.Seat, e.Pin = to.ID, to.Seat, to.Seat
	return r, e
}

// best is who of some members gets an image: its owner if that is one of them, and else who
// has the fewest.
func (n *namespace) best(v membership.View, m imagemap.Map, ids []string, owner string) (membership.Member, error) {
	count := map[string]int{}
	for _, e := range m.Images {
		count[e.Owner]++
	}
	var able []membership.Member
	draining, cut := "", ""
	for _, id := range ids {
		switch member, lives := v.Find(id); {
		case lives && member.Draining:
			draining = id
		case lives && n.c.cut[id]:
			cut = id
		case lives:
			able = append(able, member)
		}
	}
	switch {
	case len(able) > 0:
	case draining != "":
		return membership.Member{}, fmt.Errorf("it drains, and takes no image: %w", syscall.EBUSY)
	case cut != "":
		return membership.Member{}, fmt.Errorf("it does not reach the primary's cluster, and takes no image: %w", syscall.EBUSY)
	default:
		return membership.Member{}, fmt.Errorf("the pool has no living member %s: %w", strings.Join(ids, " or "), syscall.ENOENT)
	}
	return slices.MinFunc(able, func(a, b membership.Member) int {
		switch {
		case a.ID == owner:
			return -1
		case b.ID == owner:
			return 1
		}
		return count[a.ID] - count[b.ID]
	}), nil
}

// refuse answers the moves of this namespace that were not answered yet.
func (n *namespace) refuse(in inputs, err error) {
	for _, m := range in.moves {
		if m.namespace == n.name {
			select {
			case m.done <- moved{err: err}:
			default:
			}
		}
	}
}
