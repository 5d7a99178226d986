package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	cephmirror "github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/rados"
)

var peer = cephmirror.Peer{UUID: "p1", Direction: cephmirror.DirectionRXTX, SiteName: "far", ClientName: "client.far"}

func encodePeers(peers ...cephmirror.Peer) func(e *encoding.Encoder) {
	return func(e *encoding.Encoder) {
		e.U32(uint32(len(peers)))
		for _, p := range peers {
			p.Encode(e)
		}
	}
}

// mirrored answers as a pool with mirroring enabled.
func mirrored(name string, mode cephmirror.Mode) *fakeIO {
	io := newFakeIO(name)
	io.answer("mirror_mode_get", func(e *encoding.Encoder) { e.U32(uint32(mode)) })
	io.answer("mirror_uuid_get", func(e *encoding.Encoder) { e.String("uuid of " + name) })
	io.answer("mirror_peer_list", encodePeers(peer))
	io.answers["mirror_remote_namespace_get"] = func([]byte) ([]byte, error) { return nil, syscall.EOPNOTSUPP }
	return io
}

func TestReadPool(t *testing.T) {
	ctx := context.Background()
	never, err := ReadPool(ctx, newFakeIO("p"))
	if err != nil || never.Mode != cephmirror.ModeDisabled || never.Mirrors() {
		t.Errorf("%+v, %v", never, err)
	}
	io := mirrored("p", cephmirror.ModePool)
	io.namespace = "ns"
	got, err := ReadPool(ctx, io)
	want := Pool{Pool: io.pool, Namespace: "ns", Mode: cephmirror.ModePool, MirrorUUID: "uuid of p",
		Peers: []cephmirror.Peer{peer}, RemoteNamespace: "ns"}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v; -want +got\n%s", err, d)
	}
	io.answer("mirror_remote_namespace_get", func(e *encoding.Encoder) { e.String("other") })
	if got, err := ReadPool(ctx, io); err != nil || got.RemoteNamespace != "other" {
		t.Errorf("%+v, %v", got, err)
	}
	io.answer("mirror_peer_list", func(e *encoding.Encoder) { e.U32(9) })
	if _, err := ReadPool(ctx, io); rados.Classify(err) != rados.Corrupt || !strings.Contains(err.Error(), cephmirror.Object) {
		t.Errorf("damaged peers: %v", err)
	}
}

func TestFindPools(t *testing.T) {
	denied := newFakeIO("denied")
	denied.answers["mirror_mode_get"] = func([]byte) ([]byte, error) { return nil, syscall.EPERM }
	c := &fakeCluster{pools: map[int64]map[string]*fakeIO{
		1: {"": newFakeIO("plain")}, 2: {"": denied}, 3: {"": mirrored("good", cephmirror.ModeImage)}, 4: {"": mirrored("init", cephmirror.ModeInitOnly)},
	}}
	found, err := FindPools(context.Background(), c)
	if err != nil || len(found) != 3 {
		t.Fatalf("%+v, %v", found, err)
	}
	if found[0].Name != "denied" || !errors.Is(found[0].Err, syscall.EPERM) {
		t.Errorf("%+v", found[0])
	}
	if found[1].Name != "good" || found[1].Err != nil || !found[1].Mirrors() || found[1].MirrorUUID != "uuid of good" {
		t.Errorf("%+v", found[1])
	}
	if found[2].Name != "init" || found[2].Mirrors() {
		t.Errorf("%+v", found[2])
	}
}

