package report

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCauseString(t *testing.T) {
	for _, c := range []struct {
		cause *Cause
		want  string
	}{
		{nil, ""},
		{&Cause{Why: WhyExit, Code: 3, Text: "first\nsecond"}, "exit code 3: first"},
		{&Cause{Why: WhySignal, Signal: "9 (killed)"}, "signal: 9 (killed)"},
		{&Cause{Why: WhyOOM}, "OOM kill"},
		{&Cause{Why: WhyOOM, Limit: "/a"}, "OOM kill by the limit of /a"},
		{&Cause{Why: WhyError, Class: "permanent", Text: "no"}, "permanent error: no"},
		{&Cause{Why: WhyError, Text: "no"}, "error: no"},
		{&Cause{Why: WhyPanic, Text: "panic: x"}, "panic: panic: x"},
		{&Cause{Why: WhySilent, Text: "silent for 3s"}, "silent: silent for 3s"},
	} {
		if got := c.cause.String(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

// A report is an interface: it survives JSON, and every name in it is chosen.
func TestReportGoesThroughJSON(t *testing.T) {
	when := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	d := Daemon{PID: 1, Started: when, Taken: when, Workers: []Worker{{
		State: WorkerReady, LastCause: &Cause{Why: WhyOOM, When: when}, NextStart: when, Budget: &Budget{Used: 1, Limit: 2, Full: 3, Peak: 4, Waiting: 5},
		Pools: []Pool{{Name: "rbd", Health: HealthOK, Images: []Image{{
			Name: "vm", EntriesBehind: -1, LagSeconds: 1.5, Primary: &Position{1, 2}, Trace: []Step{{When: when, From: "a"}},
		}}}},
	}}}
	data, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	var back Daemon
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(d, back); diff != "" {
		t.Error("(-want +got)", diff)
	}
	for _, typ := range []reflect.Type{
		reflect.TypeFor[Daemon](), reflect.TypeFor[Worker](), reflect.TypeFor[Pool](), reflect.TypeFor[Image](),
		reflect.TypeFor[Cause](), reflect.TypeFor[Budget](), reflect.TypeFor[Slots](), reflect.TypeFor[Callout](), reflect.TypeFor[Replayed](), reflect.TypeFor[Peer](), reflect.TypeFor[Position](), reflect.TypeFor[Step](),
	} {
		for i := range typ.NumField() {
			name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			if name == "" || name != strings.ToLower(name) {
				t.Errorf("%s.%s has no JSON name of its own", typ.Name(), typ.Field(i).Name)
			}
		}
	}
}
