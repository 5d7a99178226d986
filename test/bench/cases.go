package bench

import (
	"fmt"
	"slices"
	"strings"
)

// Case is one kind of work.
type Case struct {
	Name, About string
	// Sides who do it. Each gets a turn in each round.
	Sides []Side
	// Turn does it for r.Side and fills r.Values.
	Turn func(r *Round)
}

// Scale is how much work a case is.
type Scale string

const (
	// Small takes seconds a turn: for trying things out.
	Small Scale = "small"
	// Full is what docs/benchmarks.md tells of.
	Full Scale = "full"
)

// of is the amount for the scale.
func (s Scale) of(small, full int) int {
	if s == Full {
		return full
	}
	return small
}

// Cases are all cases, in the order in which they run.
func Cases() []Case {
	return slices.Concat(drainCases(), lagCases(), syncCases(), idleCases(), failoverCases())
}

// Select answers the cases that a list of names picks: "drain" all of "drain/...", "" or "all" every one, "none" none: then
// only table and plots are made of the records that there are.
func Select(cases []Case, list string) ([]Case, error) {
	if list == "none" {
		return nil, nil
	}
	if list == "" || list == "all" {
		return cases, nil
	}
	var picked []Case
	words := strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
	for _, word := range words {
		if !slices.ContainsFunc(cases, func(c Case) bool { return c.is(word) }) {
			return nil, fmt.Errorf("no case %q; there are %s", word, strings.Join(names(cases), ", "))
		}
	}
	for _, c := range cases {
		if slices.ContainsFunc(words, c.is) {
			picked = append(picked, c)
		}
	}
	return picked, nil
}

// is says whether a word names the case or its group.
func (c Case) is(word string) bool {
	return c.Name == word || strings.HasPrefix(c.Name, word+"/")
}

// names are the cases' names.
func names(cases []Case) []string {
	all := make([]string, 0, len(cases))
	for _, c := range cases {
		all = append(all, c.Name)
	}
	return all
}

// order is the order of the turns in a round: every other one the other way round, so that nobody always comes first.
func order(all []Side, round int) []Side {
	turns := slices.Clone(all)
	if round%2 == 1 {
		slices.Reverse(turns)
	}
	return turns
}
