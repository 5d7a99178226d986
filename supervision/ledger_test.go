package supervision

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/rbdwarden/rbdwarden/report"
)

// TestLedger: ends are kept by thing and counted by level and reason, and outlive whoever
// kept them.
func TestLedger(t *testing.T) {
	var told []End
	l := NewLedger(Book{}, func(e End) { told = append(told, e) })
	panicked := End{Level: report.LevelImage, Name: "rbd/g1", Cause: Cause{What: "image rbd/vm", Why: report.WhyPanic, When: at(1)}}
	if r := l.Add(panicked); r.Restarts != 1 {
		t.Errorf("%+v", r)
	}
	before := l.Of(report.LevelImage, "rbd/g1")
	l.Add(End{Level: report.LevelImage, Name: "rbd/g1", Cause: Cause{What: "image rbd/vm", Why: report.WhyError, Class: "corrupt", When: at(2)}})
	l.Add(End{Level: report.LevelPool, Name: "rbd", Cause: Cause{What: "pool rbd", Why: report.WhyPanic, When: at(3)}})
	if before.Restarts != 1 || before.Reasons["corrupt"] != 0 {
		t.Errorf("a record that was handed out has changed: %+v", before)
	}
	if len(told) != 3 || told[0].Name != "rbd/g1" {
		t.Errorf("told %+v", told)
	}
	data, err := json.Marshal(l.Book())
	if err != nil {
		t.Fatal(err)
	}
	var book Book
	if err := json.Unmarshal(data, &book); err != nil {
		t.Fatal(err)
	}
	next := NewLedger(book, nil)
	next.Add(panicked)
	if r := next.Of(report.LevelImage, "rbd/g1"); r.Restarts != 3 || len(r.Ends) != 3 || r.Reasons["panic"] != 2 {
		t.Errorf("%+v", r)
	}
	counts := next.Counts()
	if counts[report.LevelImage]["panic"] != 2 || counts[report.LevelImage]["corrupt"] != 1 || counts[report.LevelPool]["panic"] != 1 {
		t.Errorf("%v", counts)
	}
	if r := l.Of(report.LevelImage, "rbd/g1"); r.Restarts != 2 {
		t.Error("the old ledger changed with the new one")
	}
	var none *Ledger
	if none.Add(panicked); none.Of(report.LevelImage, "rbd/g1").Restarts != 0 {
		t.Error("no ledger remembers something")
	}
}

// TestLedgerIsBounded: things that come and go do not fill the memory, and the counts stay.
func TestLedgerIsBounded(t *testing.T) {
	l := NewLedger(Book{}, nil)
	for i := range maxRecords + 5 {
		l.Add(End{Level: report.LevelImage, Name: fmt.Sprint(i), Cause: Cause{Why: report.WhyPanic, When: at(float64(i))}})
	}
	b := l.Book()
	if n := len(b.Records[report.LevelImage]); n != maxRecords || l.Of(report.LevelImage, "4").Restarts != 0 || l.Of(report.LevelImage, "5").Restarts != 1 {
		t.Errorf("%d records", n)
	}
	if b.Counts[report.LevelImage]["panic"] != maxRecords+5 {
		t.Error("what is forgotten is not counted any more")
	}
}

// TestBrief: what a new worker is told has every thing that ended, its counts, and its newest
// ends, in few bytes.
func TestBrief(t *testing.T) {
	l := NewLedger(Book{}, nil)
	for i := range 12 {
		l.Add(End{Level: report.LevelImage, Name: "a", Cause: Cause{
			Why: report.WhyPanic, When: at(float64(i)), Text: fmt.Sprint(i, strings.Repeat("x", 900)),
		}})
	}
	l.Add(End{Level: report.LevelWorker, Name: "worker 0", Cause: Cause{Why: report.WhyOOM, When: at(20)}})
	brief := l.Book().Brief()
	a := brief.Records[report.LevelImage]["a"]
	if a.Restarts != 12 || a.Reasons["panic"] != 12 || len(a.Ends) != briefEnds || !strings.HasPrefix(a.Ends[briefEnds-1].Text, "11x") {
		t.Errorf("%+v", a)
	}
	for _, e := range a.Ends {
		if len(e.Text) > briefText {
			t.Errorf("%d bytes of text", len(e.Text))
		}
	}
	if brief.Records[report.LevelWorker]["worker 0"].Last().Why != report.WhyOOM || brief.Counts != nil {
		t.Errorf("%+v", brief)
	}
	if full := l.Of(report.LevelImage, "a"); len(full.Ends) != 12 || len(full.Last().Text) < 900 {
		t.Errorf("the ledger itself was cut: %+v", full)
	}
}
