package site

import (
	"strings"
	"testing"
	"time"

	cephmirror "github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/mirror"
)

// TestASecondPeerTakesNothingOver adds another peer to receive from, before the first in the list, and takes it away again.
func TestASecondPeerTakesNothingOver(t *testing.T) {
	w := newWorld(t, found(1, "rbd", "p"))
	w.start(5 * time.Millisecond)
	w.election(0).lead()
	w.until("the pool runs", func() bool { return w.open["rbd"] == 1 })

	second := cephmirror.Peer{UUID: "a", SiteName: "south", ClientName: "client.x", Direction: cephmirror.DirectionRX}
	w.locked(func() {
		f := found(1, "rbd", "p")
		f.Peers = append([]cephmirror.Peer{second, {UUID: "b", SiteName: "west", Direction: cephmirror.DirectionTX}}, f.Peers...)
		w.pools = []Found{f}
	})
	warning := func() (text string) {
		for _, c := range w.service[1].Callouts {
			if c.Level == mirror.CalloutWarning {
				text = c.Text
			}
		}
		return text
	}
	w.until("the service map warns of the second peer", func() bool {
		text := warning()
		return strings.Contains(text, "multiple RX peers") && strings.Contains(text, "from north only, not from south;") &&
			strings.Contains(text, "rbd mirror pool peer remove rbd a")
	})
	w.locked(func() { w.pools = []Found{found(1, "rbd", "p")} })
	w.until("the warning is gone", func() bool { return warning() == "" })
	w.locked(func() {
		if w.made["rbd"] != 1 || w.open["rbd"] != 1 {
			t.Errorf("%d actors were made for the pool, %d are open", w.made["rbd"], w.open["rbd"])
		}
	})
}
