package transport

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/remote"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"
)

// abroad is the process behind every PID of another member.
type abroad struct{ t *Transport }

// SendUserMessage implements actor.Process. It does not block.
func (p abroad) SendUserMessage(pid *actor.PID, message any) {
	_, m, sender := actor.UnwrapEnvelope(message)
	l := letter{target: pid, sender: sender}
	body, ok := m.(proto.Message)
	if !ok || !p.t.types[string(proto.MessageName(body))] && string(proto.MessageName(body)) != deadLetterType {
		p.t.dead(l, fmt.Errorf("a %T may not pass", m))
		return
	}
	l.message = body
	if err := p.t.post(l); err != nil {
		p.t.dead(l, err)
	}
}

// SendSystemMessage implements actor.Process: none leaves this process.
func (p abroad) SendSystemMessage(pid *actor.PID, message any) {
	p.t.say("system message", "a system message for another member's actor was not sent", pid.String(), fmt.Errorf("%T may not pass", message))
}

// Stop implements actor.Process.
func (p abroad) Stop(pid *actor.PID) { p.SendSystemMessage(pid, &actor.Stop{}) }

// endpoint takes messages to one member.
//
//	(nothing) ──message──▶ calling ──▶ connected ──broken──▶ resting ──message, in time──▶ calling
//	    ▲                     └── no answer ─────────────────▲   └─ a message before: dead letter
//	    └── nothing to send for idleTime; or not a member any more
type endpoint struct {
	t     *Transport
	id    string
	queue chan letter
	ctx   context.Context
	end   context.CancelFunc
	// trouble is guarded by the transport's lock.
	trouble error

	// Only run uses what follows.
	call     *call
	failures int       // in a row
	rests    time.Time // until then it is not called again
	last     error     // of the last call
}

// call is a connection to a member.
type call struct {
	conn   *grpc.ClientConn
	stream remote.Remoting_ReceiveClient
	end    context.CancelFunc
	broken chan struct{} // closed when the other side has ended it
}

// errFull: the member reads more slowly than is sent to it, or not at all.
var errFull = errors.New("too many messages wait for the member")

// post puts a message into the queue of its member.
func (t *Transport) post(l letter) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	id := l.target.GetAddress()
	e := t.endpoints[id]
	switch {
	case t.closed:
		return errors.New("the transport has ended")
	case e == nil:
		if _, ok := t.trust.find(id); !ok {
			return fmt.Errorf("there is no member %s", id)
		}
		e = &endpoint{t: t, id: id, queue: make(chan letter, queueSize)}
		e.ctx, e.end = context.WithCancel(t.ctx)
		t.endpoints[id] = e
		t.ends.Go(e.run)
	}
	select {
	case e.queue <- l:
		return nil
	default:
		return errFull
	}
}

// dismiss ends the endpoint of a member that is not one any more, or moved.
func (t *Transport) dismiss(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.endpoints[id]; e != nil {
		delete(t.endpoints, id)
		e.end()
	}
}

// retire ends an endpoint that has nothing to do; false if it has by now.
func (t *Transport) retire(e *endpoint) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(e.queue) > 0 {
		return false
	}
	if t.endpoints[e.id] == e {
		delete(t.endpoints, e.id)
	}
	return true
}

// Trouble is why the newest message that was not delivered to a living member was not; nil if
// the last one was.
func (t *Transport) Trouble(id string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.endpoints[id]; e != nil {
		return e.trouble
	}
	return nil
}

// dead answers for a message that does not arrive.
func (t *Transport) dead(l letter, err error) {
	t.say("undelivered "+l.target.GetAddress(), "a message for another member was not delivered", l.target.String(), err)
	if _, already := l.message.(*actor.DeadLetterResponse); l.sender != nil && !already && l.sender.GetAddress() == t.opt.Self {
		t.opt.System.Root.Send(l.sender, &actor.DeadLetterResponse{Target: l.target})
	}
}

// run works until the endpoint is ended or idle.
func (e *endpoint) run() {
	defer func() {
		e.end()
		e.hangUp()
		for {
			select {
			case l := <-e.queue:
				e.t.dead(l, errors.New("the member is gone"))
			default:
				return
			}
		}
	}()
	idle := time.NewTimer(idleTime)
	defer idle.Stop()
	for {
		var gone chan struct{}
		if e.call != nil {
			gone = e.call.broken
		}
		select {
		case <-e.ctx.Done():
			return
		case <-gone:
			e.hangUp()
		case first := <-e.queue:
			e.deliver(e.gather(first))
			idle.Reset(idleTime)
		case <-idle.C:
			if e.t.retire(e) {
				return
			}
			idle.Reset(idleTime)
		}
	}
}

// gather takes what else waits, up to a batch.
func (e *endpoint) gather(first letter) []letter {
	batch, size := []letter{first}, proto.Size(first.message)
	for len(batch) < batchSize && size < batchBytes {
		select {
		case l := <-e.queue:
			batch, size = append(batch, l), size+proto.Size(l.message)
		default:
			return batch
		}
	}
	return batch
}

