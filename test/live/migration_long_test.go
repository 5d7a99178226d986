//go:build live && long

package live

import (
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/test/harness"
)

// TestASiteChangesItsDaemons: two of upstream's daemons are replaced by ours one at a time, and ours by upstream's, under a
// write load. Nothing is synced anew, nothing written by two, nothing done twice, and who stands by beside the other kind's leader
// is given nothing to run.
func TestASiteChangesItsDaemons(t *testing.T) {
	s := newTeam(t, harness.OwnPair(t), teamOptions{
		images: 10, size: 1 << 20, pause: 500 * time.Millisecond, path: harness.Upstream, flags: shares, names: []string{"ant", "bee"},
		copied: true, // while upstream's daemon copies an image, compare-and-writes spoil the copy
	})
	var first []marks
	for _, g := range s.load.Guests {
		first = append(first, marksOf(t, g.Image))
	}
	for _, to := range []struct {
		path  string
		flags []string
	}{{harness.Ours(t), nil}, {harness.Upstream, shares}} {
		for _, m := range s.members {
			took := m.daemon.Stop(t, time.Minute)
			m.path, m.flags = to.path, to.flags
			s.start(m)
			stopped := time.Now()
			p := s.settle()
			s.Logf("%s on %s instead, whose daemon took %.1f s to end; after %.1f s: %v", m.path, m.host.Name, took.Seconds(), time.Since(stopped).Seconds(), p)
		}
		for n, g := range s.load.Guests {
			if got := marksOf(t, g.Image); got != first[n] {
				t.Errorf("%s was synced anew: %+v, before %+v", g.Name, got, first[n])
			}
		}
	}
	s.finish()
}
