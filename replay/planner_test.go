package replay

import (
	"flag"
	"os"
	"syscall"
	"testing"

	"github.com/rbdwarden/rbdwarden/ceph/journal"
)

// TestMain raises the number of random journals: a hundred, rapid's own, miss the
// rarer interleavings.
func TestMain(m *testing.M) {
	flag.Parse()
	set := false
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == "rapid.checks" })
	if !set {
		if err := flag.Set("rapid.checks", "1000"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

func TestDiverges(t *testing.T) {
	const localSize = 100
	for _, c := range []struct {
		name   string
		event  journal.Operation
		result syscall.Errno
		want   bool
	}{
		{"rollback may be half done", journal.SnapRollback{Name: "s"}, syscall.EIO, true},
		{"shrink may be half done", journal.Resize{Size: 50}, syscall.EIO, true},
		{"interrupted shrink starts again", journal.Resize{Size: 50}, syscall.ERESTART, false},
		{"grow changes no data", journal.Resize{Size: 150}, syscall.EIO, false},
		{"snapshot changes no data", journal.SnapCreate{Name: "s"}, syscall.EEXIST, false},
		{"flatten changes no data", journal.Flatten{}, syscall.ERESTART, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := (Skipped{Event: c.event, Result: c.result}).Diverges(localSize); got != c.want {
				t.Errorf("Diverges = %v, want %v", got, c.want)
			}
		})
	}
}

// TestPinnedPositionIsSmall: an operation that is pending for long costs no memory
// for what is applied behind it.
func TestPinnedPositionIsSmall(t *testing.T) {
	p := New(Config{SplayWidth: 2, StepIOs: 1})
	tid := journal.EntryTID(0)
	push := func(ev journal.Event) {
		t.Helper()
		position := journal.ObjectPosition{Object: journal.ObjectNumber(tid % 2), Entry: tid}
		if err := p.Push(Entry{Position: position, Event: ev}); err != nil {
			t.Fatal(err)
		}
		tid++
	}
	drain := func() {
		for step, ok := p.Next(); ok; step, ok = p.Next() {
			p.Safe(step.ID())
		}
	}
	push(journal.Flatten{Op: 1})
	for range 5000 {
		push(journal.AioWrite{Offset: 0, Length: 1, Data: []byte{1}})
		push(journal.AioFlush{})
		drain()
	}
	if n := len(p.safe.segments); n > 2*compactAt {
		t.Errorf("%d segments are kept", n)
	}
	if newest, ok := p.Position().Newest(); ok {
		t.Errorf("position %v passes the pending operation", newest)
	}
	push(journal.OpFinish{Op: 1})
	drain()
	newest, _ := p.Position().Newest()
	if want := (journal.ObjectPosition{Object: (journal.ObjectNumber(tid) - 1) % 2, Entry: tid - 1}); newest != want {
		t.Errorf("position %v, want %v", newest, want)
	}
}

func TestSafeTwicePanics(t *testing.T) {
	p := New(Config{SplayWidth: 1})
	if err := p.Push(Entry{Event: journal.AioFlush{}}); err != nil {
		t.Fatal(err)
	}
	step, ok := p.Next()
	if !ok {
		t.Fatal("no step")
	}
	p.Safe(step.ID())
	defer func() {
		if recover() == nil {
			t.Error("a second Safe does not panic")
		}
	}()
	p.Safe(step.ID())
}
