package leader

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/ceph/class"
	cls "github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/ceph/notify"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/mem"
)

const (
	heartbeat    = 5 * time.Second
	watchTimeout = 30 * time.Second
)

// contest is a pool in memory for which candidates compete, in fake time.
type contest struct {
	t     *testing.T
	store *mem.Store

	look  time.Duration // Options.Look
	late  time.Duration // of the answers
	mu    sync.Mutex
	known map[string]bool // descriptions of processes that are known to be dead
	cut   map[*mem.Client]bool
	all   []*entrant
}

// entrant is one candidate: a process with a client of its own.
type entrant struct {
	name    string
	client  *mem.Client
	io      rados.IOContext
	release chan struct{}
	stop    context.CancelFunc
	ended   chan struct{}

	leads   bool  // guarded by contest.mu, as are all below
	term    *Term // the last
	follows []string
	fenced  error
	reigns  int
	lost    []error
}

func newContest(t *testing.T) *contest {
	x := &contest{t: t, known: map[string]bool{}, cut: map[*mem.Client]bool{}}
	x.store = mem.New(mem.Options{WatchTimeout: watchTimeout, Faults: mem.FaultFunc(func(op mem.Op) mem.Verdict {
		x.mu.Lock()
		defer x.mu.Unlock()
		if x.cut[op.Client] {
			return mem.Verdict{Delay: time.Second, Fail: syscall.ETIMEDOUT}
		}
		return mem.Verdict{Delay: time.Millisecond, Late: x.late}
	})})
	x.store.AddPool("rbd")
	return x
}

// enter starts a candidate.
func (x *contest) enter(name string) *entrant {
	x.t.Helper()
	client := x.store.Connect()
	io, err := client.Open(context.Background(), "rbd", "")
	if err != nil {
		x.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	e := &entrant{name: name, client: client, io: io, release: make(chan struct{}, 1), stop: stop, ended: make(chan struct{})}
	x.mu.Lock()
	x.all = append(x.all, e)
	x.mu.Unlock()
	with := func(f func()) {
		x.mu.Lock()
		defer x.mu.Unlock()
		f()
	}
	go func() {
		defer close(e.ended)
		Run(ctx, io, Options{
			Heartbeat: heartbeat, Look: x.look, Description: name,
			KnownDead: func(d string) bool {
				x.mu.Lock()
				defer x.mu.Unlock()
				return x.known[d]
			},
			Leads: func(term *Term) {
				with(func() {
					x.assertAlone(e)
					e.term = term
					e.leads, e.reigns = true, e.reigns+1
				})
			},
			Lost: func(reason error) {
				with(func() {
					if !e.leads {
						x.t.Errorf("%s lost what it did not have", e.name)
					}
					e.leads, e.lost = false, append(e.lost, reason)
				})
			},
			Follows: func(leader string, _ bool) { with(func() { e.follows = append(e.follows, leader) }) },
			Fenced:  func(err error) { with(func() { e.fenced = err }) },
			Release: e.release,
			Log:     zerolog.Nop(),
		})
	}()
	return e
}

// assertAlone is invariant 7: whoever else believes that it leads can write no more.
func (x *contest) assertAlone(winner *entrant) {
	refused := x.store.Blocklisted()
	for _, e := range x.all {
		if e == winner || !e.leads || e.client.Crashed() || slices.Contains(refused, e.client.Addresses()) {
			continue
		}
		x.t.Errorf("%s leads while %s does, who was not fenced", winner.name, e.name)
	}
}

func (x *contest) leader() *entrant {
	x.mu.Lock()
	defer x.mu.Unlock()
	var found *entrant
	for _, e := range x.all {
		if e.leads && !e.client.Crashed() {
			if found != nil {
				x.t.Errorf("%s and %s lead", found.name, e.name)
			}
			found = e
		}
	}
	return found
}

// after lets fake time pass and asks who leads then.
func (x *contest) after(d time.Duration) *entrant {
	time.Sleep(d)
	synctest.Wait()
	return x.leader()
}

func (x *contest) assertLeader(after time.Duration, want *entrant) {
	x.t.Helper()
	if got := x.after(after); got != want {
		x.t.Fatalf("after %v leads %v, want %v", after, nameOf(got), nameOf(want))
	}
}

func nameOf(e *entrant) string {
	if e == nil {
		return "nobody"
	}
	return e.name
}

// end ends all candidates.
func (x *contest) end() {
	for _, e := range x.all {
		e.stop()
		<-e.ended
	}
	time.Sleep(2 * watchTimeout) // timers of crashed clients
}

// run runs a story in fake time.
func run(t *testing.T, story func(x *contest)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		x := newContest(t)
		story(x)
		x.end()
	})
}

