//go:build live

package image

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/rados"
)

// What rbd says of a created image.
func TestLiveCreate(t *testing.T) {
	for name, change := range map[string]func(*CreateSpec){
		"plain":   func(*CreateSpec) {},
		"striped": func(s *CreateSpec) { s.StripeUnit, s.StripeCount = 4096, 3 },
		"data pool": func(s *CreateSpec) {
			s.DataPool = liveDataPool
		},
		"data pool that is not here": func(s *CreateSpec) { s.DataPool = "no-such-pool" },
		"without object map": func(s *CreateSpec) {
			s.Features &^= rbd.FeatureObjectMap | rbd.FeatureFastDiff
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := setUp(t)
			spec := f.spec()
			change(&spec)
			f.create(spec)
			var info struct {
				ID              string   `json:"id"`
				Size            uint64   `json:"size"`
				Order           uint8    `json:"order"`
				Features        []string `json:"features"`
				OpFeatures      []string `json:"op_features"`
				DataPool        string   `json:"data_pool"`
				BlockNamePrefix string   `json:"block_name_prefix"`
				StripeUnit      uint64   `json:"stripe_unit"`
				StripeCount     uint64   `json:"stripe_count"`
				Mirroring       struct {
					Mode     string `json:"mode"`
					GlobalID string `json:"global_id"`
					State    string `json:"state"`
					Primary  bool   `json:"primary"`
				} `json:"mirroring"`
			}
			out := f.rbd("info", "--format", "json", livePool+"/"+spec.Name)
			if err := json.Unmarshal([]byte(out), &info); err != nil {
				t.Fatal(err)
			}
			t.Log(strings.TrimSpace(out))
			if info.ID != spec.ID || info.Size != spec.Size || info.Order != spec.Order {
				t.Errorf("info: %+v", info)
			}
			if info.Mirroring.Mode != "journal" || info.Mirroring.GlobalID != spec.GlobalID || info.Mirroring.State != "enabled" || info.Mirroring.Primary {
				t.Errorf("mirroring: %+v", info.Mirroring)
			}
			if want := map[bool]string{true: liveDataPool}[name == "data pool"]; info.DataPool != want {
				t.Errorf("data pool %q, want %q", info.DataPool, want)
			}
			if name == "striped" && (info.StripeUnit != 4096 || info.StripeCount != 3) {
				t.Errorf("striping: %+v", info)
			}
			if strings.Contains(strings.Join(info.Features, ","), "operations") {
				t.Errorf("features: %q", info.Features)
			}
			if out, err := f.try("rbd", "bench", "--io-type", "write", "--io-total", "4096", livePool+"/"+spec.Name); err == nil {
				t.Errorf("rbd wrote to a non-primary image:\n%s", out)
			}
			if name != "without object map" {
				f.checkObjectMaps(spec.Name)
			}
			// It is there: again is no error, and another id is.
			ctx := within(t, time.Minute)
			if out, err := Create(ctx, f.io, spec); err != nil || out != AlreadyDone {
				t.Errorf("again: %v, %v", out, err)
			}
			other := spec
			other.ID = NewID(f.cluster)
			var exists *ExistsError
			if _, err := Create(ctx, f.io, other); !errors.As(err, &exists) || exists.ID != spec.ID {
				t.Errorf("with another id: %v", err)
			}
		})
	}
}

// A Create killed after any number of writes is made good by the next one, with
// the same or another id, and leaves nothing behind.
func TestLiveCreateKilled(t *testing.T) {
	f := setUp(t)
	ctx := within(t, 5*time.Minute)
	for writes := int64(1); ; writes++ {
		first := f.spec()
		first.StripeUnit, first.StripeCount = 4096, 2
		_, err := Create(ctx, newMortal(f.io, writes), first)
		if err == nil {
			f.removeNow(first.ID)
			if writes < 8 {
				t.Errorf("done after %d writes already", writes)
			}
			return
		}
		second := first
		if writes%2 == 0 {
			second.ID = NewID(f.cluster)
		}
		if out, err := Create(ctx, f.io, second); err != nil || out != Done {
			t.Fatalf("killed after %d writes, then: %v, %v", writes, out, err)
		}
		f.rbd("info", livePool+"/"+second.Name)
		if second.ID != first.ID {
			if left := f.objects(first.ID); len(left) > 1 || len(left) == 1 && left[0] != rbd.IDObject(second.Name) {
				t.Errorf("killed after %d writes: left behind: %q", writes, left)
			}
		}
		f.removeNow(second.ID)
		if _, err := Name(ctx, f.io, second.ID); err == nil {
			t.Errorf("killed after %d writes: still in the directory after Remove", writes)
		}
	}
}

func (f *fixture) removeNow(id string) {
	f.t.Helper()
	if err := Remove(within(f.t, time.Minute), f.io, id, quickLock); err != nil {
		f.t.Fatal(err)
	}
}

// Somebody else's image of the same name is left alone.
func TestLiveCreateNameTaken(t *testing.T) {
	f := setUp(t)
	ctx := within(t, time.Minute)
	spec := f.spec()
	f.rbd("create", "--size", "1M", livePool+"/"+spec.Name)
	t.Cleanup(func() { f.rbd("rm", "--no-progress", livePool+"/"+spec.Name) })
	var taken *NameTakenError
	if _, err := Create(ctx, f.io, spec); !errors.As(err, &taken) || taken.Name != spec.Name {
		t.Fatalf("got %v", err)
	}
	if id, err := ID(ctx, f.io, spec.Name); err != nil || id != taken.ID {
		t.Errorf("the name leads to %q, %v; the error said %q", id, err, taken.ID)
	}
	if _, err := rados.Ask(ctx, f.io, rbd.MirroringObject, mirror.ImageGetID(spec.GlobalID)); err == nil {
		t.Error("a mirror record was left behind")
	}
}

// A Remove killed after any number of writes can be repeated, and then nothing is
// left.
func TestLiveRemoveKilled(t *testing.T) {
	f := setUp(t)
	for writes := int64(1); ; writes = nextKill(writes) {
		spec := f.spec()
		ctx := within(t, time.Minute)
		if _, err := Create(ctx, f.io, spec); err != nil {
			t.Fatal(err)
		}
		im := f.openImage(f.io, spec.ID)
		for i := range uint64(2) {
			if _, err := im.Apply(ctx, []IO{{Kind: Write, Offset: i << 18, Length: 5, Data: []byte("abcde")}}); err != nil {
				t.Fatal(err)
			}
			if _, _, err := im.SnapCreate(ctx, nil, string(rune('a'+i))); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := im.SnapProtect(ctx, nil, "a"); err != nil {
			t.Fatal(err)
		}
		f.close(im)
		err := Remove(ctx, newMortal(f.io, writes), spec.ID, quickLock)
		f.removeNow(spec.ID)
		if left := f.objects(spec.ID); len(left) != 0 {
			t.Fatalf("killed after %d writes: left behind: %q", writes, left)
		}
		if err == nil {
			if writes < 20 {
				t.Errorf("done after %d writes already", writes)
			}
			return
		}
	}
}
