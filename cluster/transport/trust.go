package transport

import (
	"crypto/tls"
	"fmt"
	"sync"
	"time"
)

// Peer is another member, as its record says.
type Peer struct {
	ID      string
	Host    string // for people
	Address string // HOST:PORT where it listens; "" if it does not
	// Fingerprints are those of the certificates that it may show.
	Fingerprints []string
}

// RefusedError says why a peer's certificate was refused.
type RefusedError struct {
	// Why begins the sentence for logs; Kind is what log lines are counted by.
	Kind, Why string
}

// Error is the reason.
func (e *RefusedError) Error() string { return e.Why }

func refuse(kind, format string, args ...any) error {
	return &RefusedError{Kind: kind, Why: fmt.Sprintf(format, args...)}
}

// trust is who is admitted at this moment.
//
// Invariant: a certificate is admitted only if its fingerprint is in the record of a member
// that lives now, and it is valid now, and of this cluster. There is no other way in.
type trust struct {
	fsid string
	now  func() time.Time

	mu    sync.RWMutex
	peers map[string]Peer   // by id
	pins  map[string]string // fingerprint → id
}

func newTrust(fsid string, now func() time.Time) *trust {
	return &trust{fsid: fsid, now: now, peers: map[string]Peer{}, pins: map[string]string{}}
}

// set replaces who is admitted, and tells which fingerprints and which members are not any
// more. A member that listens elsewhere now counts as one that is not any more, too: what
// was connected to its old address has to connect anew.
func (t *trust) set(peers []Peer) (fingerprints, ids []string) {
	byID, pins := map[string]Peer{}, map[string]string{}
	for _, p := range peers {
		if p.ID == "" {
			continue
		}
		byID[p.ID] = p
		for _, f := range p.Fingerprints {
			if f != "" {
				pins[f] = p.ID
			}
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for f, id := range t.pins {
		if pins[f] != id {
			fingerprints = append(fingerprints, f)
		}
	}
	for id, p := range t.peers {
		if now, there := byID[id]; !there || now.Address != p.Address {
			ids = append(ids, id)
		}
	}
	t.peers, t.pins = byID, pins
	return fingerprints, ids
}

// find gives a member.
func (t *trust) find(id string) (Peer, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	p, ok := t.peers[id]
	return p, ok
}

// admit decides about a peer by the certificate that it showed, and owns the key of. want is
// the member that was called, "" if it called us. It answers who it is.
func (t *trust) admit(state tls.ConnectionState, want string) (Peer, error) {
	if len(state.PeerCertificates) == 0 {
		return Peer{}, refuse("no certificate", "it showed no certificate")
	}
	leaf := state.PeerCertificates[0]
	switch now := t.now(); {
	case len(leaf.Subject.Organization) != 1 || leaf.Subject.Organization[0] != t.fsid:
		return Peer{}, refuse("other cluster", "its certificate is of cluster %q, this is %s", leaf.Subject.Organization, t.fsid)
	case now.After(leaf.NotAfter):
		return Peer{}, refuse("expired", "its certificate expired at %s", leaf.NotAfter.Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return Peer{}, refuse("not yet valid", "its certificate is not valid before %s", leaf.NotBefore.Format(time.RFC3339))
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	id, pinned := t.pins[Fingerprint(leaf.Raw)]
	switch {
	case !pinned:
		return Peer{}, refuse("unpinned", "its certificate, for member %q, is not that of a living member", leaf.Subject.CommonName)
	case want != "" && id != want:
		return Peer{}, refuse("another member", "it is member %s, not %s", id, want)
	}
	return t.peers[id], nil
}
