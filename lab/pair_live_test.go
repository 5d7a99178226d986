//go:build live

package lab

import (
	"encoding/json"
	"testing"
)

func TestPairMirrorsAPoolBothWays(t *testing.T) {
	pair, err := StartPair(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer pair.Stop()
	if err := pair.MirrorPool(t.Context(), "vms", PoolMode); err != nil {
		t.Fatal(err)
	}
	for c, peer := range map[*Cluster]string{pair.Primary: pair.Secondary.Name(), pair.Secondary: pair.Primary.Name()} {
		out, err := c.CLI(t.Context(), "rbd", "mirror", "pool", "info", "--format", "json", "vms")
		if err != nil {
			t.Fatal(err)
		}
		var info struct {
			Mode  string `json:"mode"`
			Peers []struct {
				Site string `json:"site_name"`
			} `json:"peers"`
		}
		if err := json.Unmarshal([]byte(out), &info); err != nil {
			t.Fatal(err)
		}
		if info.Mode != "pool" || len(info.Peers) != 1 || info.Peers[0].Site != peer {
			t.Errorf("%s: %s", c.Name(), out)
		}
	}
	if err := pair.Secondary.AddDaemonUser(t.Context()); err != nil {
		t.Errorf("user that exists: %v", err)
	}
}
