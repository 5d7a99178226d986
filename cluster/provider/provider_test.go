package provider

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/cluster"
	"github.com/rs/zerolog"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/cluster/imagemap"
	"github.com/rbdwarden/rbdwarden/cluster/membership"
	"github.com/rbdwarden/rbdwarden/cluster/transport"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/mem"
)

// site is a pool in memory, whose members speak over TCP on loopback.
type site struct {
	t     *testing.T
	store *mem.Store

	mu  sync.Mutex
	cut map[*mem.Client]bool // who cannot reach the cluster
}

func newSite(t *testing.T) *site {
	s := &site{t: t, cut: map[*mem.Client]bool{}}
	s.store = mem.New(mem.Options{Faults: mem.FaultFunc(func(op mem.Op) mem.Verdict {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.cut[op.Client] {
			return mem.Verdict{Fail: syscall.ETIMEDOUT}
		}
		return mem.Verdict{}
	})})
	s.store.AddPool("rbd")
	return s
}

// worker is a member with an actor that answers with the member's id.
type worker struct {
	s      *site
	id     string
	client *mem.Client
	io     rados.IOContext
	system *actor.ActorSystem
	*Provider
	trans   *transport.Transport
	cluster *cluster.Cluster
	group   *membership.Group
	die     func() // without leaving
	leave   func()
}

const echo = "member"

func (s *site) start() *worker {
	s.t.Helper()
	client := s.store.Connect()
	io, err := client.Open(context.Background(), "rbd", "")
	if err != nil {
		s.t.Fatal(err)
	}
	w := &worker{s: s, client: client, io: io}
	w.system = actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(slog.DiscardHandler) }))
	w.group = membership.New(io, membership.Options{
		Self: membership.Member{Host: "h", Identity: "i"}, Log: zerolog.Nop(), Beat: 50 * time.Millisecond, TTL: 500 * time.Millisecond,
		Changed: func(v membership.View) { w.Changed(1, v) },
	})
	w.id = w.group.ID()
	w.trans, err = transport.New(transport.Options{
		System: w.system, Self: w.id, FSID: client.FSID(), Bind: transport.Bind{Local: netip.MustParseAddr("127.0.0.1")},
		Messages: []transport.Message{wrapperspb.String("")}, Exposed: []string{echo}, Log: zerolog.New(zerolog.NewTestWriter(s.t)),
		Published: func(address string, prints []string) {
			w.group.Update(func(m *membership.Member) { m.Address, m.Fingerprint = address, Fingerprints(prints) })
		},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	lookup := &Lookup{
		Owner: func(ctx context.Context, i Image) (string, error) {
			e, _, err := imagemap.ReadEntry(ctx, io, i.GlobalID)
			return e.Owner, err
		},
		Knows: w.trans.Knows, Actor: echo, Timeout: time.Second,
	}
	if w.Provider, w.cluster, err = Start(w.system, client.FSID(), w.id, lookup, w.trans.Admit); err != nil {
		s.t.Fatal(err)
	}
	if _, err := w.system.Root.SpawnNamed(actor.PropsFromFunc(func(c actor.Context) {
		if _, ok := c.Message().(*wrapperspb.StringValue); ok {
			c.Respond(wrapperspb.String(w.id))
		}
	}), echo); err != nil {
		s.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	network, hangUp := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { _ = w.group.Run(ctx) })
	all.Go(func() { w.trans.Run(network) })
	w.leave = sync.OnceFunc(func() {
		stop()
		hangUp()
		all.Wait()
	})
	w.die = func() {
		s.mu.Lock()
		s.cut[client] = true
		s.mu.Unlock()
		hangUp()
	}
	s.t.Cleanup(w.leave)
	return w
}

func (w *worker) ask(pid *actor.PID) string {
	if pid == nil {
		return "nobody"
	}
	r, err := w.system.Root.RequestFuture(pid, wrapperspb.String("who?"), time.Second).Result()
	if err != nil {
		return err.Error()
	}
	return r.(*wrapperspb.StringValue).GetValue()
}

// members are those of the library's list.
func (w *worker) members() string {
	var ids []string
	for _, m := range w.cluster.MemberList.Members().Members() {
		ids = append(ids, m.Id)
	}
	slices.Sort(ids)
	return strings.Join(ids, " ")
}

func ids(workers ...*worker) string {
	var all []string
	for _, w := range workers {
		all = append(all, w.id)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("in vain: ", what)
		}
	}
}

// locked reads the library's list between updates, for the library does not guard it.
func (w *worker) locked(f func() bool) func() bool {
	return func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return f()
	}
}

