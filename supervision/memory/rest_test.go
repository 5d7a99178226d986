package memory

import (
	"runtime"
	"testing"
	"time"
)

// A rest begins after some calm looks in a row, and ends with the first that is not.
func TestRest(t *testing.T) {
	var (
		r     rest
		at    = time.Unix(1000, 0)
		bytes = uint64(1 << 30) // before the first look
	)
	for n, step := range []struct {
		after     time.Duration
		allocates uint64
		want      turn
	}{
		{restLook, 0, restGoesOn}, // the first look compares with nothing
		{restLook, 0, restGoesOn},
		{restLook, restRate, restGoesOn},
		{restLook, 3 * restRate, restGoesOn}, // work: all begins anew
		{restLook, 0, restGoesOn},
		{restLook, 0, restGoesOn},
		{restLook, 0, restGoesOn},
		{restLook, 0, restGoesOn},
		{restLook, 2*restRate - 1, restBegins},
		{restLook, 0, restGoesOn}, // at rest
		{3 * restLook, 5 * restRate, restGoesOn},
		{restLook, 2 * restRate, restEnds},
		{restLook, 9 * restRate, restGoesOn}, // at work
	} {
		at, bytes = at.Add(step.after), bytes+step.allocates
		if got := r.look(at, bytes); got != step.want {
			t.Fatalf("look %d: %v, want %v", n, got, step.want)
		}
	}
}

// A glance ends a rest as soon as there is work, and counts for nothing else.
func TestGlance(t *testing.T) {
	at := time.Unix(1000, 0)
	r := rest{}
	for range restCalm {
		if got := r.look(at, 0); got != restGoesOn {
			t.Fatalf("%v", got)
		}
		if got := r.glance(at.Add(time.Millisecond), 100); got != restGoesOn {
			t.Fatalf("a glance at work: %v", got)
		}
		at = at.Add(restLook)
	}
	if got := r.look(at, 0); got != restBegins {
		t.Fatalf("%v", got)
	}
	if got := r.glance(at.Add(time.Second), restRate-1); got != restGoesOn {
		t.Fatalf("little: %v", got)
	}
	if got := r.glance(at.Add(time.Second), restRate); got != restEnds {
		t.Fatalf("much: %v", got)
	}
	if got := r.glance(at.Add(time.Second), 9*restRate); got != restGoesOn {
		t.Fatalf("at work already: %v", got)
	}
}

// Work ends the rest of a process with its first collection.
func TestCollections(t *testing.T) {
	c := collections()
	for n := range 3 {
		runtime.GC()
		select {
		case <-c:
		case <-time.After(time.Minute):
			t.Fatalf("collection %d is not seen", n)
		}
	}
}
