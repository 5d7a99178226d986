package site

import (
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/rbdwarden/rbdwarden/test/sim/seed"
)

// outcome is how a run ended.
type outcome struct {
	print   seed.Print
	took    time.Duration
	virtual time.Duration // how long it was in its own time
	settled time.Duration // how long it took to come to rest, in that time
	counts  counts
	err     error // nil: all invariants held
}

// counts are what happened in a run.
type counts struct{ workers, writes, owners, fenced, decisions int }

// simulate does the run of a seed. The trace is written to verbose unless that is nil.
func simulate(t *testing.T, seed uint64, verbose io.Writer) (out outcome) {
	t.Helper()
	cryptotest.SetGlobalRandom(t, seed)
	set := draw(rand.New(rand.NewPCG(seed, 1)))
	start := time.Now()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, seed, set, verbose)
		begin := time.Now()
		s.trace.Add("%+v", set)
		out.settled, out.err = s.story()
		out.virtual = time.Since(begin)
		s.clear()
		if v := s.oracle.violation(); v != "" {
			out.err = errors.New(v)
		}
		s.trace.Add("the end after %v: %v", out.virtual, out.err)
		out.print = s.trace.Print()
		o := s.oracle
		out.counts = counts{int(s.lives), o.writes, int(o.sessions), o.fencings, o.lands}
	})
	out.took = time.Since(start)
	return out
}

func (s *site) story() (settled time.Duration, err error) {
	s.begin()
	s.trouble()
	s.calms()
	if settled, err = s.settles(); err != nil || s.oracle.violation() != "" {
		return settled, err
	}
	return settled, s.ends()
}

// clear ends what still runs when a run has failed, and waits for what is still under way.
func (s *site) clear() {
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	for _, w := range s.alive() {
		w.kill(0)
	}
	for _, w := range s.workers {
		<-w.ended
	}
	s.pending.Wait()
	time.Sleep(2 * time.Minute) // answers that nobody waits for any more are still on their way
}
