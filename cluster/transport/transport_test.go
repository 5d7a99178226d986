package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/rs/zerolog"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const fsid = "11111111-2222-3333-4444-555555555555"

// member is a worker with an actor that answers "ID: TEXT" to each text.
type member struct {
	*Transport
	t      *testing.T
	id     string
	system *actor.ActorSystem
	log    *safeBuffer
	stop   func()

	mu     sync.Mutex
	heard  []string
	prints []string // fingerprints, as published
	ready  chan struct{}
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// text is the message type that may pass.
func text(s string) *wrapperspb.StringValue { return wrapperspb.String(s) }

// start starts a member; change may change its options.
func start(t *testing.T, id string, change ...func(*Options)) *member {
	t.Helper()
	m := &member{t: t, id: id, log: &safeBuffer{}, ready: make(chan struct{})}
	m.system = actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(slog.DiscardHandler) }))
	opt := Options{
		System: m.system, Self: id, FSID: fsid, Bind: Bind{Local: netip.MustParseAddr("127.0.0.1")},
		Messages: []Message{text("")}, Exposed: []string{"echo"}, Log: zerolog.New(m.log),
		Published: func(_ string, prints []string) {
			m.mu.Lock()
			defer m.mu.Unlock()
			if m.prints == nil {
				close(m.ready)
			}
			m.prints = prints
		},
	}
	for _, f := range change {
		f(&opt)
	}
	var err error
	if m.Transport, err = New(opt); err != nil {
		t.Fatal(err)
	}
	props := actor.PropsFromFunc(func(c actor.Context) {
		switch msg := c.Message().(type) {
		case *wrapperspb.StringValue:
			m.mu.Lock()
			m.heard = append(m.heard, msg.GetValue())
			m.mu.Unlock()
			if c.Sender() != nil {
				c.Respond(text(id + ": " + msg.GetValue()))
			}
		case *actor.Stopped:
			m.mu.Lock()
			m.heard = append(m.heard, "STOPPED")
			m.mu.Unlock()
		}
	})
	for _, name := range []string{"echo", "secret"} {
		if _, err := m.system.Root.SpawnNamed(props, name); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		m.Run(ctx)
	}()
	m.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			t.Errorf("%s does not end", id)
		}
	})
	t.Cleanup(m.stop)
	select {
	case <-m.ready:
	case <-time.After(10 * time.Second):
		t.Fatalf("%s does not listen: %s", id, m.log)
	}
	return m
}

// peer is the member as its record says.
func (m *member) peer() Peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Peer{ID: m.id, Host: "host-" + m.id, Address: m.Address(), Fingerprints: m.prints}
}

// meet has members know each other.
func meet(members ...*member) {
	var peers []Peer
	for _, m := range members {
		peers = append(peers, m.peer())
	}
	for _, m := range members {
		m.Admit(peers)
	}
}

// ask sends a text to another member's actor, and gives the answer.
func (m *member) ask(to *member, s string) (string, error) {
	return m.askActor(to.id, "echo", s)
}

func (m *member) askActor(id, name, s string) (string, error) {
	r, err := m.system.Root.RequestFuture(actor.NewPID(id, name), text(s), 2*time.Second).Result()
	if err != nil {
		return "", err
	}
	return r.(*wrapperspb.StringValue).GetValue(), nil
}

func (m *member) has() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.heard, ",")
}

// await waits for a condition.
func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("in vain: ", what)
		}
	}
}

// works fails unless two members understand each other, in both directions.
func works(t *testing.T, a, b *member) {
	t.Helper()
	for _, p := range [][2]*member{{a, b}, {b, a}} {
		var answer string
		var err error
		await(t, fmt.Sprintf("%s asks %s", p[0].id, p[1].id), func() bool {
			answer, err = p[0].ask(p[1], "hello")
			return err == nil
		})
		if answer != p[1].id+": hello" {
			t.Errorf("%s answers %q", p[1].id, answer)
		}
	}
}