// give makes an owner of an image, as the pool's leader does.
func (w *worker) give(t *testing.T, globalID, owner string) {
	t.Helper()
	var op rados.WriteOp
	op.Exec(lock.Lock(lock.Request{Name: "rbd_lock", Type: lock.Exclusive, Cookie: "c", Flags: lock.MayRenew}))
	if err := w.io.Write(context.Background(), imagemap.Object, &op); err != nil {
		t.Fatal(err)
	}
	term, err := imagemap.Begin(context.Background(), w.io, lock.Assert("rbd_lock", lock.Exclusive, "c", ""))
	if err == nil {
		err = term.Write(context.Background(), map[string]imagemap.Entry{globalID: {Owner: owner, Mapped: time.Now()}}, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestGetFindsTheOwner: the actors of three members reach each other, and that of whom the
// map gives an image to, wherever they ask.
func TestGetFindsTheOwner(t *testing.T) {
	s := newSite(t)
	a, b, c := s.start(), s.start(), s.start()
	all := []*worker{a, b, c}
	for _, w := range all {
		await(t, "all are listed", w.locked(func() bool { return w.members() == ids(a, b, c) }))
		for _, to := range all {
			await(t, w.id+" reaches "+to.id, func() bool { return w.ask(actor.NewPID(to.id, echo)) == to.id })
		}
	}
	image := Image{PoolID: 1, GlobalID: "g"}.Identity()
	if pid := a.cluster.Get(image, KindImage); pid != nil {
		t.Errorf("nobody owns it, but %v", pid)
	}
	for _, owner := range []*worker{b, a, c} {
		a.give(t, "g", owner.id)
		for _, w := range all {
			if got := w.ask(w.cluster.Get(image, KindImage)); got != owner.id {
				t.Errorf("%s finds %s, it is %s's", w.id, got, owner.id)
			}
		}
	}
	c.leave()
	await(t, "who has left is not found", func() bool { return a.cluster.Get(image, KindImage) == nil })
	for _, bad := range []string{"", "g", "1/2", "x//g", "1//"} {
		if pid := a.cluster.Get(bad, KindImage); pid != nil {
			t.Errorf("%q: %v", bad, pid)
		}
	}
	if a.cluster.Get(image, "other") != nil {
		t.Error("another kind is found")
	}
}

// TestTheDeadAreCutOffAndTheListIsFrozen: a silent member is not admitted, but listed until
// it was fenced; who cannot read RADOS goes on with whom it knew.
func TestTheDeadAreCutOffAndTheListIsFrozen(t *testing.T) {
	s := newSite(t)
	a, b, c := s.start(), s.start(), s.start()
	for _, w := range []*worker{a, b, c} {
		await(t, "all are listed", w.locked(func() bool { return w.members() == ids(a, b, c) }))
	}
	await(t, "a reaches b", func() bool { return a.ask(actor.NewPID(b.id, echo)) == b.id })
	b.die()
	await(t, "b is not admitted", func() bool { return !a.trans.Knows(b.id) })
	if !a.locked(func() bool { return a.members() == ids(a, b, c) })() {
		t.Error("b is not listed any more, and was not fenced")
	}
	if err := a.group.Fence(context.Background(), b.id); err != nil {
		t.Fatal(err)
	}
	await(t, "b is not listed", a.locked(func() bool { return a.members() == ids(a, c) }))
	s.mu.Lock()
	s.cut[a.client], s.cut[c.client] = true, true
	s.mu.Unlock()
	await(t, "the views are frozen", func() bool { return a.group.View().Frozen && c.group.View().Frozen })
	await(t, "a reaches c still", func() bool { return a.ask(actor.NewPID(c.id, echo)) == c.id })
	if !a.locked(func() bool { return a.members() == ids(a, c) })() {
		t.Error("the list has shrunk: ", a.members())
	}
}

// TestWhoComesBackIsListedAgain: the library blocks for ever whoever has left its list.
func TestWhoComesBackIsListedAgain(t *testing.T) {
	t.Parallel()
	system := actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(slog.DiscardHandler) }))
	var admitted []transport.Peer
	p, c, err := Start(system, "x", "1", &Lookup{}, func(peers []transport.Peer) { admitted = peers })
	if err != nil {
		t.Fatal(err)
	}
	view := membership.View{Members: []membership.Member{{ID: "1"}, {ID: "2", Address: "127.0.0.1:7", Fingerprint: "f"}}}
	two := view
	two.Members = slices.Clone(view.Members)
	two.Members[1].Address, two.Members[1].Fingerprint = "", "g,f"
	for range 3 {
		p.Changed(1, view)
		p.Changed(2, two)
		if n := c.MemberList.Length(); n != 2 {
			t.Errorf("%d are listed", n)
		}
		if len(admitted) != 1 || admitted[0].Address != "127.0.0.1:7" || !slices.Equal(admitted[0].Fingerprints, []string{"f", "g"}) {
			t.Errorf("admitted: %+v", admitted)
		}
		p.Ended(1)
		if len(admitted) != 1 {
			t.Errorf("it is a member of the other pool still: %+v", admitted)
		}
		p.Ended(2)
		if n := c.MemberList.Length(); n != 1 || len(admitted) != 0 {
			t.Errorf("%d are listed, %d admitted", n, len(admitted))
		}
	}
	p.Changed(1, view)
	p.Changed(2, membership.View{Members: view.Members[:1], Dead: []membership.Dead{{Member: view.Members[1], Fenced: true}}})
	if len(admitted) != 0 {
		t.Errorf("whom one pool's leader has fenced is admitted: %+v", admitted)
	}
}