// deliver sends a batch, and calls the member first if need be.
func (e *endpoint) deliver(batch []letter) {
	err := e.reach()
	if err == nil {
		if err = e.call.stream.Send(e.pack(batch)); err != nil {
			e.failed(fmt.Errorf("the connection to member %s broke: %w", e.id, err))
		}
	}
	e.t.mu.Lock()
	e.trouble = err
	e.t.mu.Unlock()
	if err != nil {
		for _, l := range batch {
			e.t.dead(l, err)
		}
	}
}

// reach sees to a connection.
func (e *endpoint) reach() error {
	if e.call != nil {
		select {
		case <-e.call.broken:
			e.hangUp()
		default:
			return nil
		}
	}
	if now := time.Now(); now.Before(e.rests) {
		return e.last
	}
	to, ok := e.t.trust.find(e.id)
	switch {
	case !ok:
		return fmt.Errorf("there is no member %s any more", e.id)
	case to.Address == "":
		return fmt.Errorf("member %s on %s listens to nobody", e.id, to.Host)
	}
	c, err := e.dial(to)
	if err != nil {
		e.failed(fmt.Errorf("cannot reach member %s on %s at %s: %w", e.id, to.Host, to.Address, err))
		return e.last
	}
	e.call, e.failures = c, 0
	return nil
}

// failed hangs up, and lets the member rest.
func (e *endpoint) failed(err error) {
	e.hangUp()
	e.last = err
	e.rests = time.Now().Add(min(100*time.Millisecond<<min(e.failures, 10), 5*time.Second))
	e.failures++
}

func (e *endpoint) hangUp() {
	if e.call != nil {
		e.call.end()
		_ = e.call.conn.Close() // it is over, whatever it says
		e.call = nil
	}
}

// dial calls a member, and has it show its own certificate.
func (e *endpoint) dial(to Peer) (_ *call, err error) {
	conn, err := grpc.NewClient("passthrough:///"+to.Address,
		grpc.WithTransportCredentials(credentials.NewTLS(e.t.tlsConfig(e.id))), grpc.WithNoProxy(), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: connectTime}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingAfter, Timeout: pingTime}),
		grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(maxReceive), grpc.MaxCallRecvMsgSize(1<<20)))
	if err != nil {
		return nil, err
	}
	ctx, end := context.WithCancel(e.ctx)
	late := time.AfterFunc(connectTime, end)
	defer func() {
		if err != nil {
			end()
			err = errors.Join(err, conn.Close())
		}
	}()
	stream, err := remote.NewRemotingClient(conn).Receive(ctx)
	if err != nil {
		return nil, err
	}
	if err = stream.Send(&remote.RemoteMessage{MessageType: &remote.RemoteMessage_ConnectRequest{ConnectRequest: &remote.ConnectRequest{
		ConnectionType: &remote.ConnectRequest_ServerConnection{
			ServerConnection: &remote.ServerConnection{SystemId: e.t.opt.System.ID, Address: e.t.opt.Self},
		},
	}}}); err != nil {
		return nil, err
	}
	hello, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	if hello.GetConnectResponse().GetMemberId() != e.id {
		return nil, fmt.Errorf("it says that it is %q", hello.GetConnectResponse().GetMemberId())
	}
	if !late.Stop() {
		return nil, context.DeadlineExceeded
	}
	c := &call{conn: conn, stream: stream, end: end, broken: make(chan struct{})}
	go func() {
		defer close(c.broken)
		_, _ = stream.Recv() // a member says nothing more on this side: it is over
	}()
	return c, nil
}

// pack makes a batch of messages.
func (e *endpoint) pack(letters []letter) *remote.RemoteMessage {
	b := &remote.MessageBatch{}
	types, targets, senders := map[string]int32{}, map[string]int32{}, map[string]int32{}
	for _, l := range letters {
		data, err := proto.Marshal(l.message)
		if err == nil && len(data) > maxMessage {
			err = fmt.Errorf("a message of %d bytes is too large", len(data))
		}
		if err != nil {
			e.t.dead(l, err)
			continue
		}
		envelope := &remote.MessageEnvelope{
			MessageData: data, SerializerId: remote.DefaultSerializerID,
			TypeId: index(types, string(proto.MessageName(l.message)), &b.TypeNames, func(s string) string { return s }),
			Target: index(targets, l.target.GetId(), &b.Targets, func(id string) *actor.PID { return actor.NewPID(e.id, id) }),
		}
		if l.sender != nil && l.sender.GetAddress() == e.t.opt.Self { // another's would be refused
			envelope.Sender = 1 + index(senders, l.sender.GetId(), &b.Senders, func(id string) *actor.PID { return actor.NewPID(e.t.opt.Self, id) })
		}
		b.Envelopes = append(b.Envelopes, envelope)
	}
	return &remote.RemoteMessage{MessageType: &remote.RemoteMessage_MessageBatch{MessageBatch: b}}
}

// index is a key's place in a list, to which it is added if it is new.
func index[T any](known map[string]int32, key string, list *[]T, entry func(string) T) int32 {
	i, ok := known[key]
	if !ok {
		i = int32(len(*list))
		known[key] = i
		*list = append(*list, entry(key))
	}
	return i
}
