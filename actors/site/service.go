package site

import (
	"context"
	"strconv"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/rbdwarden/rbdwarden/actors/pool"
	"github.com/rbdwarden/rbdwarden/mirror"
	"github.com/rbdwarden/rbdwarden/report"
)

// publish collects the pools' snapshots, then writes the service map.
func (s *Site) publish(c actor.Context) {
	if s.publishing || s.ending {
		return
	}
	s.publishing = true
	s.publishTimer.Stop()
	s.collect(c, nil)
}

// collected are fresh snapshots, for whoever asked: nil is publish.
type collected struct {
	pools map[childKey]report.Pool
	asked *actor.PID
}

// collect asks every pool for its snapshot, outside the mailbox.
func (s *Site) collect(c actor.Context, asked *actor.PID) {
	system := c.ActorSystem()
	futures := map[childKey]*actor.Future{}
	for _, p := range s.pools {
		for key, pid := range p.children {
			if pid != nil {
				futures[key] = system.Root.RequestFuture(pid, pool.Snapshot{}, snapshotPatience)
			}
		}
	}
	s.async(c, func(context.Context) any {
		m := collected{pools: map[childKey]report.Pool{}, asked: asked}
		for key, f := range futures {
			if r, err := f.Result(); err == nil {
				if r, ok := r.(report.Pool); ok {
					m.pools[key] = r
				}
			}
		}
		return m
	})
}

// snapshotPatience is how long a pool gets to describe itself; after that its last
// description stands.
const snapshotPatience = time.Second

func (s *Site) collected(c actor.Context, m collected) {
	for key, r := range m.pools {
		s.shown[key] = r
	}
	if m.asked != nil {
		c.Send(m.asked, s.snapshot())
		return
	}
	pools := s.servicePools()
	s.async(c, func(ctx context.Context) any { return published{s.opt.Service(ctx, pools)} })
}

func (s *Site) answerSnapshot(c actor.Context) {
	if c.Sender() != nil {
		s.collect(c, c.Sender())
	}
}

// publishIn sets the one timer of publish, earlier or later than it was.
func (s *Site) publishIn(c actor.Context, d time.Duration) {
	if s.publishTimer != nil {
		s.publishTimer.Stop()
	}
	self, system := c.Self(), c.ActorSystem()
	s.publishTimer = time.AfterFunc(d, func() { system.Root.Send(self, publishDue{}) })
}

func (s *Site) published(c actor.Context, err error) {
	s.publishing = false
	if err != nil {
		s.opt.Log.Warn().Err(err).Msg("cannot update the service map")
	}
	s.publishIn(c, s.opt.Publish)
}

// servicePools is what the service map says of each pool.
func (s *Site) servicePools() map[int64]mirror.ServicePool {
	out := map[int64]mirror.ServicePool{}
	for id, p := range s.pools {
		sp := mirror.ServicePool{
			Name: p.found.Pool.Pool.Name, InstanceID: s.opt.InstanceID, Leader: p.leading,
			Namespaces: map[string]mirror.ImageCounts{},
		}
		sp.Callouts = append(sp.Callouts, p.calls...)
		for key := range p.children {
			r, ok := s.shown[key]
			if !ok {
				continue
			}
			for _, c := range r.Callouts {
				sp.Callouts = append(sp.Callouts, mirror.Callout{Level: mirror.CalloutLevel(c.Level), Text: c.Text})
			}
			counts := count(r)
			if key.namespace == "" {
				sp.ImageCounts = counts
			} else {
				sp.Namespaces[key.namespace] = counts
			}
		}
		out[id] = sp
	}
	return out
}

// count counts a pool's images as the service map wants them.
func count(r report.Pool) mirror.ImageCounts {
	var assigned, failed, warned, local, remote uint64
	for _, i := range r.Images {
		assigned++
		switch i.State {
		case "error":
			failed++
		case "unknown", "syncing", "starting_replay":
			warned++
		}
		if i.LocalID != "" {
			local++
		}
		if i.RemoteID != "" {
			remote++
		}
	}
	return mirror.ImageCounts{Assigned: &assigned, Error: &failed, Warning: &warned, Local: &local, Remote: &remote}
}

// snapshot is the report of all pools: those that are mirrored, with what their
// actors said last, and the others with the reason.
func (s *Site) snapshot() []report.Pool {
	var out []report.Pool
	for _, id := range s.ids() {
		p := s.pools[id]
		if len(p.children) == 0 {
			r := report.Pool{
				Name: p.found.Pool.Pool.Name, ID: id, Health: report.HealthWarning, Waits: p.trouble, Leader: p.leading,
				InstanceID: strconv.FormatUint(s.opt.InstanceID, 10),
			}
			all := s.halts.Of(r.Name, "", "")
			r.Stopped = all.Reason != "" && !all.Pause
			if peer, _, ok := p.peer(); ok {
				r.Peer = report.Peer{UUID: peer.UUID, Site: peer.SiteName, Client: peer.ClientName}
			}
			r.LeaderID = p.leader
			if p.standsBy != "" && !p.works {
				r.Waits = "stands by: " + p.standsBy
			}
			out = append(out, r)
			continue
		}
		for key := range p.children {
			if r, ok := s.shown[key]; ok {
				r.Leader, r.LeaderID = p.leading, p.leader
				r.InstanceID = strconv.FormatUint(s.opt.InstanceID, 10)
				out = append(out, r)
			}
		}
	}
	return out
}
