package report

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func end(second int, why Why, text string) Cause {
	return Cause{What: "image rbd/vm", Why: why, When: noon.Add(time.Duration(second) * time.Second), Text: text}
}

// TestRecord: each end is counted, the newest are kept in order, and equal ones in a row
// are one line that says how many.
func TestRecord(t *testing.T) {
	var r Record
	if r.Last() != nil {
		t.Error("nothing has ended, and there is a last end")
	}
	r.Add(end(0, WhyPanic, "index out of range\nstack"), false)
	r.Add(Cause{What: "image rbd/vm", Why: WhyError, Class: "corrupt", When: noon.Add(time.Second), Text: "bad entry"}, false)
	handed := r.Ends
	for i := range 5 {
		r.Add(Cause{What: "image rbd/vm", Why: WhyError, Class: "corrupt", When: noon.Add(time.Duration(2+i) * time.Second), Text: "bad entry"}, true)
	}
	if handed[1].Times != 0 {
		t.Error("a list that was handed out has changed")
	}
	last := r.Last()
	if len(r.Ends) != 2 || r.Restarts != 2 || last.Times != 6 || !last.First.Equal(noon.Add(time.Second)) || !last.When.Equal(noon.Add(6*time.Second)) {
		t.Errorf("got %d restarts, ends %+v", r.Restarts, r.Ends)
	}
	if r.Reasons["panic"] != 1 || r.Reasons["corrupt"] != 6 {
		t.Errorf("reasons %v", r.Reasons)
	}
	if s := last.String(); s != "corrupt error: bad entry (6 times since 2026-01-02 12:00:01 UTC)" {
		t.Error(s)
	}
	for i := range 3 * HistoryLength {
		r.Add(end(100+i, WhySignal, fmt.Sprint("number ", i)), false)
	}
	if len(r.Ends) != HistoryLength || r.Ends[0].Text != fmt.Sprint("number ", 2*HistoryLength) || r.Restarts != 2+3*HistoryLength {
		t.Errorf("%d ends from %q on, %d restarts", len(r.Ends), r.Ends[0].Text, r.Restarts)
	}
	r.Add(end(1000, WhyPanic, strings.Repeat("x", 1<<20)), false)
	if n := len(r.Last().Text); n > MaxRemembered {
		t.Errorf("%d bytes of text are remembered", n)
	}
}

// TestRecordPlus: what a thing is part of takes it along, in the order of time.
func TestRecordPlus(t *testing.T) {
	var image, worker Record
	image.Add(end(0, WhyPanic, "a"), false)
	image.Add(end(10, WhyPanic, "c"), false)
	worker.Add(Cause{What: "worker 0", Why: WhyOOM, When: noon.Add(5 * time.Second)}, false)
	sum := image.Plus(worker)
	if sum.Restarts != 3 || len(sum.Ends) != 3 || sum.Ends[1].Why != WhyOOM || sum.Last().Text != "c" || sum.Reasons["oom"] != 1 || sum.Reasons["panic"] != 2 {
		t.Errorf("%+v", sum)
	}
	if image.Restarts != 2 || image.Reasons["oom"] != 0 || len(image.Ends) != 2 {
		t.Errorf("adding changed the image's own record: %+v", image)
	}
	data, err := json.Marshal(sum)
	var back Record
	if err != nil || json.Unmarshal(data, &back) != nil || back.Restarts != 3 || back.Last().Text != "c" {
		t.Errorf("%s, %v", data, err)
	}
}
