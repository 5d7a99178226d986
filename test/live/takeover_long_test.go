//go:build live && long

package live

import (
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/test/harness"
)

// TestTakeoverOfAHundred is TestTakeover with a hundred images and as operators run daemons, ours and then upstream's: it
// prints both beside each other and beside the five seconds that ours are meant to need, and wants ours to be several times
// as quick. Upstream's are spared what they cannot stand: see harness.LoadOptions.Plain.
func TestTakeoverOfAHundred(t *testing.T) {
	const (
		target = 5 * time.Second
		times  = 3 // upstream's daemons take this many times as long, at least
	)
	faults := []struct {
		what   string
		victim func(*team, places) *member
	}{
		{"kill -9 of a follower", (*team).follower},
		{"kill -9 of the leader", func(_ *team, p places) *member { return p.leader }},
	}
	took := map[string]gaps{}
	for _, side := range []struct {
		name, path string
		flags      []string
	}{{"rbd-warden", harness.Ours(t), nil}, {"rbd-mirror", harness.Upstream, shares}} {
		for _, fault := range faults {
			t.Run(side.name+"/"+fault.what, func(t *testing.T) {
				s := newTeam(t, harness.OwnPair(t), teamOptions{
					images: 100, size: 1 << 20, pause: time.Second, path: side.path, flags: side.flags, plain: side.path == harness.Upstream,
				})
				for _, m := range s.members {
					s.settleOn(m)
				}
				p := s.settle()
				victim := fault.victim(s, p)
				took[side.name+fault.what] = s.takeover(fault.what, p, victim, 4*time.Minute, victim.kill)
				s.finish()
			})
		}
	}
	for _, fault := range faults {
		ours, any := took["rbd-warden"+fault.what]
		theirs, both := took["rbd-mirror"+fault.what]
		if !any || !both {
			continue // one side was asked for
		}
		t.Logf("%s:\n  rbd-warden: %v\n  rbd-mirror: %v", fault.what, ours, theirs)
		last := func(d []time.Duration) time.Duration { return d[len(d)-1] }
		if worst := last(ours.committed); worst > target {
			t.Logf("%s: %v is more than the %v that are meant", fault.what, worst, target)
		}
		if last(ours.written)*times > last(theirs.written) {
			t.Errorf("%s: the last image waited %v, with rbd-mirror %v: not %d times as long", fault.what, last(ours.written), last(theirs.written), times)
		}
	}
}

// shares makes upstream's leader give images to the other daemons, too: also those that it has had for less than five minutes,
// and soon.
var shares = []string{
	"--rbd_mirror_image_policy_type=simple", "--rbd_mirror_image_policy_migration_throttle=0", "--rbd_mirror_image_policy_rebalance_timeout=5",
}

// TestPausedDaemons: all processes of a daemon are stopped for half a minute, first one that follows, then the one that
// leads. Others go on with its images; when it goes on, it writes nothing any more, its worker ends and comes back under
// another name, and no image moves more than away and back.
func TestPausedDaemons(t *testing.T) {
	const silence = 30 * time.Second
	// Written so often that some write of the victim's is likely to be half done when it is stopped.
	s := newTeam(t, harness.OwnPair(t), teamOptions{images: 12, size: 1 << 20, pause: 60 * time.Millisecond, path: harness.Ours(t)})
	for _, c := range []struct {
		what   string
		choose func(places) *member
	}{
		{"SIGSTOP of a follower", s.follower},
		{"SIGSTOP of the leader", func(p places) *member { return p.leader }},
	} {
		p := s.settle()
		victim := c.choose(p)
		before, workers := p.clients(victim), victim.daemon.Workers()
		began := time.Now()
		s.takeover(c.what, p, victim, time.Minute, func() time.Time {
			victim.pause()
			return began
		})
		time.Sleep(time.Until(began.Add(silence)))
		victim.goOn()
		s.returned(c.what, victim, before, workers)
		s.fewMoves(c.what, p, victim, began)
	}
	s.finish()
}
