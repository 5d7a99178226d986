//go:build live && long

package live

import (
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/test/harness"
)

// clients are the names under which the cluster knows a member.
func (p places) clients(m *member) (names []string) {
	for name, owner := range p.member {
		if owner == m {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (m *member) pause() { m.daemon.Signal(syscall.SIGSTOP, false) }
func (m *member) goOn()  { m.daemon.Signal(syscall.SIGCONT, false) }

// settleOn waits until a member that was started has images, too.
func (s *team) settleOn(m *member) {
	s.Helper()
	harness.Eventually(s, 4*time.Minute, func() string {
		if p, why := s.look(); why != "" {
			return why
		} else if len(p.share(m)) == 0 {
			return m.host.Name + " runs nothing"
		}
		return ""
	})
}

// returned waits until a member that others took for dead is back: its workers' processes have ended, and the cluster
// knows it under other names. Then all must agree again.
func (s *team) returned(what string, m *member, before []string, workers map[int]int) (p places) {
	s.Helper()
	began := time.Now()
	harness.Eventually(s, recovery, func() string {
		for index, pid := range workers {
			if harness.Running(pid) {
				return fmt.Sprintf("worker %d of %s, process %d, lives on", index, m.host.Name, pid)
			}
		}
		return ""
	})
	s.Logf("%s: its workers ended %.1f s after it went on", what, time.Since(began).Seconds())
	harness.Eventually(s, recovery, func() string {
		p, why := s.look()
		now := p.clients(m)
		switch {
		case why != "":
			return why
		case len(now) < len(workers):
			return fmt.Sprintf("%s is known as %v", m.host.Name, now)
		}
		return ""
	})
	s.Logf("%s: it was back %.1f s after it went on", what, time.Since(began).Seconds())
	return s.settle()
}

// fewMoves fails the test for images that went here and there: those of the victim may have gone away and come back, the
// others have moved once to make it even.
func (s *team) fewMoves(what string, before places, victim *member, since time.Time) {
	s.Helper()
	total := 0
	for n, owners := range s.witness.Owners(s, s.load) {
		most := 1
		if before.of(n) == victim {
			most = 2
		}
		moves := harness.Moves(owners, since)
		total += moves
		if moves > most {
			s.Errorf("%s: %s has moved %d times: %v", what, s.load.Guests[n].Spec(), moves, owners)
		}
	}
	s.Logf("%s: %d moves of %d images, of which %d were the victim's", what, total, len(s.load.Guests), len(before.share(victim)))
}