// Candidates that start at the same moment: one leads, and the others know who.
func TestOneOfManyLeads(t *testing.T) {
	run(t, func(x *contest) {
		for n := range 5 {
			x.enter(fmt.Sprint(n))
		}
		boss := x.after(heartbeat)
		if boss == nil {
			t.Fatal("nobody leads")
		}
		x.assertLeader(10*heartbeat, boss)
		for _, e := range x.all {
			if e != boss && !slices.Equal(e.follows, []string{cls.ClientName(boss.client.InstanceID()).String()}) {
				t.Errorf("%s follows %v", e.name, e.follows)
			}
		}
	})
}

// A leader that ends in good order leaves no lock, and the next leads at once.
func TestACleanEndHandsOver(t *testing.T) {
	run(t, func(x *contest) {
		a := x.enter("a")
		x.assertLeader(time.Second, a)
		b := x.enter("b")
		x.assertLeader(time.Second, a)
		a.stop()
		<-a.ended
		x.assertLeader(100*time.Millisecond, b)
		if got := x.store.Blocklisted(); len(got) > 0 {
			t.Errorf("fenced in a clean end: %v", got)
		}
		b.stop()
		<-b.ended
		seen, err := look(context.Background(), b.io)
		if err != nil || seen.owner != nil {
			t.Errorf("the lock is left with %v, %v", seen.owner, err)
		}
	})
}

// A candidate that is stopped while it takes the lock leaves none either, whether the answer has come or not.
func TestAStopWhileTheLockIsTaken(t *testing.T) {
	run(t, func(x *contest) {
		x.late = time.Millisecond
		reigned := 0
		for after := time.Duration(0); after < 20*time.Millisecond; after += 500 * time.Microsecond {
			e := x.enter(after.String())
			time.Sleep(after + 100*time.Microsecond)
			e.stop()
			<-e.ended
			reigned += e.reigns
			seen, err := look(context.Background(), e.io)
			if err != nil && !errors.Is(err, syscall.ENOENT) || seen.owner != nil {
				t.Fatalf("stopped after %v, it leaves the lock with %v (%v)", after, seen.owner, err)
			}
		}
		if reigned == 0 || reigned == len(x.all) {
			t.Errorf("%d of %d were stopped after they had begun to lead", reigned, len(x.all))
		}
	})
}

// A dead leader is fenced before its lock is broken; on its own host at once, elsewhere
// when its watch has ended.
func TestADeadLeaderIsFenced(t *testing.T) {
	for _, c := range []struct {
		name     string
		sameHost bool
		within   time.Duration
	}{
		{"known to be dead", true, time.Second},
		{"on another host", false, heartbeat + 3*time.Second}, // after the assertion before its watch has ended
	} {
		t.Run(c.name, func(t *testing.T) {
			run(t, func(x *contest) {
				a := x.enter("a")
				x.assertLeader(time.Second, a)
				b := x.enter("b")
				time.Sleep(time.Second)
				x.mu.Lock()
				x.known["a"] = c.sameHost
				x.mu.Unlock()
				a.client.Crash()
				if !c.sameHost {
					x.assertLeader(watchTimeout-heartbeat, nil)
				}
				x.assertLeader(c.within, b)
				if !slices.Contains(x.store.Blocklisted(), a.client.Addresses()) {
					t.Error("the dead leader was not fenced")
				}
			})
		})
	}
}