func TestMirroredNamespaces(t *testing.T) {
	root := mirrored("p", cephmirror.ModeInitOnly)
	root.answer("namespace_list", func(e *encoding.Encoder) {
		e.U32(3)
		e.String("bad")
		e.String("off")
		e.String("on")
	})
	bad := newFakeIO("p")
	bad.answers["mirror_mode_get"] = func([]byte) ([]byte, error) { return nil, syscall.EIO }
	c := &fakeCluster{pools: map[int64]map[string]*fakeIO{7: {"": root, "bad": bad, "off": newFakeIO("p"), "on": mirrored("p", cephmirror.ModeImage)}}}
	got, err := MirroredNamespaces(context.Background(), c, 7)
	if fmt.Sprint(got) != "[on]" || !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), `"bad"`) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestSiteName(t *testing.T) {
	ctx := context.Background()
	for want, c := range map[string]*fakeCluster{
		"near": {keys: map[string]string{"rbd/mirror/site_name": "near"}},
		"fsid": {},
	} {
		if got, err := SiteName(ctx, c); got != want || err != nil {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	if _, err := SiteName(ctx, &fakeCluster{err: syscall.ETIMEDOUT}); rados.Classify(err) != rados.Transient {
		t.Error(err)
	}
}

// aKey is a cephx key that opens nothing.
const aKey = "AQAAAAAAAAAAABAAAAECAwQFBgcICQoLDA0ODw=="

func TestResolvePeer(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "far.conf")
	if err := os.WriteFile(conf, []byte("[global]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stored := func(value string) *fakeCluster {
		return &fakeCluster{keys: map[string]string{"rbd/mirror/peer/7/p1": value}}
	}
	both := `{"mon_host": "[v2:1.2.3.4:3300/0]", "key": "` + aKey + `"}`
	for _, c := range []struct {
		name    string
		cluster *fakeCluster
		conf    string
		want    Connection
		problem Problem
	}{
		{"bootstrapped", stored(both), "", Connection{MonHost: "[v2:1.2.3.4:3300/0]", Key: aKey}, 0},
		{"bootstrapped, with a file", stored(both), conf, Connection{MonHost: "[v2:1.2.3.4:3300/0]", Key: aKey, ConfFile: conf}, 0},
		{"by file", &fakeCluster{}, conf, Connection{ConfFile: conf}, 0},
		{"emptied record", stored(""), conf, Connection{ConfFile: conf}, 0},
		{"monitors only", stored(`{"mon_host": "1.2.3.4", "more": 5}`), "", Connection{MonHost: "1.2.3.4"}, 0},
		{"nothing", &fakeCluster{}, "", Connection{}, ProblemNoConf},
		{"key without monitors", stored(`{"key": "` + aKey + `"}`), "", Connection{}, ProblemNoConf},
		{"cut key", stored(`{"mon_host": "h", "key": "` + aKey[:20] + `"}`), "", Connection{}, ProblemBadKey},
		{"key that is no base64", stored(`{"mon_host": "h", "key": "secret!"}`), "", Connection{}, ProblemBadKey},
		{"no JSON", stored(`{"key": "` + aKey), "", Connection{}, ProblemBadRecord},
		{"key of another type", stored(`{"mon_host": "h", "key": ["` + aKey + `"]}`), "", Connection{}, ProblemBadRecord},
		{"denied", &fakeCluster{err: syscall.EACCES}, conf, Connection{}, ProblemDenied},
		{"monitors away", &fakeCluster{err: syscall.ETIMEDOUT}, conf, Connection{}, ProblemUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			var confs []string
			if c.conf != "" {
				confs = []string{"/does/not/exist.conf", c.conf}
			}
			got, err := resolvePeer(context.Background(), c.cluster, 7, peer, confs)
			if c.problem == 0 {
				c.want.PeerUUID, c.want.SiteName, c.want.ClientName = "p1", "far", "client.far"
				if d := cmp.Diff(c.want, got); d != "" || err != nil {
					t.Errorf("%v; -want +got\n%s", err, d)
				}
				return
			}
			var e *PeerError
			if !errors.As(err, &e) || e.Problem != c.problem || e.Hint == "" {
				t.Fatalf("%v", err)
			}
			if strings.Contains(err.Error(), aKey[:20]) || strings.Contains(err.Error(), "secret!") {
				t.Errorf("the error tells the key: %v", err)
			}
		})
	}
	if _, err := ResolvePeer(context.Background(), &fakeCluster{}, 7, cephmirror.Peer{UUID: "tx", SiteName: "s"}); err == nil {
		t.Error("a peer without a client name resolves")
	}
}

func TestSecretHidesItself(t *testing.T) {
	c := Connection{SiteName: "far", Key: aKey}
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{fmt.Sprint(c), fmt.Sprintf("%+v", c), fmt.Sprintf("%#v", c), fmt.Sprintf("%q", c.Key), fmt.Sprintf("%x", c.Key), string(b)} {
		if strings.Contains(s, aKey) || strings.Contains(s, fmt.Sprintf("%x", aKey)) {
			t.Errorf("told: %s", s)
		}
	}
	if c.Key.Reveal() != aKey {
		t.Error("Reveal does not")
	}
}

func TestPingRemote(t *testing.T) {
	ctx := context.Background()
	if _, err := PingRemote(ctx, newFakeIO("p"), "near", "u"); !errors.Is(err, ErrNotMirrored) {
		t.Errorf("%v", err)
	}
	io := mirrored("p", cephmirror.ModePool)
	io.answer("mirror_peer_list", encodePeers(cephmirror.Peer{UUID: "us", Direction: cephmirror.DirectionRXTX, SiteName: "near", ClientName: "c"}))
	got, err := PingRemote(ctx, io, "near", "u")
	if want := (Remote{MirrorUUID: "uuid of p", PeerUUID: "us"}); got != want || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	pings := io.taken()
	if len(pings) != 1 || pings[0].Steps[0].Call.Method != "mirror_peer_ping" {
		t.Errorf("pings: %+v", pings)
	}
	io.fail = func(*rados.WriteOp) error { return syscall.EPERM } // read-only caps
	if got, err := PingRemote(ctx, io, "near", "u"); err != nil || got.PeerUUID != "us" {
		t.Errorf("%+v, %v", got, err)
	}
	io.fail = func(*rados.WriteOp) error { return rados.Blocklisted }
	if _, err := PingRemote(ctx, io, "near", "u"); rados.Classify(err) != rados.Fenced {
		t.Errorf("%v", err)
	}
}

func TestMatchPeer(t *testing.T) {
	peers := []cephmirror.Peer{
		{UUID: "tx", Direction: cephmirror.DirectionTX, SiteName: "near", MirrorUUID: "u"},
		{UUID: "name", Direction: cephmirror.DirectionRX, SiteName: "near", MirrorUUID: "stale"},
		{UUID: "uuid", Direction: cephmirror.DirectionRXTX, SiteName: "renamed", MirrorUUID: "u"},
	}
	for want, list := range map[string][]cephmirror.Peer{"uuid": peers, "name": peers[:2], "": peers[:1]} {
		if got := MatchPeer(list, "near", "u"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
