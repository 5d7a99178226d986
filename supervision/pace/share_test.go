package pace

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// All parts together are the whole, nobody has nothing, and no hungry one has less than
// another that is not, or than another hungry one.
func TestSharesAreTheWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Demand {
			return Demand{Use: rapid.Float64Range(0, 3).Draw(t, "use"), Hungry: rapid.Bool().Draw(t, "hungry")}
		}), 1, 9).Draw(t, "demands")
		parts, sum := Share(all), 0.0
		for i, p := range parts {
			sum += p
			if p < 1/float64(4*len(all))-1e-9 {
				t.Fatalf("%v: one of %v has %v", all, parts, p)
			}
			for k, q := range parts {
				if all[i].Hungry && q > p+1e-9 {
					t.Fatalf("%v: %d is hungry and has %v, %d has %v", all, i, p, k, q)
				}
			}
		}
		if math.Abs(sum-1) > 1e-9 {
			t.Fatalf("%v: %v are %v", all, parts, sum)
		}
	})
}

func TestShare(t *testing.T) {
	for _, c := range []struct {
		all  []Demand
		want []float64
	}{
		{[]Demand{{}}, []float64{1}},
		{[]Demand{{}, {}}, []float64{0.5, 0.5}},
		{[]Demand{{Use: 0.5, Hungry: true}, {}}, []float64{0.875, 0.125}},
		{[]Demand{{Use: 0.9, Hungry: true}, {Use: 0.2}}, []float64{0.7, 0.3}},
		{[]Demand{{Use: 0.9, Hungry: true}, {Use: 0.1, Hungry: true}}, []float64{0.5, 0.5}},
		{[]Demand{{Use: 0.6}, {Use: 0.1}}, []float64{0.85, 0.15}},
	} {
		got := Share(c.all)
		for i := range got {
			if math.Abs(got[i]-c.want[i]) > 1e-9 {
				t.Errorf("%v: %v, want %v", c.all, got, c.want)
				break
			}
		}
	}
}
