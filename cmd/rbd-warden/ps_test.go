package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rbdwarden/rbdwarden/report"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// psSample is a daemon with two workers, one of them dead, and images in every kind of
// state, many of them well.
func psSample(many int) report.Daemon {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	d := report.Daemon{
		Version: "1", Host: "north", PID: 4711, Cluster: "ceph", Entity: "client.rbd-mirror.a", Started: now.Add(-time.Hour), Taken: now,
		Workers: []report.Worker{
			{Index: 0, PID: 4712, State: report.WorkerReady, Since: now.Add(-time.Hour), RSS: 200 << 20, LastTold: now,
				Memory: &report.Memory{Limit: 1 << 30, Group: "/rbd-warden/0", Current: 210 << 20, Peak: 300 << 20}},
			{Index: 1, State: report.WorkerWaiting, Since: now.Add(-2 * time.Second), Restarts: 3, NextStart: now.Add(3 * time.Second), LastTold: now.Add(-4 * time.Second),
				LastCause: &report.Cause{What: "worker 1", Why: report.WhyOOM, Limit: "host", When: now.Add(-2 * time.Second)}},
		},
	}
	image := func(name, state, step string) report.Image {
		return report.Image{Pool: "rbd", Name: name, GlobalID: "g-" + name, State: state, Step: step, Description: state, EntriesBehind: -1, LagSeconds: -1}
	}
	var images []report.Image
	for i := range many {
		well := image(fmt.Sprintf("vm-%04d", i), "replaying", "REPLAYING")
		well.Description, well.EntriesBehind, well.LagSeconds, well.BytesPerSecond = `replaying, {"lag_seconds":0}`, int64(i), float64(i)/10, 1<<20
		images = append(images, well)
	}
	broken, parked, paused, stopped, copied := image("broken", "error", stoppedStep), image("parked", "error", ""), image("paused", "stopped", pausedStep),
		image("stopped", "stopped", stoppedStep), image("copied", "syncing", "IMAGE_SYNC")
	broken.Description, broken.NextStart, broken.Restarts = "split-brain", now.Add(8*time.Second), 2
	broken.LastCause = &report.Cause{What: "image rbd/broken", Why: report.WhyError, Class: "permanent", Text: "bad entry", When: now.Add(-time.Minute)}
	broken.History = []report.Cause{
		{What: "worker 0", Why: report.WhySignal, Signal: "6 (aborted)", Text: "C++ abort, without a word on stderr", When: now.Add(-time.Hour)}, *broken.LastCause,
	}
	slow := image("slow", "replaying", "REPLAYING")
	slow.StalledSeconds, slow.EntriesBehind = 95.5, 7
	parked.Parked, paused.Paused, stopped.Stopped = true, true, true
	parked.LastCause = &report.Cause{What: "image rbd/parked", Why: report.WhyPanic, Text: "index out of range", When: now.Add(-5 * time.Second)}
	parked.Trace = []report.Step{
		{When: now.Add(-6 * time.Second), From: "START_REPLAY", To: "REPLAYING", Message: "ReplayStarted", Count: 1, Took: 12 * time.Millisecond},
		{When: now.Add(-5 * time.Second), Message: "panic", Text: "index out of range", Count: 1},
	}
	peer := report.Peer{UUID: "u", Site: "south", Reachable: true}
	d.Workers[0].Pools = []report.Pool{
		{Name: "rbd", Peer: peer, Health: report.HealthWarning, Leader: true, Images: append(images, broken, parked, paused, stopped, copied, slow)},
		{Name: "rbd", Namespace: "ns", Peer: peer, Health: report.HealthOK, Images: []report.Image{{Pool: "rbd", Namespace: "ns", Name: "db", GlobalID: "g-db", State: "replaying", Step: "REPLAYING"}}},
	}
	d.Workers[1].Pools = []report.Pool{{Name: "rbd", Peer: report.Peer{UUID: "u", Site: "south"}, Health: report.HealthError, Waits: "no answer"}}
	return d
}

// The tree as it is printed: the files in testdata are what an operator sees.
func TestPsRendering(t *testing.T) {
	for name, c := range map[string]struct {
		many int
		view view
	}{
		"few":       {3, view{trace: true, history: true}},
		"thousand":  {1000, view{}},
		"one-image": {1000, view{image: "rbd/vm-0007"}},
		"one-pool":  {3, view{pool: "rbd/ns"}},
	} {
		var out strings.Builder
		printDaemon(&out, c.view.filter(psSample(c.many)), c.view)
		text := strings.ReplaceAll(out.String(), time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC).Local().Format("2006-01-02"), "DATE")
		for _, offset := range []time.Duration{-6 * time.Second, -5 * time.Second} { // times of traces are local
			local := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC).Add(offset).Local()
			text = strings.ReplaceAll(text, local.Format("15:04:05.000"), "TIME")
		}
		file := "testdata/ps-" + name + ".txt"
		if *rewrite {
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), text); diff != "" {
			t.Errorf("-%s +now:\n%s", file, diff)
		}
	}
	var all strings.Builder
	printDaemon(&all, psSample(1000), view{all: true})
	if n := strings.Count(all.String(), "\n      vm-"); n != 1000 {
		t.Errorf("--all lists %d of 1000 images", n)
	}
}

// A frame overwrites the one before, and fits.
func TestFrames(t *testing.T) {
	if got, want := inPlace("one\ntwo äöü\nthree\nfour\n", 6, 3), toTopLeft+"one"+clearLine+"\r\ntwo äö"+clearLine+"\r\n(2 mor"+clearLine+clearBelow; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out bytes.Buffer
	n := 0
	err := watchFrames(ctx, &out, time.Millisecond, func(_ context.Context, out io.Writer) error {
		if n++; n == 4 {
			cancel()
		}
		fmt.Fprintln(out, "frame", n)
		return nil
	})
	if err != nil || out.String() != "frame 1\n\nframe 2\n\nframe 3\n\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}
