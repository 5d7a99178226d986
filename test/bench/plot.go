package bench

import (
	"fmt"
	"math"
	"strings"
)

// Plot is a figure of horizontal bars on a logarithmic scale: for each line a bar of ours and one of upstream's. It is drawn as
// SVG by hand: two kinds of shapes and text need no library.
type Plot struct {
	Title string
	Rows  []Row
}

// colours of the sides' bars.
var colours = map[Side]string{Ours: "#1b7837", Upstream: "#b2182b", Plain: "#bbbbbb", Gathered: "#888888"}

// measures in pixels.
const (
	plotWidth, labelWidth, rightWidth = 860, 230, 130
	barHeight, rowGap, headHeight     = 13, 9, 56
)

// plots picks what is worth a figure from rows.
func plots(rows []Row) map[string]Plot {
	pick := func(title string, metrics ...string) Plot {
		p := Plot{Title: title}
		for _, r := range rows {
			for _, m := range metrics {
				if r.Metric.Name == m {
					p.Rows = append(p.Rows, r)
				}
			}
		}
		return p
	}
	all := map[string]Plot{
		"seconds": pick("Time (s)", "seconds", "bootstrap"),
		"lag":     pick("Lag of a write (ms)", "p50", "p99"),
		"cpu":     pick("Processor time of the daemon (s)", "cpu"),
		"osd":     pick("Operations on the secondary's OSD for 1000 writes", "local_ops"),
		"rest":    pick("At rest: resident MiB, % of a core; after a burst: resident MiB", "idle_rss", "idle_cpu", "burst_rss"),
	}
	for name, p := range all {
		if len(p.Rows) == 0 {
			delete(all, name)
		}
	}
	return all
}

// SVG draws the plot.
func (p Plot) SVG() string {
	least, most := math.Inf(1), 0.0
	height := headHeight
	for _, r := range p.Rows {
		for _, s := range r.Sides {
			if s.Median > 0 {
				least, most = min(least, s.Median), max(most, s.Median)
			}
		}
		height += len(r.Sides)*barHeight + rowGap
	}
	low, high := math.Floor(math.Log10(least)), math.Ceil(math.Log10(most))
	if high <= low || math.IsInf(low, 0) || math.IsNaN(low) {
		low, high = 0, 1
	}
	room := float64(plotWidth - labelWidth - rightWidth)
	at := func(v float64) float64 { return labelWidth + room*(math.Log10(v)-low)/(high-low) }

	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">`+"\n", plotWidth, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", plotWidth, height)
	fmt.Fprintf(&b, `<text x="8" y="18" font-size="14" font-weight="bold">%s</text>`+"\n", escape(p.Title))
	x := 8
	for _, side := range sides {
		fmt.Fprintf(&b, `<rect x="%d" y="28" width="10" height="10" fill="%s"/><text x="%d" y="37">%s</text>`+"\n", x, colours[side], x+14, side)
		x += 110
	}
	for e := low; e <= high; e++ {
		fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#dddddd"/>`, at(math.Pow(10, e)), at(math.Pow(10, e)), headHeight-4, height-4)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle" fill="#666666">%g</text>`+"\n", at(math.Pow(10, e)), headHeight-7, math.Pow(10, e))
	}
	y := headHeight
	for _, r := range p.Rows {
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", labelWidth-6, y+len(r.Sides)*barHeight/2+4, escape(r.Case+" "+r.Metric.Name))
		for _, side := range sides {
			s, ok := r.Sides[side]
			if !ok {
				continue
			}
			end := float64(labelWidth)
			if s.Median > 0 {
				end = max(at(s.Median), labelWidth+1)
			}
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, labelWidth, y, end-labelWidth, barHeight-2, colours[side])
			fmt.Fprintf(&b, `<text x="%.1f" y="%d">%s%s</text>`+"\n", end+4, y+10, shown(s.Median, true), r.times(side))
			y += barHeight
		}
		y += rowGap
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// times says, beside ours, how many times more theirs is.
func (r Row) times(side Side) string {
	ratio, ok := r.Ratio()
	if side != Ours || !ok {
		return ""
	}
	return fmt.Sprintf(" (÷ %s)", shown(ratio, true))
}

// escape makes text fit for XML.
func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}
