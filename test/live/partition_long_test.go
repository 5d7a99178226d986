//go:build live && long

package live

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// TestPartitions: of three daemons on networks of their own, one is cut off from the others, from its local cluster, and
// from the remote one, one after the other; in the second case also the leader.
func TestPartitions(t *testing.T) {
	s := newTeam(t, harness.OwnPair(t), teamOptions{
		images: 18, size: 1 << 20, pause: 400 * time.Millisecond, path: harness.Ours(t), apart: true,
	})
	s.withoutPeers()
	s.withoutLocal("cut off from the local cluster", s.follower)
	s.withoutLocal("the leader cut off from the local cluster", func(p places) *member { return p.leader })
	s.withoutRemote()
	s.finish()
}

// withoutPeers: nothing stops and nothing moves. Who is asked says that the other one is not heard, and a command for
// its images is refused with the reason.
func (s *team) withoutPeers() {
	s.Helper()
	const what = "cut off from the other daemons"
	p := s.settle()
	victim := s.follower(p)
	guest := s.load.Guests[p.share(victim)[0]]
	var other *member
	for _, m := range s.members {
		if m != victim {
			other = m
		}
	}
	began := time.Now()
	victim.net.peers.Cut()
	state := func(asked, of *member) report.ClusterDaemon {
		for _, d := range psCluster(s.T, s.pair.Secondary, asked.daemon).Daemons {
			if d.PID == of.daemon.PID() {
				return d
			}
		}
		return report.ClusterDaemon{}
	}
	for range 3 {
		for _, pair := range [][2]*member{{other, victim}, {victim, other}} {
			if d := state(pair[0], pair[1]); d.State != report.DaemonSilent || d.Text == "" {
				s.Errorf("%s: %s says of %s: %s, %q", what, pair[0].host.Name, pair[1].host.Name, d.State, d.Text)
			} else {
				s.Logf("%s: %s says of %s: %s, %s", what, pair[0].host.Name, pair[1].host.Name, d.State, d.Text)
			}
		}
	}
	asked := time.Now()
	out, complaints, code := harness.Warden(s, s.pair.Secondary, "image", "flush", guest.Spec(), "--socket", other.daemon.ControlSocket(s.pair.Secondary))
	if code == 0 || !strings.Contains(out+complaints, victim.host.Name) {
		s.Errorf("%s: a command for its image: exit code %d, %q, %q", what, code, out, complaints)
	} else if took := time.Since(asked); took > 20*time.Second {
		s.Errorf("%s: a command for its image waits for all of its time, %v, though nobody hears it", what, took)
	} else {
		s.Logf("%s: a command for its image is refused after %.1f s: %s", what, time.Since(asked).Seconds(), strings.TrimSpace(out+complaints))
	}
	now := time.Now()
	for n, g := range s.load.Guests {
		if pause := s.commits.Pause(n, began, now); pause > still {
			s.Errorf("%s: %s stood still for %v", what, g.Spec(), pause)
		}
	}
	for n, owners := range s.witness.Owners(s, s.load) {
		if moves := harness.Moves(owners, began); moves > 0 {
			s.Errorf("%s: %s has moved: %v", what, s.load.Guests[n].Spec(), owners)
		}
	}
	victim.net.peers.Mend()
	s.settle()
	if _, complaints, code := harness.Warden(s, s.pair.Secondary, "image", "flush", guest.Spec(), "--socket", other.daemon.ControlSocket(s.pair.Secondary)); code != 0 {
		s.Errorf("%s, and mended: a command for its image: exit code %d, %q", what, code, complaints)
	}
}

// withoutLocal: others take its images within seconds. What it still sends arrives when the network is whole again, and
// changes nothing; it ends, and is back under another name.
func (s *team) withoutLocal(what string, choose func(places) *member) {
	s.Helper()
	const length = 20 * time.Second
	p := s.settle()
	victim := choose(p)
	before, workers := p.clients(victim), victim.daemon.Workers()
	began := time.Now()
	s.takeover(what, p, victim, time.Minute, func() time.Time {
		victim.net.local.Cut()
		return began
	})
	time.Sleep(time.Until(began.Add(length)))
	victim.net.local.Mend()
	s.returned(what, victim, before, workers)
	s.fewMoves(what, p, victim, began)
}

// withoutRemote: the images of who does not reach the primary's cluster wait, with the reason in their status, until
// it is certain that others do reach it; then they go to those. When the cut is mended it gets images again.
func (s *team) withoutRemote() {
	s.Helper()
	const what = "cut off from the remote cluster"
	const length = 4 * time.Minute
	p := s.settle()
	victim := s.follower(p)
	began := time.Now()
	victim.net.remote.Cut()
	shown := ""
	harness.Eventually(s, 75*time.Second, func() string {
		for _, i := range s.pool.PoolStatusOn(s, s.pair.Secondary).Images {
			for _, n := range p.share(victim) {
				if i.Name == s.load.Guests[n].Name && i.State != "up+replaying" {
					shown = fmt.Sprintf("%s: %s, %s", i.Name, i.State, i.Description)
					return ""
				}
			}
		}
		return "all its images are up+replaying"
	})
	s.Logf("%s: after %.1f s the status shows %s", what, time.Since(began).Seconds(), shown)
	mine := p.share(victim)
	harness.Eventually(s, length, func() string {
		left := 0
		for n, owners := range s.witness.Owners(s, s.load) {
			if p.of(n) == victim && harness.Moves(owners, began) == 0 {
				left++
			}
		}
		if left > 0 {
			return fmt.Sprintf("%d of its %d images are still its own", left, len(mine))
		}
		return ""
	})
	given := time.Now()
	for _, n := range mine {
		s.commits.WaitResumed(s, n, given, 2*time.Minute)
	}
	took, others := time.Since(began), time.Duration(0)
	now := time.Now()
	for n, owners := range s.witness.Owners(s, s.load) {
		moves := harness.Moves(owners, began)
		if p.of(n) != victim {
			others = max(others, s.commits.Pause(n, began, now))
			if moves > 0 {
				s.Errorf("%s: %s has moved, though it was another's: %v", what, s.load.Guests[n].Spec(), owners)
			}
		} else if moves != 1 {
			s.Errorf("%s: %s has moved %d times: %v", what, s.load.Guests[n].Spec(), moves, owners)
		}
	}
	s.Logf("%s: its %d images replay elsewhere after %.1f s; those of the others stood still for %v at most", what, len(mine), took.Seconds(), others)
	if others > still {
		s.Errorf("%s: an image of another daemon stood still for %v", what, others)
	}
	victim.net.remote.Mend()
	mended := time.Now()
	harness.Eventually(s, 10*time.Minute, func() string {
		now := s.settle()
		if got := len(now.share(victim)); got < len(mine)-1 {
			return fmt.Sprintf("it has %d images, of %d before", got, len(mine))
		}
		return ""
	})
	s.Logf("%s: it has its part of the images again %.1f s after it was mended", what, time.Since(mended).Seconds())
}
