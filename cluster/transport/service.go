package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/remote"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// service is protoactor's remote.Remoting for admitted members. What it does not implement,
// ListProcesses and GetProcessDiagnostics, answers Unimplemented.
type service struct {
	remote.UnimplementedRemotingServer
	t *Transport
}

// ruleError is a broken rule of the protocol.
type ruleError string

func (e ruleError) Error() string { return string(e) }

func broken(format string, args ...any) error { return ruleError(fmt.Sprintf(format, args...)) }

// Receive takes a member's messages until the connection ends. Its panics, which would be
// bugs, end the connection only.
func (s *service) Receive(stream remote.Remoting_ReceiveServer) (err error) {
	from, err := callerOf(stream.Context())
	if err != nil {
		return err
	}
	who := from.ID + " on " + from.Host
	defer func() {
		if p := recover(); p != nil {
			s.t.lines.Error().Interface("panic", p).Str("stack", string(debug.Stack())).Str("from", who).Msg("a member's message led to a panic")
			err = status.Error(codes.Internal, "panic")
		}
		var rule ruleError
		if errors.As(err, &rule) {
			s.t.say("rule "+from.ID, "a member broke the rules of the protocol: its connection was ended", who, err)
			err = status.Error(codes.InvalidArgument, err.Error())
		}
	}()
	if err := s.greet(stream, from); err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		batch := m.GetMessageBatch()
		if batch == nil {
			return broken("a message that is no batch: %T", m.GetMessageType())
		}
		// All of it is looked at before any of it is delivered.
		letters, err := s.t.open(batch, from.ID)
		if err != nil {
			return err
		}
		for _, l := range letters {
			s.t.opt.System.Root.Send(l.target, &actor.MessageEnvelope{Message: l.message, Sender: l.sender})
		}
	}
}

// callerOf is who is at the other end.
func callerOf(ctx context.Context) (Peer, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Peer{}, status.Error(codes.Unauthenticated, "nobody")
	}
	c, ok := p.AuthInfo.(caller)
	if !ok {
		return Peer{}, status.Error(codes.Unauthenticated, "not pinned")
	}
	return c.peer, nil
}

// greet answers the first message.
func (s *service) greet(stream remote.Remoting_ReceiveServer, from Peer) error {
	m, err := stream.Recv()
	if err != nil {
		return err
	}
	hello := m.GetConnectRequest().GetServerConnection()
	if hello == nil {
		return broken("the first message is no connect request: %T", m.GetMessageType())
	}
	if hello.GetAddress() != from.ID {
		return broken("member %s says that it is %q", from.ID, hello.GetAddress())
	}
	return stream.Send(&remote.RemoteMessage{MessageType: &remote.RemoteMessage_ConnectResponse{
		ConnectResponse: &remote.ConnectResponse{MemberId: s.t.opt.Self},
	}})
}

// letter is one message on its way.
type letter struct {
	target, sender *actor.PID
	message        proto.Message
}

// open decodes a batch. Whatever is in it that the rules do not allow makes it an error:
// also what would be out of a list's range, or of a type that nobody knows, at both of
// which the library panics.
//
// Invariant: nothing but allowed messages gets out of here, to exposed actors and futures of
// this member, from actors of the member that sent it.
func (t *Transport) open(b *remote.MessageBatch, from string) ([]letter, error) {
	letters := make([]letter, 0, len(b.GetEnvelopes()))
	for _, e := range b.GetEnvelopes() {
		target, err := at(b.GetTargets(), e.GetTarget(), "target")
		if err != nil {
			return nil, err
		}
		name, err := at(b.GetTypeNames(), e.GetTypeId(), "type")
		if err != nil {
			return nil, err
		}
		l := letter{target: actor.NewPID(t.opt.Self, target.GetId())}
		future := isFuture(target.GetId())
		switch {
		case target.GetAddress() != t.opt.Self:
			return nil, broken("a message for member %q, this is %s", target.GetAddress(), t.opt.Self)
		case !future && !t.exposed[target.GetId()]:
			return nil, broken("a message for actor %q, which nobody may send to", target.GetId())
		case !t.types[name] && !(future && name == deadLetterType):
			return nil, broken("a message of type %q, which may not pass", name)
		case e.GetSerializerId() != remote.DefaultSerializerID:
			return nil, broken("a message in another encoding: %d", e.GetSerializerId())
		}
		if e.GetSender() != 0 {
			sender, err := at(b.GetSenders(), e.GetSender()-1, "sender")
			if err != nil {
				return nil, err
			}
			if sender.GetAddress() != from {
				return nil, broken("member %s names %q as the sender's", from, sender.GetAddress())
			}
			l.sender = actor.NewPID(from, sender.GetId())
		}
		if l.message, err = decode(name, e.GetMessageData()); err != nil {
			return nil, err
		}
		letters = append(letters, l)
	}
	return letters, nil
}

// deadLetterType is what answers a request that did not arrive.
var deadLetterType = string(proto.MessageName(&actor.DeadLetterResponse{}))

// at is one of a list, of which the sender says which.
func at[T any](list []T, index int32, what string) (v T, err error) {
	if index < 0 || int(index) >= len(list) {
		return v, broken("%s %d of %d", what, index, len(list))
	}
	return list[index], nil
}

func decode(name string, data []byte) (proto.Message, error) {
	kind, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
	if err != nil {
		return nil, broken("type %q: %v", name, err)
	}
	m := kind.New().Interface()
	if err := proto.Unmarshal(data, m); err != nil {
		return nil, broken("a damaged message of type %s: %v", name, err)
	}
	return m, nil
}
