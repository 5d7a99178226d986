package pace

import "slices"

// Demand is what one of several sharers of a limit makes of it.
type Demand struct {
	// Use is what it took lately, as a part of the whole limit; Hungry: it had to wait.
	Use    float64
	Hungry bool
}

// Share divides a limit: who needs little gets what it needs and half as much again, the
// others get equal parts of the rest, and what nobody needs is for all alike. The parts
// are more than 0, and their sum is 1, so that all together keep the limit.
func Share(all []Demand) []float64 {
	parts := make([]float64, len(all))
	order := make([]int, len(all))
	// One that begins only now has something until it is seen to be hungry.
	least := 1 / float64(4*max(len(all), 1))
	want := func(i int) float64 {
		if all[i].Hungry {
			return 1
		}
		return max(1.5*all[i].Use, least)
	}
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		switch wa, wb := want(a), want(b); {
		case wa < wb:
			return -1
		case wa > wb:
			return 1
		}
		return a - b
	})
	rest := 1.0
	for n, i := range order {
		parts[i] = min(want(i), rest/float64(len(order)-n))
		rest -= parts[i]
	}
	for i := range parts {
		parts[i] += rest / float64(len(parts))
	}
	return parts
}
