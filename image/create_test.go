package image

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/rados"
)

func TestLocalFeatures(t *testing.T) {
	usual := rbd.FeatureLayering | rbd.FeatureExclusiveLock | rbd.FeatureJournaling
	for _, c := range []struct {
		name            string
		remote          rbd.Features
		fancy, dataPool bool
		want            rbd.Features
	}{
		{"as it is", usual, false, false, usual},
		{"internal ones go", usual | rbd.FeatureOperations | rbd.FeatureMigrating | rbd.FeatureNonPrimary, false, false, usual},
		{"fast-diff comes with the object map", usual | rbd.FeatureObjectMap, false, false, usual | rbd.FeatureObjectMap | rbd.FeatureFastDiff},
		{"the remote's data pool is not ours", usual | rbd.FeatureDataPool, false, false, usual},
		{"our data pool", usual, false, true, usual | rbd.FeatureDataPool},
		{"striping as it is", usual, true, false, usual | rbd.FeatureStriping},
		{"striping that is none", usual | rbd.FeatureStriping, false, false, usual},
	} {
		if got := localFeatures(c.remote, c.fancy, c.dataPool); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// Trimming leaves the bytes before the new size and zeros after it, whatever was
// there.
func TestTrimLeavesZeros(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := world{layout: drawLayout(t), objects: make(map[ObjectNumber]*fakeObject)}
		from := uint64(rapid.IntRange(1, 100000).Draw(t, "from"))
		to := uint64(rapid.IntRange(0, int(from)).Draw(t, "to"))
		full := IO{Kind: WriteSame, Length: from, Data: []byte{1}}
		w.apply(t, from, []IO{full})

		sets := (to + w.layout.Period() - 1) / w.layout.Period()
		_, perSet := w.layout.units()
		for n := range w.objects {
			if uint64(n) >= sets*perSet {
				delete(w.objects, n)
			}
		}
		for _, p := range planTail(w.layout, to, min(sets*w.layout.Period(), from)) {
			o := w.objects[p.object]
			switch p.action(true, false, false) {
			case actionRemove:
				*o = fakeObject{}
			case actionWrite:
				for _, op := range p.ops(w.layout, true, false) {
					if err := o.apply(op); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		for i, b := range w.read(from) {
			if want := map[bool]byte{true: 1}[uint64(i) < to]; b != want {
				t.Fatalf("byte %d is %d after trimming %d to %d", i, b, from, to)
			}
		}
		for n, o := range w.objects {
			if o.exists && uint64(n) >= w.layout.ObjectCount(to) {
				t.Fatalf("object %d exists in an image of %d bytes", n, to)
			}
		}
	})
}

type instance struct {
	rados.Cluster
	id uint64
}

func (i instance) InstanceID() uint64 { return i.id }

func TestNewID(t *testing.T) {
	seen := make(map[string]bool)
	for _, instanceID := range []uint64{1, 4123, 1 << 40, ^uint64(0)} {
		for range 50 {
			id := NewID(instance{id: instanceID})
			if len(id) == 0 || len(id) > rbd.MaxImageIDLength || seen[id] {
				t.Fatalf("id %q", id)
			}
			seen[id] = true
		}
	}
}
