package coordinator

import (
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/cluster/imagemap"
	"github.com/rbdwarden/rbdwarden/cluster/membership"
)

// An image that was given to us while the map was being read waits until the others have heard of the newest state
// of the map that it may be from.
func TestAGainWaitsForTheNewestEpoch(t *testing.T) {
	now := time.Now()
	p := portion{self: "1", handover: time.Hour}
	p.refresh(imagemap.Map{Epoch: 2, Newest: 3, Images: map[string]imagemap.Entry{"a": {Owner: "1"}}}, nil, now)
	said := func(epoch string) membership.View {
		return membership.View{Members: []membership.Member{{ID: "1"}, {ID: "2", Extra: map[string]string{extraApplied: epoch}}}}
	}
	for _, c := range []struct {
		epoch   string
		waiting int
	}{{"2", 1}, {"3", 0}} {
		if _, waiting := p.clear(said(c.epoch), "", now); waiting != c.waiting {
			t.Errorf("the other has applied epoch %s: %d wait, want %d", c.epoch, waiting, c.waiting)
		}
	}
}
