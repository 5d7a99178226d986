package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/actors/site"
	"github.com/rbdwarden/rbdwarden/config"
	"github.com/rbdwarden/rbdwarden/messages"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/supervision"
)

// hearing is a jury at work, without a cluster.
type hearing struct {
	*jury
	probes  chan error // what the next probes find
	probed  chan struct{}
	verdict chan string
}

func newHearing(t *testing.T, overdue func() int) *hearing {
	t.Helper()
	h := &hearing{probes: make(chan error, 10), probed: make(chan struct{}, 10), verdict: make(chan string, 10)}
	h.jury = newJury(func(context.Context) error { h.probed <- struct{}{}; return <-h.probes }, overdue,
		func(why string) { h.verdict <- why }, zerolog.Nop())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); h.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	return h
}

func none() int { return 0 }

// fail tells a failure of each.
func (h *hearing) fail(who ...string) {
	for _, w := range who {
		h.Tell(supervision.Failed{When: time.Now(), Who: w, Class: "transient", Text: "timed out"})
	}
}

// says waits for a verdict.
func (h *hearing) says(t *testing.T, want string) {
	t.Helper()
	select {
	case why := <-h.verdict:
		if !strings.Contains(why, want) {
			t.Errorf("the verdict is %q, want %q", why, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("no verdict, want %q", want)
	}
}

// TestJury: many that fail while a new connection works end the worker, once.
func TestJury(t *testing.T) {
	h := newHearing(t, none)
	h.probes <- nil
	h.fail("a", "b", "c")
	h.says(t, "a new one works: a, b, c")
	h.fail("a", "b", "c", "d")
	h.Tell(supervision.ClientFenced{When: time.Now()})
	h.Tell(supervision.LeftBehind{When: time.Now(), Who: "a", What: "Apply", Writes: true})
	time.Sleep(100 * time.Millisecond)
	if len(h.verdict) > 0 {
		t.Errorf("a second verdict: %s", <-h.verdict)
	}
}

// TestJuryAcquits: a cluster that is away, or one image, never ends a worker.
func TestJuryAcquits(t *testing.T) {
	h := newHearing(t, none)
	for range 100 {
		h.fail("a", "b")
	}
	h.probes <- syscall.ETIMEDOUT
	h.fail("c")
	select {
	case <-h.probed:
	case why := <-h.verdict:
		t.Fatalf("a verdict without a probe: %s", why)
	case <-time.After(20 * time.Second):
		t.Fatal("no probe")
	}
	h.fail("a", "b", "c")
	time.Sleep(200 * time.Millisecond)
	if len(h.verdict) > 0 || len(h.probed) > 0 {
		t.Errorf("%d more probes, verdict %v", len(h.probed), len(h.verdict))
	}
}

// TestJuryKnowsItsOwnFault: a process that has no file descriptors left, or too many calls
// that do not come back, is replaced.
func TestJuryKnowsItsOwnFault(t *testing.T) {
	h := newHearing(t, none)
	h.probes <- fmt.Errorf("connect: %w", syscall.EMFILE)
	h.fail("a", "b", "c")
	h.says(t, "this process cannot connect")
	newHearing(t, func() int { return 1000 }).says(t, "1000 operations of Ceph's library")
}

// TestProbeKnowsThatThereAreNoDescriptors: what a process without file descriptors meets is no
// sign of a cluster that is away.
func TestProbeKnowsThatThereAreNoDescriptors(t *testing.T) {
	var old, none syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	none.Max = old.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	err := probeCluster(config.Config{})(t.Context())
	if restored := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old); restored != nil {
		t.Fatal(restored)
	}
	if !errors.Is(err, syscall.EMFILE) {
		t.Errorf("%v, want EMFILE", err)
	}
	if err := spareDescriptors(); err != nil {
		t.Error(err)
	}
}

// TestJuryIsBounded: evidence that nobody weighs does not pile up.
func TestJuryIsBounded(t *testing.T) {
	j := newJury(nil, none, nil, zerolog.Nop())
	for range maxHeard + 10 {
		j.Tell(supervision.Worked{})
	}
	if len(j.heard) != maxHeard || j.lost != 10 {
		t.Errorf("%d heard, %d lost", len(j.heard), j.lost)
	}
}

// TestClassOf: a worker tells by its end's class whether it was at fault, panicked, or met an error.
func TestClassOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{escalated("x"), "escalated"},
		{fmt.Errorf("end: %w", escalated("x")), "escalated"},
		{&site.PanicError{Value: "x"}, "panic"},
		{fmt.Errorf("lost: %w", rados.Blocklisted), "fenced"},
		{syscall.ETIMEDOUT, "transient"},
		{errors.New("x"), "permanent"},
	} {
		if got := classOf(c.err); got != c.want {
			t.Errorf("%v is %s, want %s", c.err, got, c.want)
		}
	}
}

// TestInjection: only the image that is meant panics, and only so often.
func TestInjection(t *testing.T) {
	key := func(id string) messages.ImageKey {
		return messages.ImageKey{PoolKey: messages.PoolKey{Pool: "rbd", PoolID: 1}, GlobalID: id}
	}
	for _, c := range []struct {
		option string
		want   int // panics of image rbd/a, global id g
	}{
		{"", 0}, {"rbd/a", 1}, {"g", 1}, {"g=3", 3}, {"rbd/a=2", 2}, {"rbd/b", 0}, {"rbd/a=b", 0},
	} {
		i, got := newInjection(c.option), 0
		for range 10 {
			if i.For(key("g"))("rbd/a") {
				got++
			}
			if i.For(key("h"))("rbd/other") {
				t.Errorf("%q: another image panics", c.option)
			}
		}
		if got != c.want {
			t.Errorf("%q: %d panics, want %d", c.option, got, c.want)
		}
	}
}