// A leader that renews its watch has a moment without: nobody takes it for dead.
func TestALostWatchIsNoDeath(t *testing.T) {
	run(t, func(x *contest) {
		a, b := x.enter("a"), x.enter("b")
		for range 20 {
			boss := x.after(heartbeat)
			if boss == nil {
				t.Fatal("nobody leads")
			}
			boss.client.LoseWatches()
			time.Sleep(3 * time.Second)
		}
		if x.after(heartbeat) == nil {
			t.Error("nobody leads")
		}
		if got := x.store.Blocklisted(); len(got) > 0 {
			t.Errorf("fenced: %v", got)
		}
		if a.reigns+b.reigns < 20 {
			t.Errorf("a leader without a watch went on leading: %d reigns", a.reigns+b.reigns)
		}
	})
}

// holder holds the lock without competing, as a daemon that renews its watch does.
type holder struct {
	io     rados.IOContext
	cookie string
}

func (x *contest) hold() *holder {
	x.t.Helper()
	io, err := x.store.Connect().Open(context.Background(), "rbd", "")
	if err != nil {
		x.t.Fatal(err)
	}
	h := &holder{io: io, cookie: cls.RBDCookie(io.Cluster().InstanceID())}
	var create rados.WriteOp
	create.Create(false)
	if err := io.Write(context.Background(), Object, &create); err != nil {
		x.t.Fatal(err)
	}
	seen, err := look(context.Background(), io)
	if err != nil {
		x.t.Fatal(err)
	}
	held, err := (&candidate{io: io}).take(context.Background(), h.cookie, seen.epoch)
	if err != nil || !held {
		x.t.Fatal(held, err)
	}
	return h
}

func (h *holder) letGo(t *testing.T) {
	t.Helper()
	if err := rados.Tell(context.Background(), h.io, Object, cls.Unlock(cls.RBDName, h.cookie)); err != nil {
		t.Fatal(err)
	}
}

// rbd-mirror's leader takes whoever answers its heartbeats for one of its own kind, and gives images to it. So nobody does,
// neither who was there before it nor who came later; and when it has gone, one of ours leads.
func TestRBDMirrorsLeaderIsNotAnswered(t *testing.T) {
	run(t, func(x *contest) {
		a := x.enter("a")
		x.assertLeader(time.Second, a)
		b := x.enter("b")
		x.assertLeader(5*time.Second, a)
		theirs, err := x.store.Connect().Open(context.Background(), "rbd", "")
		if err != nil {
			t.Fatal(err)
		}
		watch, err := theirs.Watch(context.Background(), Object, 0, &deaf{})
		if err != nil {
			t.Fatal(err)
		}
		cookie := cls.RBDCookie(watch.Cookie())
		seen, err := look(context.Background(), theirs)
		if err != nil {
			t.Fatal(err)
		}
		for _, call := range []class.Call{cls.Break(cls.RBDName, seen.owner.LockerID), lockCall(cookie, "")} {
			if err := rados.Tell(context.Background(), theirs, Object, call); err != nil {
				t.Fatal(err)
			}
		}
		c := x.enter("c")
		for beat := range 5 {
			reply, err := theirs.Notify(context.Background(), Object, notify.LeaderMessage{Op: notify.LeaderHeartbeat}.Encode(), time.Second)
			if err != nil {
				t.Fatal(err)
			}
			for _, ack := range reply.Acks {
				t.Errorf("client %d has answered", ack.Watcher.ClientID)
			}
			if beat > 0 && len(reply.Missed) > 1 { // itself
				t.Errorf("%d are awaited in vain", len(reply.Missed)-1)
			}
			time.Sleep(heartbeat)
		}
		if len(c.follows) == 0 || len(b.follows) < 2 {
			t.Errorf("they follow %v and %v", b.follows, c.follows)
		}
		if got := x.leader(); got != nil {
			t.Errorf("%s leads beside it", got.name)
		}
		if err := rados.Tell(context.Background(), theirs, Object, cls.Unlock(cls.RBDName, cookie)); err != nil {
			t.Fatal(err)
		}
		if err := watch.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		if x.after(heartbeat) == nil {
			t.Error("nobody leads")
		}
	})
}

