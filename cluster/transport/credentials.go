package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"

	"google.golang.org/grpc/credentials"
)

// serverConfig is how callers are met.
func (t *Transport) serverConfig() *tls.Config {
	return t.tlsConfig("")
}

// tlsConfig is TLS with the member want, or with whoever calls if that is "".
func (t *Transport) tlsConfig(want string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"},
		ClientAuth: tls.RequireAnyClientCert,
		// There is no authority to verify by: VerifyConnection does it, by the fingerprint.
		InsecureSkipVerify: true, //nolint:gosec // see above
		// A resumed session would not show its certificate again.
		SessionTicketsDisabled: true,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return t.chain.use(), nil },
		GetClientCertificate:   func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return t.chain.use(), nil },
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := t.trust.admit(state, want)
			return err
		},
	}
}

// caller is who is at the other end of a connection, for the service behind it.
type caller struct {
	credentials.CommonAuthInfo
	peer Peer
}

// AuthType implements credentials.AuthInfo.
func (caller) AuthType() string { return "pinned" }

// doorman is the server's side of the handshake: it logs whom it refuses, and ends the
// connections of those who are not members any more.
type doorman struct {
	credentials.TransportCredentials
	t    *Transport
	busy chan struct{} // a token for each handshake under way

	mu   sync.Mutex
	open map[*guest]struct{}
}

// guest is a connection that was admitted.
type guest struct {
	net.Conn
	door        *doorman
	fingerprint string
}

// maxHandshakes bounds how many strangers can keep us busy at a time.
const maxHandshakes = 64

func newDoorman(t *Transport) *doorman {
	return &doorman{
		TransportCredentials: credentials.NewTLS(t.serverConfig()), t: t, busy: make(chan struct{}, maxHandshakes), open: map[*guest]struct{}{},
	}
}

// Clone implements credentials.TransportCredentials.
func (d *doorman) Clone() credentials.TransportCredentials { return d }

// ServerHandshake implements credentials.TransportCredentials. gRPC bounds its time.
func (d *doorman) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	select {
	case d.busy <- struct{}{}:
		defer func() { <-d.busy }()
	default:
		d.refused(raw, refuse("crowd", "more than %d connections are being set up", maxHandshakes))
		_ = raw.Close()
		return nil, nil, errors.New("too many handshakes")
	}
	conn, info, err := d.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		d.refused(raw, err)
		return nil, nil, err
	}
	secure, ok := info.(credentials.TLSInfo)
	if !ok {
		return nil, nil, fmt.Errorf("the handshake gave %T", info)
	}
	g := &guest{Conn: conn, door: d, fingerprint: Fingerprint(secure.State.PeerCertificates[0].Raw)}
	d.mu.Lock()
	d.open[g] = struct{}{}
	d.mu.Unlock()
	// Asked again, for it may have gone while it was not in the list yet.
	peer, err := d.t.trust.admit(secure.State, "")
	if err != nil {
		d.refused(raw, err)
		_ = g.Close()
		return nil, nil, err
	}
	return g, caller{secure.CommonAuthInfo, peer}, nil
}

// Close ends the connection.
func (g *guest) Close() error {
	g.door.mu.Lock()
	delete(g.door.open, g)
	g.door.mu.Unlock()
	return g.Conn.Close()
}

// turnOut ends the connections of those certificates.
func (d *doorman) turnOut(fingerprints []string) {
	gone := map[string]bool{}
	for _, f := range fingerprints {
		gone[f] = true
	}
	var out []*guest
	d.mu.Lock()
	for g := range d.open {
		if gone[g.fingerprint] {
			out = append(out, g)
		}
	}
	d.mu.Unlock()
	for _, g := range out {
		_ = g.Close()
	}
}

// refused logs a stranger.
func (d *doorman) refused(raw net.Conn, err error) {
	host, _, splitErr := net.SplitHostPort(raw.RemoteAddr().String())
	if splitErr != nil {
		host = raw.RemoteAddr().String()
	}
	kind := err.Error() // crypto/tls has few of them, and quiet bounds what is kept
	var r *RefusedError
	if errors.As(err, &r) {
		kind = r.Kind
	}
	d.t.say(kind+" "+host, "refused a connection to the members' port", raw.RemoteAddr().String(), err)
}

// ClientHandshake is not for a server.
func (d *doorman) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("a server calls nobody")
}
