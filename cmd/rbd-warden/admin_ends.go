package main

import (
	"cmp"
	"slices"

	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/report"
)

// endCount says how often something of a level has ended for a reason, since the daemon
// started.
type endCount struct {
	level, reason string
	ends          uint64
}

// reasons are those that are counted from the start, so that a counter is there before it
// counts. Others appear when they happen.
var reasons = map[string][]string{
	report.LevelImage: {
		string(report.WhyPanic), string(report.WhyLock), string(report.WhyStuck), string(report.WhyAbandoned),
		rados.Fenced.String(), rados.Corrupt.String(), rados.Permanent.String(),
	},
	report.LevelPool: {string(report.WhyPanic)},
	report.LevelWorker: {
		string(report.WhyAsked), string(report.WhyAssert), string(report.WhyEscalated), string(report.WhyExit), string(report.WhyMemory),
		string(report.WhyOOM), string(report.WhyPanic), string(report.WhySignal), string(report.WhySilent), string(report.WhySpawn),
		string(report.WhyUnready), rados.Transient.String(), rados.Fenced.String(), rados.Permanent.String(),
	},
}

// endsOf are the counts of a report, in order.
func endsOf(d report.Daemon) (list []endCount) {
	for level, of := range reasons {
		for _, reason := range of {
			list = append(list, endCount{level, reason, d.Ends[level][reason]})
		}
	}
	for level, of := range d.Ends {
		for reason, n := range of {
			if !slices.Contains(reasons[level], reason) {
				list = append(list, endCount{level, reason, n})
			}
		}
	}
	slices.SortFunc(list, func(a, b endCount) int {
		return cmp.Or(cmp.Compare(a.level, b.level), cmp.Compare(a.reason, b.reason))
	})
	return list
}

func (e endCount) counter() counter {
	return counter{name: e.level + "_" + e.reason, about: "Ends of " + e.level + "s by reason: " + e.reason, value: e.ends}
}

// endCounters are the counts as a logger has them.
func endCounters(d report.Daemon) (list []counter) {
	for _, e := range endsOf(d) {
		list = append(list, e.counter())
	}
	return list
}