// An owner is dead only if the same one is seen without a watch for the whole grace.
func TestOnlyTheSameOwnersSilenceCounts(t *testing.T) {
	run(t, func(x *contest) {
		first := x.hold()
		a := x.enter("a")
		time.Sleep(defaultDeadGrace - 100*time.Millisecond)
		first.letGo(t)
		second := x.hold() // before a looks again
		time.Sleep(defaultDeadGrace - 100*time.Millisecond)
		w, err := second.io.Watch(context.Background(), Object, 0, &deaf{})
		if err != nil {
			t.Fatal(err)
		}
		x.assertLeader(4*heartbeat, nil)
		if got := x.store.Blocklisted(); len(got) > 0 {
			t.Errorf("fenced: %v", got)
		}
		if err := w.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		x.assertLeader(2*heartbeat, a) // now it is dead indeed
	})
}

// A lock that was broken by somebody else: the leader notices by its next heartbeat.
func TestABrokenLockEndsTheReign(t *testing.T) {
	run(t, func(x *contest) {
		a := x.enter("a")
		x.assertLeader(time.Second, a)
		stranger, err := x.store.Connect().Open(context.Background(), "rbd", "")
		if err != nil {
			t.Fatal(err)
		}
		seen, err := look(context.Background(), stranger)
		if err != nil || !seen.alive {
			t.Fatal(seen, err)
		}
		if err := rados.Tell(context.Background(), stranger, Object, cls.Break(cls.RBDName, seen.owner.LockerID)); err != nil {
			t.Fatal(err)
		}
		x.assertLeader(heartbeat+2*time.Second, a) // again
		if a.reigns != 2 || len(a.lost) != 1 {
			t.Errorf("%d reigns, lost %v", a.reigns, a.lost)
		}
	})
}

// A client that was fenced says so and ends: it could never lead again.
func TestAFencedCandidateEnds(t *testing.T) {
	run(t, func(x *contest) {
		a, b := x.enter("a"), x.enter("b")
		boss := x.after(time.Second)
		other := a
		if boss == a {
			other = b
		}
		for _, e := range []*entrant{boss, other} {
			if err := x.store.Connect().Blocklist(context.Background(), e.client.Addresses(), 0); err != nil {
				t.Fatal(err)
			}
			select {
			case <-e.ended:
			case <-time.After(2 * heartbeat):
				t.Fatalf("%s goes on although it was fenced", e.name)
			}
			x.mu.Lock()
			if rados.Classify(e.fenced) != rados.Fenced || e.leads {
				t.Errorf("%s: fenced %v, leads %v", e.name, e.fenced, e.leads)
			}
			x.mu.Unlock()
		}
	})
}

// The pool vanishes under the leader: it stops leading, and does not spin.
func TestAPoolThatVanishesHasNoLeader(t *testing.T) {
	run(t, func(x *contest) {
		a := x.enter("a")
		x.assertLeader(time.Second, a)
		x.store.RemovePool("rbd")
		x.assertLeader(2*heartbeat, nil)
		x.mu.Lock()
		if len(a.lost) != 1 || a.fenced != nil {
			t.Errorf("lost %v, fenced %v", a.lost, a.fenced)
		}
		x.mu.Unlock()
	})
}

// The object of the lock vanishes (mirroring was disabled and enabled): somebody leads
// again, one at a time.
func TestTheObjectVanishes(t *testing.T) {
	run(t, func(x *contest) {
		x.enter("a")
		x.enter("b")
		x.after(time.Second)
		io, err := x.store.Connect().Open(context.Background(), "rbd", "")
		if err != nil {
			t.Fatal(err)
		}
		var op rados.WriteOp
		op.Remove()
		if err := io.Write(context.Background(), Object, &op); err != nil {
			t.Fatal(err)
		}
		if x.after(3*heartbeat) == nil {
			t.Error("nobody leads")
		}
	})
}

// An unreachable cluster takes nobody's lead: nobody else can have it either, as long as
// the watch holds. One that was fenced meanwhile notices when it is back.
func TestAPartitionedLeader(t *testing.T) {
	run(t, func(x *contest) {
		a := x.enter("a")
		x.assertLeader(time.Second, a)
		x.mu.Lock()
		x.cut[a.client] = true
		x.mu.Unlock()
		x.assertLeader(3*heartbeat, a)
		b := x.enter("b")
		a.client.LoseWatches() // the OSDs have not heard of it
		x.after(3 * heartbeat)
		x.assertLeader(2*heartbeat, b)
		x.mu.Lock()
		delete(x.cut, a.client)
		x.mu.Unlock()
		x.assertLeader(2*heartbeat, b)
		select {
		case <-a.ended:
		default:
			t.Error("the fenced one goes on")
		}
	})
}

