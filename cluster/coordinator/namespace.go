package coordinator

import (
	"context"
	"time"

	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/cluster/imagemap"
	"github.com/rbdwarden/rbdwarden/rados"
)

// namespace is this member's part in one namespace of the pool.
type namespace struct {
	c    *Coordinator
	name string
	io   rados.IOContext
	log  zerolog.Logger

	view    *imagemap.View
	portion portion
	looked  time.Time // when the map was last read
	told    *Share    // newest that was told
	trouble string    // said last

	reign   *reign         // while we lead
	written imagemap.Epoch // newest epoch that we wrote as the leader
}

func newNamespace(c *Coordinator, name string, io rados.IOContext) *namespace {
	return &namespace{
		c: c, name: name, io: io, log: c.opt.Log.With().Str("namespace", name).Logger(), view: imagemap.NewView(io),
		portion: portion{self: c.group.ID(), handover: handover},
	}
}

func (n *namespace) close() { n.io.Close() }

// look decides as the leader, then finds out what is ours.
func (n *namespace) look(ctx context.Context, in inputs) {
	n.govern(ctx, in)
	now := time.Now()
	if n.stale(in, now) {
		n.read(ctx, now)
	}
	if !n.portion.known || in.view.Frozen {
		return
	}
	n.c.hold(n.name, len(n.portion.mine))
	cleared, waiting := n.portion.clear(in.view, n.name, now)
	if n.told == nil || n.told.Epoch != uint64(n.portion.epoch) || cleared {
		share := n.portion.share()
		n.told = &share
		n.log.Debug().Uint64("epoch", share.Epoch).Int("images", len(share.Run)).Int("waiting", waiting).Msg("share of the images")
		n.c.told.Assigned(n.name, share)
	}
}

// stale tells whether the map has to be read.
func (n *namespace) stale(in inputs, now time.Time) bool {
	if in.hurry || !n.portion.known || now.Sub(n.looked) >= reread {
		return true
	}
	for _, m := range in.view.Members {
		if newest := epochOf(m, extraMap+n.name); newest > n.portion.epoch {
			return true
		}
	}
	return n.written > n.portion.epoch
}

// read brings our view of the map up to date.
func (n *namespace) read(ctx context.Context, now time.Time) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	n.looked = now
	changed, err := n.view.Refresh(ctx)
	if err != nil {
		n.say(err, "cannot read the image map")
		return
	}
	n.say(nil, "")
	m := n.view.Map()
	for _, id := range changed {
		if err := m.Damaged[id]; err != nil {
			n.log.Error().Err(err).Str("image", id).Msg("a damaged entry of the image map: nobody runs the image")
		}
	}
	n.portion.refresh(m, changed, now)
}

// say logs trouble once.
func (n *namespace) say(err error, text string) {
	if err == nil {
		n.trouble = ""
		return
	}
	if s := text + ": " + err.Error(); s != n.trouble {
		n.trouble = s
		n.log.Warn().Err(err).Msg(text)
	}
}

// announceMap tells the members that the map has changed.
func (n *namespace) announceMap(epoch imagemap.Epoch) {
	n.written = epoch
	n.c.mu.Lock()
	n.c.announce = true
	group := n.c.group
	n.c.mu.Unlock()
	go notify(group, saysMap)
}
