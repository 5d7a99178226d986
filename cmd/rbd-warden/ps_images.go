package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/rbdwarden/rbdwarden/report"
)

// view says what of a supervision tree is shown.
type view struct {
	all   bool   // every image, also where there are many
	trace bool   // images' last steps
	pool  string // POOL[/NAMESPACE], "" for all
	image string // name, global id, or POOL[/NAMESPACE]/IMAGE; "" for all

	history bool // the ends before the last
}

// manyShown is how many images of a pool are listed where not all are asked for.
const manyShown = 20

// filter leaves what the view is about. Workers stay, for what they say of themselves.
func (v view) filter(d report.Daemon) report.Daemon {
	if v.pool == "" && v.image == "" {
		return d
	}
	d.Workers = slices.Clone(d.Workers)
	for i := range d.Workers {
		var pools []report.Pool
		for _, p := range d.Workers[i].Pools {
			if v.pool != "" && v.pool != p.Name && v.pool != join(p.Name, p.Namespace) {
				continue
			}
			if v.image != "" {
				p.Images = slices.DeleteFunc(slices.Clone(p.Images), func(i report.Image) bool { return !v.shows(i) })
				if len(p.Images) == 0 {
					continue
				}
			}
			pools = append(pools, p)
		}
		d.Workers[i].Pools = pools
	}
	return d
}

func (v view) shows(i report.Image) bool {
	return v.image == i.Name || v.image == i.GlobalID || v.image == specOf(i)
}

// severity orders images: what somebody should look at comes first.
func severity(i report.Image) int {
	switch {
	case i.State == "error" || i.Parked || i.StalledSeconds > 0:
		return 0
	case i.Step == pausedStep || i.Stopped:
		return 3
	case i.State == "replaying":
		return 5
	case i.State == "stopped":
		return 4 // there is nothing to replay
	case i.State == "syncing":
		return 2
	}
	return 1
}

// ordered are the images of a pool, those in trouble first, then those farthest behind.
func ordered(images []report.Image) []report.Image {
	images = slices.Clone(images)
	slices.SortStableFunc(images, func(a, b report.Image) int {
		return cmp.Or(cmp.Compare(severity(a), severity(b)), cmp.Compare(b.LagSeconds, a.LagSeconds),
			cmp.Compare(nameOf(a), nameOf(b)), cmp.Compare(a.GlobalID, b.GlobalID))
	})
	return images
}

// printImages prints a pool's images: all, or where they are many those that somebody
// should look at, and a summary of the others.
func printImages(out io.Writer, now time.Time, images []report.Image, v view) {
	if len(images) == 0 {
		return
	}
	shown := ordered(images)
	var rest []report.Image
	if len(shown) > manyShown && !v.all {
		healthy := slices.IndexFunc(shown, func(i report.Image) bool { return severity(i) >= 3 })
		n := manyShown
		if healthy >= 0 {
			n = min(n, healthy)
		}
		shown, rest = shown[:n], shown[n:]
	}
	if len(shown) > 0 {
		tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintf(tw, "      IMAGE\tSTATE\tBEHIND\tLAG\tRATE\tRESTARTS\tDESCRIPTION\n")
		for _, i := range shown {
			fmt.Fprintf(tw, "      %s\t%s\t%s\t%s\t%s/s\t%d\t%s\n", nameOf(i), stateWords(i), known(i.EntriesBehind),
				lag(i.LagSeconds), bytesText(int64(i.BytesPerSecond)), i.Restarts, explain(i))
		}
		tw.Flush()
	}
	if len(rest) > 0 {
		fmt.Fprintf(out, "      %s%d %s: %s; --all lists them\n", when(len(shown) > 0, "and "), len(rest), plural(len(rest), "image"), summary(rest))
	}
	for _, i := range shown {
		printImageDetails(out, now, i, v)
	}
}

// stateWords is an image's state with what an operator or supervision did to it.
func stateWords(i report.Image) string {
	return i.State + when(i.Stopped, " by command") + when(i.Paused && i.Step == pausedStep, ", paused") +
		when(i.Paused && i.Step != pausedStep, ", to be paused") + when(i.Parked, ", parked") +
		when(i.HeldBack != "", ", held back by a limit") +
		when(i.StalledSeconds > 0, fmt.Sprintf(", no progress for %v", time.Duration(i.StalledSeconds)*time.Second))
}

func printImageDetails(out io.Writer, now time.Time, i report.Image, v view) {
	next := ""
	if i.NextStart.After(now) {
		next = "next start in " + ago(i.NextStart, now)
	}
	if i.LastCause == nil && next == "" && (!v.trace || len(i.Trace) == 0) {
		return
	}
	fmt.Fprintf(out, "      %s:%s\n", nameOf(i), when(next != "", " "+next))
	printCauses(out, "        ", now, i.LastCause, i.History, v)
	if v.trace {
		for n := range i.Trace {
			fmt.Fprintf(out, "        %s\n", stepText(i.Trace, n))
		}
	}
}

// summary counts images by state, and says how far behind they are.
func summary(images []report.Image) string {
	counts := map[string]int{}
	behind, most := int64(0), float64(0)
	for _, i := range images {
		counts[stateWords(i)]++
		behind += max(0, i.EntriesBehind)
		most = max(most, i.LagSeconds)
	}
	var parts []string
	for _, words := range sortedBy(counts) {
		parts = append(parts, fmt.Sprintf("%d %s", counts[words], words))
	}
	return fmt.Sprintf("%s; %d entries behind, lag at most %s", strings.Join(parts, "; "), behind, lag(most))
}
