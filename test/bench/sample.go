package bench

import "slices"

// Side is who did the work of a sample.
type Side string

// The sides, in the order of a table's columns.
const (
	// Ours is bin/rbd-mirror of this tree.
	Ours Side = "rbd-warden"
	// Upstream is Debian's /usr/bin/rbd-mirror.
	Upstream Side = "rbd-mirror"
	// Plain is a loop in this process that reads the same bytes and does each write with an operation of its own.
	Plain Side = "plain loop"
	// Gathered is a loop that does all writes to a data object with one operation: the least that RADOS can be asked for.
	Gathered Side = "gathered loop"
)

// sides are all of them.
var sides = []Side{Ours, Upstream, Plain, Gathered}

// Sample is what one turn gave.
type Sample struct {
	Case  string `json:"case"`
	Side  Side   `json:"side"`
	Round int    `json:"round"`
	// Values are by the names of metrics.
	Values map[string]float64 `json:"values"`
	// Images are the p99 lags of all images that were written to, in milliseconds, least first.
	Images []float64 `json:"image_p99,omitempty"`
}

// Summary is the middle of a side's samples of a metric.
type Summary struct {
	Median, Least, Most float64
	Samples             int
}

// Row is one metric of a case, for every side that has it.
type Row struct {
	Case   string
	Metric Metric
	Sides  map[Side]Summary
}

// Ratio says how much less of the metric ours took than upstream's daemon, by their medians; false if one of them is missing
// or ours is nothing.
func (r Row) Ratio() (float64, bool) {
	ours, ok := r.Sides[Ours]
	theirs, also := r.Sides[Upstream]
	if !ok || !also || ours.Median <= 0 {
		return 0, false
	}
	return theirs.Median / ours.Median, true
}

// Rows are the rows of a table: cases in the order given, metrics in theirs.
func Rows(samples []Sample, cases []string) []Row {
	var rows []Row
	for _, name := range cases {
		for _, m := range metrics {
			row := Row{Case: name, Metric: m, Sides: map[Side]Summary{}}
			for _, side := range sides {
				if s, ok := summarise(samples, name, side, m.Name); ok {
					row.Sides[side] = s
				}
			}
			if len(row.Sides) > 0 {
				rows = append(rows, row)
			}
		}
	}
	return rows
}

// summarise gathers a side's samples of a metric.
func summarise(samples []Sample, name string, side Side, metric string) (Summary, bool) {
	var values []float64
	for _, s := range samples {
		if v, ok := s.Values[metric]; ok && s.Case == name && s.Side == side {
			values = append(values, v)
		}
	}
	if len(values) == 0 {
		return Summary{}, false
	}
	slices.Sort(values)
	return Summary{Median: quantile(values, 0.5), Least: values[0], Most: values[len(values)-1], Samples: len(values)}, true
}

// quantile is the value below which the share of the values is, which are in order and not none; between two of them, what is
// between them.
func quantile(values []float64, share float64) float64 {
	at := share * float64(len(values)-1)
	low := int(at)
	if low+1 >= len(values) {
		return values[len(values)-1]
	}
	return values[low] + (at-float64(low))*(values[low+1]-values[low])
}
