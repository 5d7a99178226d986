package supervision

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func transient(sec float64, who string) Failed {
	return Failed{When: at(sec), Who: who, Class: "transient", Text: "write rbd/o on cluster here: connection timed out"}
}

// repeat is the same evidence n times, a second apart.
func repeat(n int, from float64, f func(sec float64) Evidence) []Evidence {
	var list []Evidence
	for i := range n {
		list = append(list, f(from+float64(i)))
	}
	return list
}

func stories(parts ...any) []Evidence {
	var list []Evidence
	for _, p := range parts {
		switch p := p.(type) {
		case []Evidence:
			list = append(list, p...)
		case Evidence:
			list = append(list, p)
		}
	}
	return list
}

// TestEscalation: only what points at the worker replaces it.
func TestEscalation(t *testing.T) {
	works := func(sec float64) Probed { return Probed{When: at(sec), Works: true} }
	away := func(sec float64) Probed { return Probed{When: at(sec), Text: "timed out"} }
	for _, c := range []struct {
		name string
		told []Evidence
		want string // what the last piece gives: "", "probe", or a part of why
	}{
		{"nothing is told of errors of the peer, of a corrupt journal or a poison event: the worker is fine", nil, ""},
		{"one image fails for ever", repeat(500, 0, func(s float64) Evidence { return transient(s, "a") }), ""},
		{"two do", stories(transient(0, "a"), transient(1, "b"), transient(2, "a"), transient(3, "b")), ""},
		{"three do, and nobody works: look whether it is us", stories(transient(0, "a"), transient(1, "b"), transient(2, "c")), "probe"},
		{"it is us", stories(transient(0, "a"), transient(1, "b"), transient(2, "c"), works(3)),
			"the connection to the local cluster is broken, while a new one works: a, b, c; write rbd/o on cluster here: connection timed out"},
		{"the cluster is away for everybody", stories(transient(0, "a"), transient(1, "b"), transient(2, "c"), away(3)), ""},
		{"away, then asked again, not sooner than the rules say", stories(transient(0, "a"), transient(1, "b"), transient(2, "c"), away(3), transient(4, "d")), ""},
		{"away, asked again, and now it is us", stories(transient(0, "a"), transient(1, "b"), transient(2, "c"), away(3), transient(13, "d"), works(14)), "broken"},
		{"no second probe while one is under way", stories(transient(0, "a"), transient(1, "b"), transient(2, "c"), transient(30, "a")), ""},
		{"another works: an OSD or two are away", stories(transient(0, "a"), transient(1, "b"), Worked{When: at(1.5), Who: "d"}, transient(2, "c"), transient(3, "e")), ""},
		{"it is the same with the third that fails", stories(transient(0, "a"), transient(1, "b"), Worked{When: at(1.5), Who: "d"}, transient(2, "c")), ""},
		{"it has mended itself while the probe was under way", stories(transient(0, "a"), transient(1, "b"), transient(2, "c"), Worked{When: at(2.5), Who: "a"}, works(3)), ""},
		{"what worked long ago proves nothing", stories(Worked{When: at(0), Who: "d"}, transient(70, "a"), transient(71, "b"), transient(72, "c")), "probe"},
		{"failures far apart are not added up", stories(transient(0, "a"), transient(70, "b"), transient(140, "c")), ""},
		{"nor are those of different classes", stories(transient(0, "a"), transient(1, "b"), Failed{When: at(2), Who: "c", Class: "permanent"}), ""},
		{"a worker with one image, whose own looks fail, too", stories(transient(0, Worker), transient(1, "a")), "probe"},
		{"its own look alone", repeat(20, 0, func(s float64) Evidence { return transient(s, Worker) }), ""},
		{"no file descriptors are left", stories(transient(0, "a"), transient(1, "b"), transient(2, "c"), Probed{When: at(3), Own: true, Text: "too many open files"}),
			"this process cannot connect to the local cluster any more: too many open files"},
		{"fenced", stories(ClientFenced{at(0), "write rbd/o: cannot send after transport endpoint shutdown"}), "this client was fenced: write"},
		{"one image stalls again and again", repeat(50, 0, func(s float64) Evidence { return Stalled{When: at(s), Who: "a"} }), ""},
		{"a start after the stall is only a look", stories(Stalled{at(1), "a", ""}, Worked{When: at(2), Who: "a"}, Stalled{at(3), "b", ""},
			Worked{When: at(4), Who: "b"}, Stalled{at(5), "c", ""}), "3 images do not get on"},
		{"one of them gets on again", stories(Stalled{at(1), "a", ""}, Worked{When: at(2), Who: "a", Done: true}, Stalled{at(3), "b", ""}, Stalled{at(5), "c", ""},
			Stalled{at(6), "d", ""}), ""},
		{"three stall, another works", stories(Worked{When: at(0), Who: "d", Done: true}, Stalled{at(1), "a", ""}, Stalled{at(2), "b", ""}, Stalled{at(3), "c", ""}), ""},
		{"all stall", stories(Stalled{at(1), "a", ""}, Stalled{at(2), "b", ""}, Stalled{at(3), "c", ""}, Stalled{at(4), "d", ""}), ""}, // at c already
		{"three stall and nobody works", stories(Stalled{at(1), "a", ""}, Stalled{at(2), "b", ""}, Stalled{at(3), "c", ""}), "3 images do not get on, and none does: a, b, c"},
		{"a write does not end: its image has no other way on", stories(LeftBehind{When: at(0), Who: "a", What: "Apply", Writes: true}), "Apply of a does not end and may still write"},
		{"that image cost three workers already: the others are not to suffer for it", stories(LeftBehind{When: at(0), Who: "a", What: "Apply", Writes: true, Before: 3}), ""},
		{"reads do not end, of one image", repeat(50, 0, func(s float64) Evidence { return LeftBehind{When: at(s), Who: "a", What: "ReadEntries"} }), ""},
		{"a few reads of many images do not end", repeat(8, 0, func(s float64) Evidence { return LeftBehind{When: at(s), Who: fmt.Sprint(s), What: "ReadEntries"} }), ""},
		{"too many do not", repeat(9, 0, func(s float64) Evidence { return LeftBehind{When: at(s), Who: fmt.Sprint(s), What: "ReadEntries"} }), "9 operations do not end, of 0, 1, 2 and 6 more"},
		{"some ended after all", stories(
			repeat(8, 0, func(s float64) Evidence { return LeftBehind{When: at(s), Who: fmt.Sprint(s), What: "ReadEntries"} }),
			CameBack{When: at(9), Who: "3"}, LeftBehind{When: at(10), Who: "x", What: "ReadEntries"}), ""},
		{"some calls of the library are late", stories(Overdue{at(0), 16}), ""},
		{"too many calls of the library never return", stories(Overdue{at(0), 3}, Overdue{at(10), 17}), "17 operations of Ceph's library"},
		{"once is enough", stories(Overdue{at(0), 17}, Overdue{at(10), 17}), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := NewEscalation(DefaultEscalation)
			var last Judgement
			for i, ev := range c.told {
				last = e.Weigh(ev)
				if i < len(c.told)-1 && last.Escalate && c.want != "" {
					t.Fatalf("escalated early, at %+v: %s", ev, last.Why)
				}
			}
			switch {
			case c.want == "probe":
				if !last.Probe || last.Escalate {
					t.Errorf("got %+v, want a probe", last)
				}
			case c.want == "":
				if last != (Judgement{}) {
					t.Errorf("got %+v, want nothing", last)
				}
			case !last.Escalate || !strings.Contains(last.Why, c.want):
				t.Errorf("got %+v, want an escalation: %s", last, c.want)
			}
		})
	}
}

// TestOneImageIsNeverEnough: whatever one image tells that can be mended within this
// process, in whatever order, no other image pays for it.
func TestOneImageIsNeverEnough(t *testing.T) {
	e := NewEscalation(DefaultEscalation)
	for i := range 1000 {
		now := t0.Add(time.Duration(i) * 100 * time.Millisecond)
		for _, ev := range []Evidence{
			Failed{When: now, Who: "a", Class: "transient"}, Failed{When: now, Who: "a", Class: "permanent"}, Stalled{When: now, Who: "a"},
			LeftBehind{When: now, Who: "a", What: "ReadEntries"}, LeftBehind{When: now, Who: "a", What: "Apply", Writes: true, Before: 3},
			Probed{When: now, Works: true}, Probed{When: now, Own: true},
		} {
			if j := e.Weigh(ev); j.Escalate || j.Probe {
				t.Fatalf("%+v gives %+v", ev, j)
			}
		}
	}
}
