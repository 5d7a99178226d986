//go:build live

package live

import (
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// team is three daemons beside the secondary, each on a host of its own, that share the images of a write load. A witness
// reads off the secondary's OSD who writes to what.
type team struct {
	*testing.T
	pair    *lab.Pair
	pool    *harness.Pool
	load    *harness.Load
	commits *harness.Commits
	witness *harness.Witness
	members []*member
	pause   time.Duration
	began   time.Time
}

// slow is how long it may take until all agree before it is told why.
const slow = 15 * time.Second

// member is one of the daemons.
type member struct {
	host   *harness.Host
	path   string // of the program
	flags  []string
	daemon *harness.Daemon
	net    *network // nil: this machine's
	clock  string   // the file by which its wall clock is wrong; see buildWithWrongClock
}

// network is a member's own: what it reaches of the clusters and of the others goes over wires that can be cut.
type network struct {
	local, remote, peers *harness.Wire
}

type teamOptions struct {
	images int
	size   uint64
	pause  time.Duration
	path   string
	flags  []string
	apart  bool     // each daemon has a network of its own
	names  []string // of the hosts; nil: three
	idle   bool     // start no daemons
	clocks bool     // the daemons are buildWithWrongClock's
	plain  bool     // the load is, for upstream's daemons
	copied bool     // the load starts when all images are copied
}

var teamImages = flag.Int("team-images", 0, "images that several daemons share in each test, written to as much together (0: as many as the test takes)")

// newTeam starts the daemons, then the load, and waits until each image is replayed by one of them.
func newTeam(t *testing.T, pair *lab.Pair, o teamOptions) *team {
	t.Helper()
	if *teamImages > 0 {
		o.pause = o.pause * time.Duration(*teamImages) / time.Duration(o.images)
		o.images = *teamImages
	}
	s := &team{T: t, pair: pair, began: time.Now(), pause: o.pause, pool: harness.NewPool(t, pair, lab.PoolMode)}
	s.witness = harness.NewWitness(t, pair.Secondary)
	s.load = harness.NewLoad(t, s.pool, harness.LoadOptions{Images: o.images, Size: o.size, Plain: o.plain})
	s.assemble(o)
	for _, m := range s.members {
		if !o.idle {
			s.start(m)
		}
	}
	s.commits = harness.WatchCommits(t, s.load, 50*time.Millisecond)
	for _, g := range s.load.Guests {
		if o.copied {
			awaitCopy(t, g.Image)
		}
	}
	s.load.Start(t, s.pause)
	if !o.idle {
		s.settle()
	}
	return s
}

// awaitCopy waits until an image's first copy is complete.
func awaitCopy(t *testing.T, image *harness.Image) {
	t.Helper()
	harness.Eventually(t, harness.Patience, func() string {
		if meta, ok := image.PeerMeta(t); !ok || meta.State != journal.PeerReplaying || len(meta.SyncPoints) > 0 {
			return image.Spec() + " is not copied"
		}
		return ""
	})
}

// assemble makes the hosts.
func (s *team) assemble(o teamOptions) {
	s.Helper()
	const ports = 17000 // on networks where nobody else is
	if o.names == nil {
		o.names = []string{"ant", "bee", "cat"}
	}
	for n, name := range o.names {
		m := &member{path: o.path, flags: o.flags}
		if o.apart {
			m.host = harness.NewRemoteHost(s, name)
			m.net = &network{harness.NewWire(s), harness.NewWire(s), harness.NewWire(s)}
			m.flags = append(slices.Clone(o.flags), "--rbd-warden-bind-addr", fmt.Sprintf("127.0.0.1:%d", ports+10*n))
		} else {
			m.host = harness.NewHost(s, name)
		}
		if o.clocks {
			m.clock = filepath.Join(s.TempDir(), name)
			m.host.Environ = append(m.host.Environ, "WARDEN_TEST_WALL_CLOCK="+m.clock)
		}
		s.members = append(s.members, m)
	}
	if !o.apart {
		return
	}
	local, remote := harness.Addresses(s, s.pair.Secondary), harness.Addresses(s, s.pair.Primary)
	for _, m := range s.members {
		for _, a := range local {
			m.host.Reach(s, a, nil, m.net.local)
		}
		for _, a := range remote {
			m.host.Reach(s, a, nil, m.net.remote)
		}
		for n, other := range s.members {
			for worker := 0; other != m && worker < 2; worker++ { // as many as a daemon has by default
				m.host.Reach(s, fmt.Sprintf("127.0.0.1:%d", ports+10*n+worker), other.host, m.net.peers, other.net.peers)
			}
		}
	}
}

func (s *team) start(m *member) {
	s.Helper()
	pid := filepath.Join(s.pair.Secondary.RunDir(), m.host.Name+".pid")
	m.daemon = harness.StartDaemonAt(s, m.host, s.pair.Secondary, m.path, append([]string{"--pid-file", pid}, m.flags...)...)
}

// ours says whether all members that run are ours.
func (s *team) ours() bool {
	return !slices.ContainsFunc(s.running(), func(m *member) bool { return m.path == harness.Upstream })
}

// running are the members whose daemons have not ended.
func (s *team) running() (all []*member) {
	for _, m := range s.members {
		if m.daemon == nil {
			continue
		}
		select {
		case <-m.daemon.Exited():
		default:
			all = append(all, m)
		}
	}
	return all
}

// places is who runs what, in the eyes of the cluster: by guest the client that wrote last to its copy, and by client
// the member that it is part of.
type places struct {
	owners [][]harness.Tenure
	member map[string]*member
	leader *member
}

func (p places) of(guest int) *member {
	o := p.owners[guest]
	if len(o) == 0 {
		return nil
	}
	return p.member[o[len(o)-1].Client]
}

// share are the guests of a member.
func (p places) share(m *member) (guests []int) {
	for n := range p.owners {
		if p.of(n) == m {
			guests = append(guests, n)
		}
	}
	return guests
}

// look asks the OSD's log and "rbd mirror pool status", and says why they do not agree with each other on who runs what.
func (s *team) look() (p places, why string) {
	s.Helper()
	status := s.pool.PoolStatusOn(s, s.pair.Secondary)
	p = places{owners: s.witness.Owners(s, s.load), member: map[string]*member{}}
	for _, d := range status.Daemons {
		for _, m := range s.running() {
			if m.host.Name == d.Hostname {
				p.member["client."+d.InstanceID] = m
				if d.Leader {
					p.leader = m
				}
			}
		}
	}
	if p.leader == nil {
		return p, "nobody leads"
	}
	told := map[string]harness.Status{}
	for _, i := range status.Images {
		told[i.Name] = i.Status
	}
	for n, g := range s.load.Guests {
		m, i := p.of(n), told[g.Name]
		if m == nil {
			return p, fmt.Sprintf("nobody that lives writes to %s: %v", g.Spec(), p.owners[n])
		}
		if i.State != "up+replaying" || i.Service.Hostname != m.host.Name {
			return p, fmt.Sprintf("%s is written by %s; its status: %+v", g.Spec(), m.host.Name, i)
		}
	}
	return p, ""
}

// settle waits until everybody agrees on who runs what, and nothing has moved between two looks: the OSD, the pool's status,
// and of our daemons the admin sockets and ps --cluster of each.
func (s *team) settle() (p places) {
	s.Helper()
	last, waits := "", []string{}
	began := time.Now()
	harness.Eventually(s, harness.Patience+time.Duration(len(s.load.Guests))*4*time.Second, func() (why string) {
		defer func() {
			if why != "" {
				waits = append(waits, fmt.Sprintf("%.1f s: %.300s", time.Since(began).Seconds(), why))
			}
		}()
		if p, why = s.look(); why != "" {
			return why
		}
		if now := p.String(); now != last {
			last = now
			return "images move: " + now
		}
		if s.ours() {
			var daemons []*harness.Daemon
			for _, m := range s.running() {
				if m.daemon.ControlSocket(s.pair.Secondary) == "" {
					return m.host.Name + " is about to start"
				}
				daemons = append(daemons, m.daemon)
			}
			return disagree(s.T, s.pool, s.images(), daemons...)
		}
		return ""
	})
	s.Logf("all agree after %.1f s: %s", time.Since(began).Seconds(), last)
	if took := time.Since(began); took > slow && began.After(s.began.Add(slow)) {
		s.Logf("they did not before, for: %s", strings.Join(waits, "\n"))
	}
	return p
}

func (s *team) images() (all []*harness.Image) {
	for _, g := range s.load.Guests {
		all = append(all, g.Image)
	}
	return all
}

func (p places) String() string {
	count := map[string]int{}
	for n := range p.owners {
		if m := p.of(n); m != nil {
			count[m.host.Name]++
		}
	}
	var words []string
	for name, n := range count {
		words = append(words, fmt.Sprintf("%s %d", name, n))
	}
	slices.Sort(words)
	return strings.Join(words, ", ") + "; " + p.leader.host.Name + " leads"
}

// gaps are for how long images stood still, in order.
type gaps struct {
	written   []time.Duration // until another client had written to the copy, as the OSD saw it
	committed []time.Duration // until the commit position advanced
}

func median(d []time.Duration) time.Duration { return d[len(d)/2] }

func (g gaps) String() string {
	of := func(d []time.Duration) string {
		return fmt.Sprintf("%.1f s (median), %.1f s (worst)", median(d).Seconds(), d[len(d)-1].Seconds())
	}
	return fmt.Sprintf("%d images: first write by another daemon after %s; first commit after %s", len(g.written), of(g.written), of(g.committed))
}

// takeover does something to a member, from the moment that do answers, and waits until its images are replayed by others.
func (s *team) takeover(what string, p places, victim *member, within time.Duration, do func() time.Time) (g gaps) {
	s.Helper()
	hit := p.share(victim)
	if len(hit) == 0 {
		s.Fatalf("%s: %s runs no image", what, victim.host.Name)
	}
	since := do()
	for _, n := range hit {
		g.committed = append(g.committed, s.commits.WaitResumed(s, n, since, within))
	}
	harness.Eventually(s, within, func() string {
		g.written = nil
		owners := s.witness.Owners(s, s.load)
		for _, n := range hit {
			at, _, ok := harness.FirstElsewhere(owners[n], since)
			if !ok {
				return fmt.Sprintf("nobody else has written to %s: %v", s.load.Guests[n].Spec(), owners[n])
			}
			g.written = append(g.written, at.Sub(since))
		}
		return ""
	})
	slices.Sort(g.written)
	slices.Sort(g.committed)
	s.Logf("%s: %v", what, g)
	return g
}

// kill kills a member as kill -9 of all its processes does.
func (m *member) kill() time.Time {
	now := time.Now()
	m.daemon.Kill()
	return now
}

// follower is a member that has images and does not lead.
func (s *team) follower(p places) *member {
	s.Helper()
	for _, m := range s.running() {
		if m != p.leader && len(p.share(m)) > 0 {
			return m
		}
	}
	s.Fatalf("no follower has images: %v", p)
	return nil
}

// finish ends the load, waits until all is mirrored, and compares.
func (s *team) finish() {
	s.Helper()
	if !s.ours() {
		s.load.Hold()
		s.load.Flush()
	}
	s.load.Stop()
	s.commits.WaitCaughtUp(s, harness.Patience)
	s.load.AssertEqual(s)
	s.witness.Assert(s)
	if !s.Failed() {
		s.Logf("%d images are equal; no OSD saw two owners write to one", len(s.load.Guests))
	}
}
