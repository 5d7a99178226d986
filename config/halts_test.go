package config

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

func TestHalts(t *testing.T) {
	stop := func(pool, image string) Halt { return Halt{Pool: pool, GlobalID: image, Reason: "stopped"} }
	start := func(pool, image string) Halt { return Halt{Pool: pool, GlobalID: image} }
	for _, c := range []struct {
		wishes  []Halt
		length  int
		stopped string // those of a/x a/y a/ b/x /
	}{
		{nil, 0, ""},
		{[]Halt{stop("a", "x")}, 1, "a/x"},
		{[]Halt{stop("a", "x"), stop("a", "x")}, 1, "a/x"},
		{[]Halt{stop("a", "x"), start("a", "x")}, 0, ""},
		{[]Halt{stop("a", "x"), start("a", "")}, 0, ""},
		{[]Halt{stop("a", "x"), start("b", "")}, 1, "a/x"},
		{[]Halt{stop("a", "x"), stop("a", "")}, 1, "a/x a/y a/"},
		{[]Halt{stop("a", ""), start("a", "x")}, 2, "a/y a/"},
		{[]Halt{stop("a", ""), start("a", "x"), stop("a", "x")}, 1, "a/x a/y a/"},
		{[]Halt{stop("", ""), start("a", "")}, 2, "b/x /"},
		{[]Halt{stop("", ""), start("a", ""), stop("a", "y"), start("", "")}, 0, ""},
	} {
		var h Halts
		for _, w := range c.wishes {
			h = h.With(w)
		}
		got := ""
		for _, of := range [][2]string{{"a", "x"}, {"a", "y"}, {"a", ""}, {"b", "x"}, {"", ""}} {
			if reason := h.Of(of[0], "", of[1]).Reason; reason != "" {
				if reason != "stopped" {
					t.Errorf("%v: reason %q", c.wishes, reason)
				}
				got += " " + of[0] + "/" + of[1]
			}
		}
		if len(got) > 0 {
			got = got[1:]
		}
		if got != c.stopped || len(h) != c.length {
			t.Errorf("%v: stopped %q (%v), want %q", c.wishes, got, h, c.stopped)
		}
	}
}

// A namespace can be stopped by itself; a stop of the pool covers its namespaces.
func TestHaltsOfNamespaces(t *testing.T) {
	stopped := func(h Halts, namespace, image string) bool { return h.Of("a", namespace, image).Reason != "" }
	h := Halts{}.With(Halt{Pool: "a", Namespace: "n", Reason: "stopped"})
	if !stopped(h, "n", "x") || stopped(h, "", "x") || stopped(h, "m", "x") || stopped(h, "", "") {
		t.Errorf("one namespace: %v", h)
	}
	if h = h.With(Halt{Pool: "a", Reason: "stopped"}); len(h) != 1 || !stopped(h, "m", "x") {
		t.Errorf("the pool: %v", h)
	}
	if h = h.With(Halt{Pool: "a", Namespace: "n", GlobalID: "x", Reason: "paused", Pause: true}); !h.Of("a", "n", "x").Pause || h.Of("a", "n", "y").Pause {
		t.Errorf("one image paused: %v", h)
	}
	if h = h.With(Halt{Pool: "a", Namespace: "n"}); stopped(h, "n", "x") || !stopped(h, "m", "x") {
		t.Errorf("one namespace started: %v", h)
	}
}

// The short list says the same as all wishes in a row.
func TestHaltsForgetOnlyWhatIsVoid(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	names := []string{"", "p", "q"}
	for range 2000 {
		var all, short Halts
		for range rng.IntN(12) {
			w := Halt{Pool: names[rng.IntN(3)], Reason: []string{"", "stopped", "paused"}[rng.IntN(3)]}
			if w.Pool != "" {
				w.Namespace, w.GlobalID = names[rng.IntN(2)], names[rng.IntN(3)]
				w.Pause = w.Reason == "paused"
			}
			all, short = append(all, w), short.With(w)
		}
		for _, pool := range names {
			for _, namespace := range names[:2] {
				for _, image := range names {
					if pool == "" && namespace+image != "" {
						continue
					}
					a, b := all.Of(pool, namespace, image), short.Of(pool, namespace, image)
					if a.Reason != b.Reason || a.Pause != b.Pause {
						t.Fatalf("seed %d: %s/%s/%s is %v by %v, %v by %v", seed, pool, namespace, image, a, fmt.Sprint(all), b, fmt.Sprint(short))
					}
				}
			}
		}
		if len(short) > 13 {
			t.Fatalf("seed %d: %d wishes", seed, len(short))
		}
	}
}
