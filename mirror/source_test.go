package mirror

import (
	"testing"

	cephmirror "github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/mem"
)

func receiving(uuid, site string) cephmirror.Peer {
	return cephmirror.Peer{UUID: uuid, SiteName: site, ClientName: "client.x", Direction: cephmirror.DirectionRXTX}
}

// TestThePoolStaysWithItsPeer goes through the life of a pool's peers, with daemons that start in between and know no more
// than what is stored.
func TestThePoolStaysWithItsPeer(t *testing.T) {
	store := mem.New(mem.Options{})
	store.AddPool("rbd")
	io, err := store.Connect().Open(t.Context(), "rbd", "")
	if err != nil {
		t.Fatal(err)
	}
	sending := cephmirror.Peer{UUID: "0", SiteName: "west", Direction: cephmirror.DirectionTX}
	nameless := cephmirror.Peer{UUID: "1", SiteName: "west", Direction: cephmirror.DirectionRXTX}
	north, south, east := receiving("n", "north"), receiving("a", "south"), receiving("b", "east")
	northAgain := receiving("z", "north")
	for _, step := range []struct {
		what  string
		peers []cephmirror.Peer
		want  string
	}{
		{"no peer", nil, ""},
		{"one that is only sent to", []cephmirror.Peer{sending}, ""},
		{"one", []cephmirror.Peer{sending, north}, "n"},
		{"a second one before it", []cephmirror.Peer{south, north}, "n"},
		{"the first is gone for now", []cephmirror.Peer{sending}, ""},
		{"the first is back under another uuid", []cephmirror.Peer{south, northAgain}, "z"},
		{"the first is taken away", []cephmirror.Peer{south}, "a"},
		{"the first is added again", []cephmirror.Peer{south, northAgain}, "a"},
		{"others, one of which nobody can connect to", []cephmirror.Peer{nameless, northAgain, east}, "b"},
	} {
		got, err := findSource(t.Context(), io, step.peers)
		if err != nil || got != step.want {
			t.Errorf("%s: from %q, want %q (%v)", step.what, got, step.want, err)
		}
	}
	var op rados.WriteOp
	op.SetOmap(map[string][]byte{sourceKey: []byte("damaged")})
	if err := io.Write(t.Context(), sourceObject, &op); err != nil {
		t.Fatal(err)
	}
	if got, err := findSource(t.Context(), io, []cephmirror.Peer{north, east}); err != nil || got != "b" {
		t.Errorf("the choice was damaged: from %q, %v", got, err)
	}
}
