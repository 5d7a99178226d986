package image

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/rbdwarden/rbdwarden/ceph/rbd"
)

var allStates = []rbd.ObjectState{rbd.ObjectNonexistent, rbd.ObjectExists, rbd.ObjectPending, rbd.ObjectExistsClean}

// Writing the planned ranges gives each of the objects the state that it needs, and
// changes nothing else.
func TestMapChangesTouchOnlyWhatTheyMust(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := uint64(rapid.IntRange(1, 60).Draw(t, "size"))
		before := rbd.NewObjectMap(size)
		for i := range size {
			before.Set(i, rapid.SampledFrom(allStates).Draw(t, "state"))
		}
		to := rapid.SampledFrom(allStates[:3]).Draw(t, "to")
		var objects []ObjectNumber
		chosen := make(map[uint64]bool)
		for i := range size + 3 {
			if rapid.Bool().Draw(t, "chosen") {
				objects = append(objects, ObjectNumber(i))
				chosen[i] = true
			}
		}
		after := before.Clone()
		ranges := planMapChanges(before, objects, to)
		for i, r := range ranges {
			if r.start >= r.end || r.end > size || i > 0 && r.start <= ranges[i-1].end-1 {
				t.Fatalf("ranges %+v of a map of %d", ranges, size)
			}
			after.Update(r.start, r.end, r.state, r.current)
		}
		for i := range size {
			want := before.At(i)
			if chosen[i] && mapChangeNeeded(want, to) {
				want = to
			}
			if got := after.At(i); got != want {
				t.Fatalf("object %d went from %v to %v, want %v", i, before.At(i), got, want)
			}
		}
	})
}

func TestMapChangeNeeded(t *testing.T) {
	n, e, p, c := rbd.ObjectNonexistent, rbd.ObjectExists, rbd.ObjectPending, rbd.ObjectExistsClean
	for change, want := range map[[2]rbd.ObjectState]bool{
		{n, e}: true, {e, e}: false, {p, e}: true, {c, e}: true,
		{n, p}: false, {e, p}: true, {p, p}: false, {c, p}: true,
		{n, n}: false, {e, n}: false, {p, n}: true, {c, n}: false,
	} {
		if got := mapChangeNeeded(change[0], change[1]); got != want {
			t.Errorf("%v to %v: %v", change[0], change[1], got)
		}
	}
}

func TestMapRangeSplit(t *testing.T) {
	got := mapRange{start: 5, end: 2*maxMapUpdate + 10, state: rbd.ObjectPending}.split(2*maxMapUpdate + 8)
	want := []mapRange{
		{start: 5, end: maxMapUpdate + 5, state: rbd.ObjectPending},
		{start: maxMapUpdate + 5, end: 2*maxMapUpdate + 5, state: rbd.ObjectPending},
		{start: 2*maxMapUpdate + 5, end: 2*maxMapUpdate + 8, state: rbd.ObjectPending},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(mapRange{})); diff != "" {
		t.Error(diff)
	}
	if got := (mapRange{start: 5, end: 9}).split(5); len(got) != 0 {
		t.Errorf("beyond the end: %+v", got)
	}
}

func TestSaveWhole(t *testing.T) {
	small, large := rbd.NewObjectMap(1000), rbd.NewObjectMap(5<<20)
	if saveWhole(small, maxMapRanges) || !saveWhole(small, maxMapRanges+1) || saveWhole(large, 1000) {
		t.Error("wrong choice")
	}
}