func TestThreeMembersSpeak(t *testing.T) {
	t.Parallel()
	a, b, c := start(t, "1"), start(t, "2"), start(t, "3")
	meet(a, b, c)
	works(t, a, b)
	works(t, b, c)
	works(t, a, c)
	if answer, err := a.ask(a, "self"); err != nil || answer != "1: self" {
		t.Errorf("its own actor answers %q, %v", answer, err)
	}
	for range 3000 { // more than a queue has, fewer at a time
		if _, err := a.ask(b, "x"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOrderIsKept(t *testing.T) {
	t.Parallel()
	a, b := start(t, "1"), start(t, "2")
	meet(a, b)
	works(t, a, b)
	var want []string
	for i := range 500 {
		s := fmt.Sprint(i)
		want = append(want, s)
		a.system.Root.Send(actor.NewPID("2", "echo"), text(s))
	}
	await(t, "all arrive, in order", func() bool { return strings.HasSuffix(b.has(), strings.Join(want, ",")) })
}

// TestADeadMemberBlocksNobody: a member that is gone, and one that takes connections but
// says nothing, cost their callers little, and other members nothing.
func TestADeadMemberBlocksNobody(t *testing.T) {
	t.Parallel()
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	a, b := start(t, "1"), start(t, "2")
	meet(a, b)
	works(t, a, b)
	peer := Peer{ID: "3", Address: mute.Addr().String(), Fingerprints: []string{"3"}}
	gone := Peer{ID: "4", Address: "127.0.0.1:1", Fingerprints: []string{"4"}}
	a.Admit([]Peer{b.peer(), peer, gone})
	began := time.Now()
	for i := range 3 * queueSize {
		a.system.Root.Send(actor.NewPID("3", "echo"), text(fmt.Sprint(i)))
		a.system.Root.Send(actor.NewPID("4", "echo"), text(fmt.Sprint(i)))
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("sending took %v", took)
	}
	if _, err := a.askActor("4", "echo", "x"); !errors.Is(err, actor.ErrDeadLetter) {
		t.Errorf("a member that is gone: %v", err)
	}
	works(t, a, b)
	began = time.Now()
	a.stop()
	if took := time.Since(began); took > time.Second {
		t.Errorf("the end took %v", took)
	}
}

// TestARestartedMemberIsAnother: it is reached under its new id, and the old one is gone.
func TestARestartedMemberIsAnother(t *testing.T) {
	t.Parallel()
	a, b := start(t, "1"), start(t, "2")
	meet(a, b)
	works(t, a, b)
	b.stop()
	again := start(t, "3", func(o *Options) { o.Bind.Configured = b.Address() })
	meet(a, again)
	works(t, a, again)
	if _, err := a.askActor("2", "echo", "x"); !errors.Is(err, actor.ErrDeadLetter) {
		t.Errorf("the member that is gone: %v", err)
	}
}

// TestAMemberThatIsOneNoMoreIsCutOff: its connection ends with its record.
func TestAMemberThatIsOneNoMoreIsCutOff(t *testing.T) {
	t.Parallel()
	a, b, c := start(t, "1"), start(t, "2"), start(t, "3")
	meet(a, b, c)
	works(t, a, b)
	works(t, b, c)
	a.Admit([]Peer{c.peer()}) // b was fenced; it does not know yet
	heard := a.has()
	if answer, err := b.ask(a, "late"); err == nil {
		t.Errorf("it is answered %q", answer)
	}
	if now := a.has(); now != heard {
		t.Errorf("it is heard: %s", now)
	}
	works(t, a, c)
}

func TestTheCertificateIsRenewed(t *testing.T) {
	t.Parallel()
	now := time.Now()
	c, err := newChain(fsid, "1", now)
	if err != nil {
		t.Fatal(err)
	}
	first := c.fingerprints()
	for _, step := range []struct {
		after   time.Duration
		changed bool
		prints  int
		old     bool // the first one is in use
	}{
		{time.Hour, false, 1, true},
		{lifetime/2 + time.Minute, true, 2, true}, // published, not used
		{lifetime/2 + time.Minute + settle/2, false, 2, true},
		{lifetime/2 + time.Minute + settle, true, 1, false},
		{lifetime/2 + time.Hour, false, 1, false},
	} {
		changed, err := c.renew(now.Add(step.after))
		if err != nil || changed != step.changed {
			t.Errorf("after %v: changed %v, %v", step.after, changed, err)
		}
		prints := c.fingerprints()
		if len(prints) != step.prints || (prints[0] == first[0]) != step.old || Fingerprint(c.use().Certificate[0]) != prints[0] {
			t.Errorf("after %v: %d fingerprints, old %v", step.after, len(prints), prints[0] == first[0])
		}
	}
}

// A host whose clock was wrong by weeks for a while has a certificate again that others take, as soon as its clock is right.
func TestACertificateOfAnotherTimeIsReplaced(t *testing.T) {
	t.Parallel()
	now := time.Now()
	c, err := newChain(fsid, "1", now)
	if err != nil {
		t.Fatal(err)
	}
	valid := func(at time.Duration) bool {
		leaf := c.use().Leaf
		return now.Add(at).After(leaf.NotBefore) && now.Add(at).Before(leaf.NotAfter)
	}
	const weeks = 20 * 24 * time.Hour
	for n, step := range []struct {
		clock   time.Duration
		changed bool
		prints  int
		valid   bool // the one in use is, by clocks that are right
	}{
		{weeks, true, 2, true},
		{0, true, 1, true}, // the next one was of another time
		{weeks, true, 2, true},
		{weeks + settle, true, 1, false},
		{2 * settle, true, 2, false},
		{3 * settle, true, 1, true},
		{-weeks, true, 2, true},
		{-weeks + settle, true, 1, false},
		{5 * settle, true, 2, false},
		{6 * settle, true, 1, true},
		{7 * settle, false, 1, true},
	} {
		changed, err := c.renew(now.Add(step.clock))
		if err != nil || changed != step.changed {
			t.Errorf("step %d: changed %v, %v", n, changed, err)
		}
		if prints := c.fingerprints(); len(prints) != step.prints || valid(0) != step.valid {
			t.Errorf("step %d: %d fingerprints, valid %v", n, len(prints), valid(0))
		}
	}
}

func TestWhereToListen(t *testing.T) {
	t.Parallel()
	local := netip.MustParseAddr("10.0.0.7")
	for _, c := range []struct {
		bind              Bind
		listen, advertise string
	}{
		{Bind{Local: local}, "10.0.0.7:0", "10.0.0.7"},
		{Bind{Local: local, Index: 3}, "10.0.0.7:0", "10.0.0.7"},
		{Bind{Local: local, Configured: "127.0.0.1"}, "127.0.0.1:0", "127.0.0.1"},
		{Bind{Local: local, Configured: "127.0.0.1:7000", Index: 2}, "127.0.0.1:7002", "127.0.0.1"},
		{Bind{Local: local, Configured: "0.0.0.0:7000"}, "0.0.0.0:7000", "10.0.0.7"},
		{Bind{Local: local, Configured: "::1"}, "[::1]:0", "::1"},
		{Bind{Local: local, Configured: "[::]:7000", Index: 1}, "[::]:7001", "10.0.0.7"},
		{Bind{Configured: "warden.example"}, "warden.example:0", "warden.example"},
		{Bind{}, "", ""},
		{Bind{Local: netip.IPv4Unspecified()}, "", ""},
		{Bind{Local: local, Configured: "h:99999"}, "", ""},
		{Bind{Local: local, Configured: "h:p"}, "", ""},
	} {
		listen, advertise, err := c.bind.resolve()
		if listen != c.listen || advertise != c.advertise || (err != nil) != (c.listen == "") {
			t.Errorf("%+v: %q, %q, %v", c.bind, listen, advertise, err)
		}
	}
}

func TestTheLogIsBounded(t *testing.T) {
	t.Parallel()
	var q quiet
	now := time.Now()
	lines := 0
	for i := range 100_000 {
		if _, ok := q.pass(fmt.Sprint("kind ", i%1000), now.Add(time.Duration(i)*100*time.Microsecond)); ok {
			lines++
		}
	}
	if lines > maxKinds+2 || len(q.kinds) > maxKinds+1 {
		t.Errorf("%d lines, %d kinds", lines, len(q.kinds))
	}
	if more, ok := q.pass("kind 0", now.Add(time.Hour)); !ok || more == 0 {
		t.Errorf("an hour later: %v, %d suppressed", ok, more)
	}
}
