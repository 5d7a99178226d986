package main

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/cluster/coordinator"
	"github.com/rbdwarden/rbdwarden/cluster/membership"
	"github.com/rbdwarden/rbdwarden/report"
)

// Loads are rates between two looks, smoothed; a new actor counts from nothing; what idles is not told.
func TestLoadMeter(t *testing.T) {
	var m loadMeter
	at := time.Unix(1000, 0)
	look := func(after time.Duration, bytes, idle uint64) float64 {
		at = at.Add(after)
		m.look(at, []report.Pool{{Name: "rbd", Images: []report.Image{
			{Pool: "rbd", Namespace: "ns", GlobalID: "g", Replayed: report.Replayed{Bytes: bytes}},
			{Pool: "rbd", Namespace: "ns", GlobalID: "idle", Replayed: report.Replayed{Entries: idle}},
		}}})
		if l := m.loads("rbd"); len(l["ns"]) > 1 || len(l) > 1 || len(m.loads("other")) > 0 {
			t.Errorf("%v", l)
		}
		return m.loads("rbd")["ns"]["g"]
	}
	const mib = 1 << 20
	for n, c := range []struct {
		after time.Duration
		bytes uint64
		want  float64
	}{
		{0, 500 * mib, 0}, // what was before is of no time that is known
		{10 * time.Second, 600 * mib, 10 * mib},
		{time.Second, 700 * mib, 10 * mib}, // too soon
		{59 * time.Second, 600 * mib, 10 * mib * math.Exp(-1)},
		{time.Minute, 30 * mib, 10*mib*math.Exp(-2) + 0.5*mib*(1-math.Exp(-1))}, // a new actor
	} {
		if got := look(c.after, c.bytes, uint64(n)); math.Abs(got-c.want) > 1e-3*mib && c.want > 0 || c.want == 0 && got != 0 {
			t.Errorf("look %d: %v, want %v", n, got, c.want)
		}
	}
}

// The leader hears the loads of all members that answer, its own among them.
func TestMembersTellTheirLoads(t *testing.T) {
	a, b, hung := newColleague(t, "11", "north", 1, 0), newColleague(t, "21", "south", 2, 0), newColleague(t, "31", "west", 3, 0)
	view := membership.View{Members: []membership.Member{a.member, b.member, hung.member}}
	for _, c := range []*colleague{a, b, hung} {
		c.changed(7, view)
	}
	for _, c := range []*colleague{a, b} {
		c.network.measure = func(pool int64) (coordinator.Loads, error) {
			return coordinator.Loads{"": {c.self: float64(pool)}, "ns": {"x": 1}}, nil
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	said := a.loadsOf(ctx, 7, []string{"11", "21", "31", "41"})
	if len(said) != 2 || said["11"][""]["11"] != 7 || said["21"][""]["21"] != 7 || said["21"]["ns"]["x"] != 1 {
		t.Errorf("%v", said)
	}
}