// Asked to release, the leader lets the other go first; alone, it comes back.
func TestReleaseLetsAnotherLead(t *testing.T) {
	run(t, func(x *contest) {
		a := x.enter("a")
		x.assertLeader(time.Second, a)
		a.release <- struct{}{}
		x.assertLeader(2*heartbeat, a)
		if a.reigns != 2 {
			t.Errorf("%d reigns", a.reigns)
		}
		b := x.enter("b")
		time.Sleep(time.Second)
		a.release <- struct{}{}
		x.assertLeader(3*heartbeat, b)
		x.mu.Lock()
		n := len(a.follows)
		if n == 0 {
			t.Error("a does not say that it follows b")
		}
		x.mu.Unlock()
		b.release <- struct{}{}
		x.assertLeader(2*heartbeat, a)
		a.release <- struct{}{}
		x.assertLeader(3*heartbeat, b)
		x.mu.Lock()
		if len(a.follows) <= n {
			t.Error("a, which led in between, does not say that it follows b again")
		}
		x.mu.Unlock()
	})
}

// deaf answers no notification, as a process that hangs.
type deaf struct {
	mu    sync.Mutex
	heard []time.Time
}

func (d *deaf) Notified(n rados.Notification) {
	m, err := notify.DecodeLeader(n.Payload)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil && m.Op == notify.LeaderHeartbeat {
		d.heard = append(d.heard, time.Now())
	}
}
func (d *deaf) WatchLost(error) {}

// Heartbeats go out at their interval although a watcher never answers: a follower of
// rbd-mirror's kind would take a leader for dead whose heartbeats come late.
func TestHeartbeatsDoNotWaitForTheDeaf(t *testing.T) {
	run(t, func(x *contest) {
		a := x.enter("a")
		x.assertLeader(time.Second, a)
		io, err := x.store.Connect().Open(context.Background(), "rbd", "")
		if err != nil {
			t.Fatal(err)
		}
		var d deaf
		w, err := io.Watch(context.Background(), Object, 0, &d)
		if err != nil {
			t.Fatal(err)
		}
		x.assertLeader(10*heartbeat, a)
		d.mu.Lock()
		defer d.mu.Unlock()
		if len(d.heard) < 9 {
			t.Errorf("%d heartbeats in ten intervals", len(d.heard))
		}
		for i := 1; i < len(d.heard); i++ {
			if gap := d.heard[i].Sub(d.heard[i-1]); gap > heartbeat+time.Second {
				t.Errorf("a gap of %v", gap)
			}
		}
		if err := w.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// TestElectionsAtRandom lets candidates crash, lose their watches, be cut off, be asked to
// release, end and start. There are never two leaders that can write; and when all is
// quiet, one leads.
func TestElectionsAtRandom(t *testing.T) {
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
			}()
			x, rng := newContest(t), rand.New(rand.NewPCG(seed, 7))
			x.look = 2 * time.Second // fewer steps
			for n := range 3 {
				x.enter(fmt.Sprint(n))
			}
			for step := range 60 {
				time.Sleep(time.Duration(rng.Int64N(int64(2 * heartbeat))))
				x.leader()
				e := x.all[rng.IntN(len(x.all))]
				switch rng.IntN(7) {
				case 0:
					e.client.Crash()
					x.mu.Lock()
					x.known[e.name] = rng.IntN(2) == 0
					x.mu.Unlock()
				case 1:
					e.client.LoseWatches()
				case 2:
					x.mu.Lock()
					x.cut[e.client] = !x.cut[e.client]
					x.mu.Unlock()
				case 3:
					select {
					case e.release <- struct{}{}:
					default:
					}
				case 4:
					e.stop()
				default:
					if len(x.all) < 12 {
						x.enter(fmt.Sprintf("%d-%d", seed, step))
					}
				}
			}
			x.mu.Lock()
			clear(x.cut)
			x.mu.Unlock()
			x.enter("last")
			if x.after(2*watchTimeout+10*heartbeat) == nil {
				t.Error("nobody leads in the end")
			}
			x.end()
		})
	}
}
