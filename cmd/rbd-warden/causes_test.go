package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/admin"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/supervision"
)

// pretendToBeAtFault is a worker in which an image ends again and again; it says what it knows
// of the lives before, and then finds itself at fault.
func pretendToBeAtFault(s seams) error {
	record := s.Book.Records[report.LevelImage]["rbd/g"]
	s.Ended(supervision.End{Level: report.LevelImage, Name: "rbd/g", Cause: report.Cause{
		What: "image rbd/vm-1", Why: report.WhyPanic, When: time.Now(),
		Text: "boom",
	}})
	s.Ready()
	return escalated(fmt.Sprintf("the image was restarted %d times, workers ended %d times", record.Restarts, len(pastOf(s).Ends)))
}

// TestCausesOutliveWorkers: what ends in a worker is known to the daemon when the worker is
// gone, and to the workers after it; every view has it.
func TestCausesOutliveWorkers(t *testing.T) {
	p := newPlace(t, "rbd warden workers = 1\nrbd warden restart intensity = 2\n")
	p.foreground("-f", "--test-work", "escalate")
	d, w := p.ps("parked", func(_ report.Daemon, w report.Worker) bool { return w.State == report.WorkerParked })
	if w.Restarts != 2 || w.LastCause.Why != report.WhyEscalated || w.LastCause.Text != "the image was restarted 2 times, workers ended 2 times" {
		t.Errorf("worker %+v", w)
	}
	if len(w.History) != 3 || w.History[0].Why != report.WhyEscalated {
		t.Errorf("history %+v", w.History)
	}
	if d.Ends[report.LevelImage]["panic"] != 3 || d.Ends[report.LevelWorker]["escalated"] != 3 {
		t.Errorf("ends %+v", d.Ends)
	}
	text, _ := p.output("rbd-warden", "ps", "--history")
	for _, want := range []string{"last end, ", "escalated: the image was restarted 2 times", ", of worker 0: escalated: the image was restarted 0 times"} {
		if !strings.Contains(text, want) {
			t.Errorf("ps lacks %q:\n%s", want, text)
		}
	}
}

// TestEndCounters: each kind of end has a counter from the start, by level and reason.
func TestEndCounters(t *testing.T) {
	d := report.Daemon{Ends: map[string]map[string]uint64{
		report.LevelImage: {"panic": 2, "new": 1}, report.LevelWorker: {"oom": 1},
	}}
	got := map[string]uint64{}
	for _, l := range loggers(d) {
		if l.name == "rbd_warden_ends" {
			for _, c := range l.counters {
				got[c.name] = c.value
			}
		}
	}
	for name, want := range map[string]uint64{"image_panic": 2, "image_new": 1, "worker_oom": 1, "worker_signal": 0, "pool_panic": 0} {
		if n, ok := got[name]; !ok || n != want {
			t.Errorf("%s: %d (%v), want %d", name, n, ok, want)
		}
	}
	var labeled struct {
		Ends []struct {
			Labels   struct{ Level, Reason string }
			Counters struct{ Ends uint64 }
		} `json:"rbd_warden_ends"`
	}
	v := labeledCounters(d, func(c counter, v *admin.Value) { c.put(v) })
	if err := json.Unmarshal(admin.Render(v, admin.JSON), &labeled); err != nil {
		t.Fatal(err)
	}
	killed := false
	for _, e := range labeled.Ends {
		killed = killed || e.Labels.Level == report.LevelWorker && e.Labels.Reason == "oom" && e.Counters.Ends == 1
	}
	if !killed {
		t.Errorf("labeled: %+v", labeled)
	}
}
