package config

import (
	"maps"
	"testing"

	"pgregory.net/rapid"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]uint64{
		"0": 0, "1": 1, "20M": 20 << 20, "20 M": 20 << 20, "20Mi": 20 << 20, "20MiB": 20 << 20, "3k": 3 << 10, "5G": 5 << 30, "7B": 7, " 8 ": 8,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "M", "-1", "1.5M", "20X", "20MB/s", "99999999999999999999", "99999999E", "iB"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q: %d", text, got)
		}
	}
}

func TestLimitOptions(t *testing.T) {
	o, err := Config{Own: Settings{"rbd_warden_replay_bytes_per_second": "20M"}}.LoadOwn()
	if err != nil || o.Warden.Limit(ReplayLimit) != 20<<20 || o.Warden.Limit(SyncLimit) != 0 {
		t.Errorf("%d, %d, %v", o.Warden.Limit(ReplayLimit), o.Warden.Limit(SyncLimit), err)
	}
	for _, k := range LimitKinds {
		if o, known := Find(k.Option()); !known || o.Type != Size || !o.Own() {
			t.Errorf("%s: %+v", k.Option(), o)
		}
	}
}

func TestLimitsOfMetadata(t *testing.T) {
	got := LimitsOf(map[string][]byte{
		"rbd_warden_replay_bytes_per_second": []byte("5M"), "rbd_warden_sync_bytes_per_second": []byte("much"), "other": []byte("1"),
	})
	if want := (ImageLimits{ReplayLimit: 5 << 20}); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := LimitsOf(nil); got != nil {
		t.Errorf("%v of nothing", got)
	}
}

// Whatever is set and cleared, of each thing and kind the last wish counts, and there is one.
func TestLimitWishes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := []LimitKey{{}, {Pool: "rbd"}, {Pool: "rbd", GlobalID: "g"}, {Pool: "rbd", Namespace: "n", GlobalID: "g"}}
		type of struct {
			LimitKey
			LimitKind
		}
		model, wishes := map[of]uint64{}, LimitWishes(nil)
		for range rapid.IntRange(0, 20).Draw(t, "steps") {
			key, kind := rapid.SampledFrom(keys).Draw(t, "key"), rapid.SampledFrom(LimitKinds).Draw(t, "kind")
			if rapid.Bool().Draw(t, "set") {
				rate := rapid.Uint64Range(0, 3).Draw(t, "rate")
				model[of{key, kind}], wishes = rate, wishes.With(LimitWish{LimitKey: key, Kind: kind, Rate: rate})
			} else {
				delete(model, of{key, kind})
				wishes = wishes.Without(key, kind)
			}
			if len(wishes) != len(model) {
				t.Fatalf("%v, want %v", wishes, model)
			}
			for o, rate := range model {
				if w, ok := wishes.Of(o.LimitKey, o.LimitKind); !ok || w.Rate != rate {
					t.Fatalf("%+v: %v, %v; want %d", o, w, ok, rate)
				}
			}
		}
	})
}
