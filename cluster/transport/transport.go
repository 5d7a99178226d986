package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/remote"
	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"
)

// Options are what a transport is made of.
type Options struct {
	// System is the actor system whose actors are reached. It must not have spawned any yet.
	System *actor.ActorSystem
	// Self is this member's id, and so the address of its actors' PIDs; FSID the cluster's.
	Self, FSID string
	// Bind is where to listen.
	Bind Bind
	// Messages are of the types that may pass, besides actor.DeadLetterResponse to futures.
	Messages []Message
	// Exposed are the names of the actors that members may send to.
	Exposed []string
	// Published is called with the address and the fingerprints that other members have to
	// know, when they change: from one goroutine.
	Published func(address string, fingerprints []string)
	// Now is the clock that certificates are judged by; nil: the host's.
	Now func() time.Time
	Log zerolog.Logger
}

// Times and sizes. Those of messages hold for batches of them, too.
const (
	rebind        = 30 * time.Second // between attempts to listen
	lookAtChain   = 20 * time.Second // between looks whether the certificate is to be renewed
	handshakeTime = 5 * time.Second  // that a caller has for its handshake
	connectTime   = 2 * time.Second  // that a member has to take a call
	pingAfter     = 10 * time.Second // of silence on a connection
	pingTime      = 5 * time.Second  // that an answer to it may take
	idleTime      = time.Minute      // after which a connection is ended
	queueSize     = 1024             // messages for one member
	batchSize     = 64               // messages
	batchBytes    = 16 << 20
	maxMessage    = 48 << 20
	maxReceive    = 64 << 20
	maxStreams    = 8 // of one connection
)

// Transport is one member's end. Make it with New, then Run it.
type Transport struct {
	opt      Options
	types    map[string]bool
	exposed  map[string]bool
	chain    *chain
	trust    *trust
	door     *doorman
	quiet    quiet
	lines    zerolog.Logger
	addressM sync.Mutex
	address  string // where we listen, "" if we do not

	ctx  context.Context // of what endpoints do
	end  context.CancelFunc
	ends sync.WaitGroup // of endpoints

	mu        sync.Mutex
	closed    bool
	endpoints map[string]*endpoint // by member
}

// New gives a system its address and its way to other members. Until Run listens, and
// Admit says who the others are, nothing goes in or out.
func New(opt Options) (*Transport, error) {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	t := &Transport{
		opt: opt, trust: newTrust(opt.FSID, opt.Now), types: map[string]bool{}, exposed: map[string]bool{},
		endpoints: map[string]*endpoint{}, lines: opt.Log.With().Str("part", "transport").Logger(),
	}
	for _, m := range opt.Messages {
		t.types[string(proto.MessageName(m))] = true
	}
	for _, name := range opt.Exposed {
		t.exposed[name] = true
	}
	var err error
	if t.chain, err = newChain(opt.FSID, opt.Self, opt.Now()); err != nil {
		return nil, err
	}
	t.door = newDoorman(t)
	t.ctx, t.end = context.WithCancel(context.Background())
	opt.System.ProcessRegistry.Address = opt.Self
	opt.System.ProcessRegistry.RegisterAddressResolver(func(pid *actor.PID) (actor.Process, bool) {
		return abroad{t}, true
	})
	return t, nil
}

// Admit says who the other members are from now on. Whoever is not among them any more
// loses its connections.
func (t *Transport) Admit(peers []Peer) {
	fingerprints, ids := t.trust.set(slices.DeleteFunc(slices.Clone(peers), func(p Peer) bool { return p.ID == t.opt.Self }))
	t.door.turnOut(fingerprints)
	for _, id := range ids {
		t.dismiss(id)
	}
}

// Knows tells whether a member lives, as far as Admit said so, or is this one.
func (t *Transport) Knows(id string) bool {
	_, ok := t.trust.find(id)
	return ok || id == t.opt.Self
}

// Address is where this member listens; "" while it does not.
func (t *Transport) Address() string {
	t.addressM.Lock()
	defer t.addressM.Unlock()
	return t.address
}

// Run listens until ctx ends; then it ends all connections and returns at once. It goes on
// trying if it cannot listen: without that, this member calls others and gets no answers.
func (t *Transport) Run(ctx context.Context) {
	defer t.close()
	for {
		server, err := t.listen(ctx)
		if err == nil {
			t.serve(ctx, server)
			return
		}
		if ctx.Err() != nil {
			return
		}
		t.lines.Warn().Err(err).Dur("retry_in", rebind).Msg("cannot listen to other members; images are mirrored all the same")
		select {
		case <-ctx.Done():
			return
		case <-time.After(rebind):
		}
	}
}

// listen begins to serve.
func (t *Transport) listen(ctx context.Context) (*grpc.Server, error) {
	listen, advertise, err := t.opt.Bind.resolve()
	if err != nil {
		return nil, err
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", listen)
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("address of the listener: %w", err), l.Close())
	}
	server := grpc.NewServer(
		grpc.Creds(t.door), grpc.ConnectionTimeout(handshakeTime), grpc.MaxRecvMsgSize(maxReceive), grpc.MaxConcurrentStreams(maxStreams),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingAfter, Timeout: pingTime, MaxConnectionIdle: 5 * idleTime}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingAfter / 2, PermitWithoutStream: true}),
	)
	remote.RegisterRemotingServer(server, &service{t: t})
	address := net.JoinHostPort(advertise, port)
	t.addressM.Lock()
	t.address = address
	t.addressM.Unlock()
	go func() {
		if err := server.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.lines.Warn().Err(err).Msg("does not listen to other members any more")
		}
	}()
	t.lines.Info().Str("address", address).Str("fingerprint", t.chain.fingerprints()[0]).Msg("listens to other members")
	return server, nil
}

// serve publishes what others have to know, and renews the certificate.
func (t *Transport) serve(ctx context.Context, server *grpc.Server) {
	defer server.Stop()
	t.opt.Published(t.Address(), t.chain.fingerprints())
	tick := time.NewTicker(lookAtChain)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		changed, err := t.chain.renew(t.opt.Now())
		if err != nil {
			t.lines.Warn().Err(err).Msg("cannot renew the certificate")
		}
		if changed {
			t.opt.Published(t.Address(), t.chain.fingerprints())
		}
	}
}

// close ends all endpoints.
func (t *Transport) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.end()
	t.ends.Wait()
}

// say logs what strangers and members do wrong, at a bounded rate. kind is what is counted.
func (t *Transport) say(kind, text, who string, err error) {
	if more, ok := t.quiet.pass(kind, time.Now()); ok {
		line := t.lines.Warn().Err(err).Str("from", who)
		if more > 0 {
			line = line.Int("suppressed", more)
		}
		line.Msg(text)
	}
}

// isFuture tells whether a PID is that of a future: then what is sent to it answers a
// request of this process.
func isFuture(id string) bool { return strings.HasPrefix(id, "future$") }

// Message is what passes between members.
type Message = proto.Message
