package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/remote"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// logs fails unless the member's log has a text, soon.
func (m *member) logs(text string) {
	m.t.Helper()
	await(m.t, "the log says "+text, func() bool { return strings.Contains(m.log.String(), text) })
}

// callAs calls a member with a certificate, and says hello as id.
func callAs(t *testing.T, address string, cert *tls.Certificate, id string) (remote.Remoting_ReceiveClient, remote.RemotingClient, error) {
	t.Helper()
	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}
	if cert != nil {
		config.Certificates = []tls.Certificate{*cert}
	}
	return callWith(t, address, credentials.NewTLS(config), id)
}

func callWith(t *testing.T, address string, creds credentials.TransportCredentials, id string) (remote.Remoting_ReceiveClient, remote.RemotingClient, error) {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	client := remote.NewRemotingClient(conn)
	stream, err := client.Receive(ctx)
	if err != nil {
		return nil, client, err
	}
	if err := stream.Send(&remote.RemoteMessage{MessageType: &remote.RemoteMessage_ConnectRequest{ConnectRequest: &remote.ConnectRequest{
		ConnectionType: &remote.ConnectRequest_ServerConnection{ServerConnection: &remote.ServerConnection{SystemId: "x", Address: id}},
	}}}); err != nil {
		return nil, client, err
	}
	_, err = stream.Recv()
	return stream, client, err
}

// TestStrangersAreRefused: each is refused, logged, and harms nothing.
func TestStrangersAreRefused(t *testing.T) {
	t.Parallel()
	now := time.Now()
	make := func(fsid, id string, from, to time.Time) *tls.Certificate {
		c, err := certificate(fsid, id, from, to)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for _, c := range []struct {
		name string
		cert *tls.Certificate // nil: none is shown
		pin  bool
		log  string
	}{
		{"a pinned one is admitted", make(fsid, "9", now, now.Add(time.Hour)), true, ""},
		{"unpinned", make(fsid, "9", now, now.Add(time.Hour)), false, "not that of a living member"},
		{"expired", make(fsid, "9", now.Add(-time.Hour), now.Add(-time.Second)), true, "expired at"},
		{"not yet valid", make(fsid, "9", now.Add(time.Hour), now.Add(2*time.Hour)), true, "not valid before"},
		{"another cluster's", make("99999999-2222-3333-4444-555555555555", "9", now, now.Add(time.Hour)), true, "is of cluster"},
		{"no certificate", nil, false, "didn't provide a certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a, b := start(t, "1"), start(t, "2")
			peers := []Peer{a.peer(), b.peer()}
			if c.pin {
				peers = append(peers, Peer{ID: "9", Fingerprints: []string{Fingerprint(c.cert.Certificate[0])}})
			}
			a.Admit(peers)
			b.Admit(peers)
			works(t, a, b)
			_, _, err := callAs(t, a.Address(), c.cert, "9")
			if (err == nil) != (c.log == "") {
				t.Fatalf("the call: %v", err)
			}
			if c.log != "" {
				a.logs(c.log)
				a.logs("refused a connection")
			}
			works(t, a, b)
		})
	}
}

func TestPlainTextAndGarbageAreRefused(t *testing.T) {
	t.Parallel()
	a, b := start(t, "1"), start(t, "2")
	meet(a, b)
	works(t, a, b)
	if _, _, err := callWith(t, a.Address(), insecure.NewCredentials(), "2"); err == nil {
		t.Error("gRPC in plain text is answered")
	}
	a.logs("first record does not look like a TLS handshake")
	for _, garbage := range []string{"", "GET / HTTP/1.1\r\n\r\n", strings.Repeat("\x16\x03\x01\xff\xff", 10_000), "\x00"} {
		conn, err := net.Dial("tcp", a.Address())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, garbage) // it may be cut off in the middle
		if garbage != "" && garbage != "\x00" {
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.ReadAll(conn); err != nil && strings.Contains(err.Error(), "timeout") {
				t.Errorf("garbage %.10q keeps the connection", garbage)
			}
		}
		conn.Close()
	}
	works(t, a, b)
}

