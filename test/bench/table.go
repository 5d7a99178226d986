package bench

import (
	"fmt"
	"math"
	"strings"
)

// Table draws rows as a Markdown table, which reads well in a terminal, too.
func Table(rows []Row) string {
	head := []string{"case", "measure", "unit"}
	for _, side := range sides {
		head = append(head, string(side))
	}
	lines := [][]string{append(head, "ratio", "least–most ours", "least–most theirs", "rounds")}
	last := ""
	for _, r := range rows {
		name := r.Case
		if name == last {
			name = ""
		}
		last = r.Case
		line := []string{name, r.Metric.Name, r.Metric.Unit}
		rounds := 0
		for _, side := range sides {
			s, ok := r.Sides[side]
			line = append(line, shown(s.Median, ok))
			rounds = max(rounds, s.Samples)
		}
		ratio, ok := r.Ratio()
		line = append(line, shown(ratio, ok), r.span(Ours), r.span(Upstream), fmt.Sprint(rounds))
		lines = append(lines, line)
	}
	return markdown(lines)
}

// span is the least and the most of a side's samples.
func (r Row) span(side Side) string {
	s, ok := r.Sides[side]
	if !ok || s.Samples < 2 {
		return ""
	}
	return shown(s.Least, true) + "–" + shown(s.Most, true)
}

// shown is a number with three digits that count.
func shown(v float64, ok bool) string {
	if !ok {
		return ""
	}
	if v == 0 {
		return "0"
	}
	digits := max(0, 2-int(math.Floor(math.Log10(math.Abs(v)))))
	return fmt.Sprintf("%.*f", digits, v)
}

// markdown draws lines of cells, the first being the head, in columns.
func markdown(lines [][]string) string {
	widths := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	var b strings.Builder
	for n, line := range lines {
		for i, cell := range line {
			fmt.Fprintf(&b, "| %s%s ", cell, strings.Repeat(" ", widths[i]-len([]rune(cell))))
		}
		b.WriteString("|\n")
		if n == 0 {
			for _, w := range widths {
				fmt.Fprintf(&b, "|%s", strings.Repeat("-", w+2))
			}
			b.WriteString("|\n")
		}
	}
	return b.String()
}
