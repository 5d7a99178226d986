package mirror

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	cephmirror "github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/rados"
)

// Secret is a cephx key. It prints as "***" wherever it goes; Reveal gives the text.
type Secret string

// Reveal is the secret itself, for the one place that connects with it.
func (s Secret) Reveal() string { return string(s) }

// String hides the secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "***"
}

// GoString hides the secret from %#v.
func (s Secret) GoString() string { return fmt.Sprintf("%q", s.String()) }

// MarshalText hides the secret from JSON and logs.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Connection says how to reach a peer's cluster, and as whom.
type Connection struct {
	PeerUUID   string // of the peer's record
	SiteName   string // also the cluster's name, which finds its configuration file
	ClientName string // "client.NAME"
	MonHost    string // from the config-key store; "" means ConfFile
	Key        Secret // from the config-key store; "" means the keyring
	ConfFile   string // the peer's configuration file, if this host has one
}

// Problem says why a peer cannot be reached.
type Problem uint8

// The problems with peers.
const (
	ProblemNoConf      Problem = iota + 1 // neither config-key nor configuration file
	ProblemBadKey                         // the stored key is no cephx key
	ProblemBadRecord                      // the config-key entry cannot be read as JSON
	ProblemDenied                         // we may not read the config-key entry
	ProblemUnavailable                    // the monitors did not answer
	ProblemNoClient                       // the peer's record names no client
)

func (p Problem) String() string {
	switch p {
	case ProblemNoConf:
		return "no conf"
	case ProblemBadKey:
		return "wrong key"
	case ProblemBadRecord:
		return "damaged record"
	case ProblemDenied:
		return "access denied"
	case ProblemUnavailable:
		return "unavailable"
	case ProblemNoClient:
		return "no client name"
	}
	return fmt.Sprintf("Problem(%d)", uint8(p))
}

// PeerError says why a peer's connection facts cannot be had, and what the operator
// may do. It never contains a key.
type PeerError struct {
	SiteName string
	PeerUUID string
	Problem  Problem
	Hint     string
	Err      error // may be nil
}

func (e *PeerError) Error() string {
	s := fmt.Sprintf("peer %s (%s): %v", e.SiteName, e.PeerUUID, e.Problem)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s + " (" + e.Hint + ")"
}

func (e *PeerError) Unwrap() error { return e.Err }

// ResolvePeer finds out how to reach a peer of the local pool: from the monitors'
// config-key store, where "rbd mirror pool peer bootstrap import" put it, or from
// the configuration file of the cluster with the peer's site name, as it was before
// Nautilus. Errors are *PeerError.
func ResolvePeer(ctx context.Context, local rados.Cluster, pool int64, peer cephmirror.Peer) (Connection, error) {
	return resolvePeer(ctx, local, pool, peer, confPaths(peer.SiteName))
}

// confPaths is where librados looks for a cluster's configuration file.
func confPaths(cluster string) []string {
	name := cluster + ".conf"
	paths := []string{filepath.Join("/etc/ceph", name)}
	if home, err := os.UserHomeDir(); err == nil {
		paths = append(paths, filepath.Join(home, ".ceph", name))
	}
	return append(paths, name)
}

func resolvePeer(ctx context.Context, local rados.Cluster, pool int64, peer cephmirror.Peer, confs []string) (Connection, error) {
	c := Connection{PeerUUID: peer.UUID, SiteName: peer.SiteName, ClientName: peer.ClientName}
	fail := func(p Problem, hint string, err error) (Connection, error) {
		return Connection{}, &PeerError{SiteName: peer.SiteName, PeerUUID: peer.UUID, Problem: p, Hint: hint, Err: err}
	}
	if peer.ClientName == "" {
		return fail(ProblemNoClient, "set one with: rbd mirror pool peer set POOL "+peer.UUID+" client client.NAME", nil)
	}
	for _, path := range confs {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			c.ConfFile = path
			break
		}
	}
	key := peerKey(pool, peer.UUID)
	record, err := configKey(ctx, local, key)
	switch {
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return fail(ProblemDenied, "the daemon's monitor capabilities need: profile rbd-mirror", err)
	case err != nil:
		return fail(ProblemUnavailable, "is the local cluster healthy?", err)
	}
	if len(record) > 0 {
		if err := c.parse(record); err != nil {
			// The parser's own words may quote the record, and so the key.
			return fail(ProblemBadRecord, "import the bootstrap token again, or mend config-key "+key, err)
		}
	}
	switch {
	case c.Key != "" && !validKey(c.Key):
		return fail(ProblemBadKey, "config-key "+key+" has a key that is none; import the bootstrap token again", nil)
	case c.MonHost == "" && c.ConfFile == "":
		return fail(ProblemNoConf, fmt.Sprintf("there is no mon_host in config-key %s, and none of %v exists", key, confs), nil)
	}
	return c, nil
}

// parse reads the config-key entry, a JSON object of strings.
func (c *Connection) parse(record []byte) error {
	var fields struct {
		MonHost string `json:"mon_host"`
		Key     string `json:"key"`
	}
	if err := json.Unmarshal(record, &fields); err != nil {
		return errors.New("not a JSON object with the strings mon_host and key")
	}
	c.MonHost, c.Key = fields.MonHost, Secret(fields.Key)
	return nil
}

// validKey tells whether s is a cephx key: in base64, u16 type 1, utime, u16 length
// and that many bytes (CryptoKey in src/auth/Crypto.cc). Whether it is the right one,
// only connecting tells.
func validKey(s Secret) bool {
	b, err := base64.StdEncoding.DecodeString(string(s))
	if err != nil {
		return false
	}
	d := encoding.NewDecoder("cephx key", b)
	kind := d.U16()
	d.Time()
	n := int(d.U16())
	return d.Err() == nil && kind != 0 && n > 0 && n == d.Remaining()
}