// TestACrowdOfMuteCallersIsBounded: they get no more than a bounded number of handshakes, and
// members get through afterwards.
func TestACrowdOfMuteCallersIsBounded(t *testing.T) {
	t.Parallel()
	a, b := start(t, "1"), start(t, "2")
	meet(a, b)
	for range 4 * maxHandshakes {
		conn, err := net.Dial("tcp", a.Address())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	a.logs("connections are being set up")
	works(t, a, b) // at the latest when the crowd has run out of time
}

// TestAMemberCallsOnlyWhomItMeans: an address that belongs to another living member is not
// enough.
func TestAMemberCallsOnlyWhomItMeans(t *testing.T) {
	t.Parallel()
	a, b, c := start(t, "1"), start(t, "2"), start(t, "3")
	meet(a, b, c)
	wrong := c.peer()
	wrong.Address = b.Address()
	a.Admit([]Peer{b.peer(), wrong})
	if answer, err := a.ask(c, "x"); err == nil {
		t.Errorf("3, at the address of 2, answers %q", answer)
	}
	a.logs("it is member 2, not 3")
	if b.has() != "" {
		t.Errorf("2 heard %s", b.has())
	}
}

// TestTheRulesOfMessages: an admitted member that breaks a rule loses its connection, what it
// sent is not delivered, and others are not disturbed.
func TestTheRulesOfMessages(t *testing.T) {
	t.Parallel()
	body, _ := proto.Marshal(text("evil"))
	stop, _ := proto.Marshal(&actor.Stop{})
	dead, _ := proto.Marshal(&actor.DeadLetterResponse{Target: actor.NewPID("1", "x")})
	echo, sender := []*actor.PID{actor.NewPID("1", "echo")}, []*actor.PID{actor.NewPID("9", "x")}
	kind := []string{"google.protobuf.StringValue"}
	env := func(e *remote.MessageEnvelope) []*remote.MessageEnvelope {
		if e.MessageData == nil {
			e.MessageData = body
		}
		return []*remote.MessageEnvelope{e}
	}
	for _, c := range []struct {
		name  string
		batch *remote.MessageBatch
		log   string // "": it is delivered
	}{
		{"allowed", &remote.MessageBatch{TypeNames: kind, Targets: echo, Senders: sender, Envelopes: env(&remote.MessageEnvelope{Sender: 1})}, ""},
		{"a system message", &remote.MessageBatch{TypeNames: []string{"actor.Stop"}, Targets: echo, Envelopes: env(&remote.MessageEnvelope{MessageData: stop})}, `of type \"actor.Stop\", which may not pass`},
		{"a known type that may not pass", &remote.MessageBatch{TypeNames: []string{"remote.ActorPidRequest"}, Targets: echo, Envelopes: env(&remote.MessageEnvelope{})}, "may not pass"},
		{"a type that nobody knows", &remote.MessageBatch{TypeNames: []string{"no.such.Type"}, Targets: echo, Envelopes: env(&remote.MessageEnvelope{})}, "may not pass"},
		{"a dead letter for an actor", &remote.MessageBatch{TypeNames: []string{deadLetterType}, Targets: echo, Envelopes: env(&remote.MessageEnvelope{MessageData: dead})}, "may not pass"},
		{"an actor that is not exposed", &remote.MessageBatch{TypeNames: kind, Targets: []*actor.PID{actor.NewPID("1", "secret")}, Envelopes: env(&remote.MessageEnvelope{})}, "nobody may send to"},
		{"the event stream", &remote.MessageBatch{TypeNames: kind, Targets: []*actor.PID{actor.NewPID("1", "eventstream")}, Envelopes: env(&remote.MessageEnvelope{})}, "nobody may send to"},
		{"another member's actor", &remote.MessageBatch{TypeNames: kind, Targets: []*actor.PID{actor.NewPID("2", "echo")}, Envelopes: env(&remote.MessageEnvelope{})}, "for member"},
		{"another's sender", &remote.MessageBatch{TypeNames: kind, Targets: echo, Senders: []*actor.PID{actor.NewPID("2", "x")}, Envelopes: env(&remote.MessageEnvelope{Sender: 1})}, "as the sender's"},
		{"a type out of range", &remote.MessageBatch{TypeNames: kind, Targets: echo, Envelopes: env(&remote.MessageEnvelope{TypeId: 7})}, "type 7 of 1"},
		{"a target out of range", &remote.MessageBatch{TypeNames: kind, Targets: echo, Envelopes: env(&remote.MessageEnvelope{Target: -1})}, "target -1 of 1"},
		{"a sender out of range", &remote.MessageBatch{TypeNames: kind, Targets: echo, Envelopes: env(&remote.MessageEnvelope{Sender: 3})}, "sender 2 of 0"},
		{"another encoding", &remote.MessageBatch{TypeNames: kind, Targets: echo, Envelopes: env(&remote.MessageEnvelope{SerializerId: 1})}, "another encoding"},
		{"damaged bytes", &remote.MessageBatch{TypeNames: kind, Targets: echo, Envelopes: env(&remote.MessageEnvelope{MessageData: []byte{0xff, 0xff}})}, "damaged message"},
		{"good and bad in one batch", &remote.MessageBatch{TypeNames: append(kind, "actor.Stop"), Targets: echo, Envelopes: append(env(&remote.MessageEnvelope{}), &remote.MessageEnvelope{TypeId: 1, MessageData: stop})}, "may not pass"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a, b := start(t, "1"), start(t, "2")
			cert, err := certificate(fsid, "9", time.Now(), time.Now().Add(time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			a.Admit([]Peer{b.peer(), {ID: "9", Fingerprints: []string{Fingerprint(cert.Certificate[0])}}})
			b.Admit([]Peer{a.peer()})
			stream, _, err := callAs(t, a.Address(), cert, "9")
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.Send(&remote.RemoteMessage{MessageType: &remote.RemoteMessage_MessageBatch{MessageBatch: c.batch}}); err != nil {
				t.Fatal(err)
			}
			if c.log == "" {
				await(t, "it is delivered", func() bool { return a.has() == "evil" })
				return
			}
			if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument {
				t.Errorf("the stream: %v", err)
			}
			a.logs(c.log)
			works(t, a, b)
			if strings.Contains(a.has(), "evil") || strings.Contains(a.has(), "STOPPED") {
				t.Errorf("it was delivered: %s", a.has())
			}
		})
	}
}

// TestOtherCallsAreNotImplemented: those of the library's calls that end the process there.
func TestOtherCallsAreNotImplemented(t *testing.T) {
	t.Parallel()
	a := start(t, "1")
	cert, err := certificate(fsid, "9", time.Now(), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	a.Admit([]Peer{{ID: "9", Fingerprints: []string{Fingerprint(cert.Certificate[0])}}})
	_, client, err := callAs(t, a.Address(), cert, "9")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.ListProcesses(t.Context(), &remote.ListProcessesRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("ListProcesses: %v", err)
	}
	if _, err := client.GetProcessDiagnostics(t.Context(), &remote.GetProcessDiagnosticsRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("GetProcessDiagnostics: %v", err)
	}
	if _, _, err := callAs(t, a.Address(), cert, "2"); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a member that says that it is another: %v", err)
	}
	a.logs(`member 9 says that it is \"2\"`)
}

// TestNothingElseLeaves: what may not pass is not sent.
func TestNothingElseLeaves(t *testing.T) {
	t.Parallel()
	a, b := start(t, "1"), start(t, "2")
	meet(a, b)
	works(t, a, b)
	pid := actor.NewPID("2", "echo")
	if _, err := a.system.Root.RequestFuture(pid, "a string", 2*time.Second).Result(); !errors.Is(err, actor.ErrDeadLetter) {
		t.Errorf("a string: %v", err)
	}
	if _, err := a.system.Root.RequestFuture(pid, wrapperspb.Bool(true), 2*time.Second).Result(); !errors.Is(err, actor.ErrDeadLetter) {
		t.Errorf("another type: %v", err)
	}
	a.system.Root.Stop(pid)
	a.system.Root.Poison(pid)
	if _, err := a.ask(b, strings.Repeat("x", maxMessage)); !errors.Is(err, actor.ErrDeadLetter) {
		t.Errorf("too large a message: %v", err)
	}
	works(t, a, b)
	if strings.Contains(b.has(), "STOPPED") {
		t.Error("a member stopped another's actor")
	}
}
