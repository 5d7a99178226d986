package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/rados"
)

// tailTest is a journal of width 2 with one tag, a registered peer, and its tailer.
type tailTest struct {
	t    *testing.T
	io   *fakeIO
	j    *Journal
	tail *Tailer
	now  time.Time
}

func newTailTest(t *testing.T, cfg TailConfig) *tailTest {
	t.Helper()
	return newWideTailTest(t, cfg, 2)
}

func newWideTailTest(t *testing.T, cfg TailConfig, width uint8) *tailTest {
	t.Helper()
	goleak.VerifyNone(t) // nothing left by others
	t.Cleanup(func() { goleak.VerifyNone(t) })
	tt := &tailTest{t: t, now: time.Unix(1e9, 0)}
	tt.io, tt.j = newFakeJournal(t, width)
	if err := tt.j.Register(t.Context(), "peer", wire.MirrorPeerClientMeta{}); err != nil {
		t.Fatal(err)
	}
	tt.j.notifies.Wait() // or the tailer would be woken by it
	cfg.ClientID = "peer"
	cfg.Now = func() time.Time { return tt.now }
	tail, err := NewTailer(t.Context(), tt.j, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tail.Close)
	tt.tail = tail
	return tt
}

// entries puts that many entries of tag 0, from tid on, into set 0.
func (tt *tailTest) entries(tid wire.EntryTID, n int) {
	for range n {
		tt.io.put(wire.ObjectNumber(tid%2), wire.Entry{TID: tid, Payload: []byte("payload")}, false)
		tid++
	}
}

func (tt *tailTest) raw(n wire.ObjectNumber, fn func(b []byte) []byte) {
	tt.io.mu.Lock()
	defer tt.io.mu.Unlock()
	name := wire.DataObject(7, testImage, n)
	tt.io.objects[name] = fn(tt.io.objects[name])
}

// next reads until caught up, an end of tag, or an error, and tells the entries' tids.
func (tt *tailTest) next() (tids []wire.EntryTID, b Batch, err error) {
	tt.t.Helper()
	for {
		b, err = tt.tail.Next(tt.t.Context(), 1<<20)
		for _, e := range b.Entries {
			tids = append(tids, e.Position.Entry)
		}
		if err != nil || b.CaughtUp || b.Ended != nil {
			return tids, b, err
		}
	}
}

func (tt *tailTest) want(n int) {
	tt.t.Helper()
	tids, _, err := tt.next()
	if err != nil || len(tids) != n {
		tt.t.Fatalf("%v, %v, want %d entries", tids, err, n)
	}
}

func TestTailerNeedsAClientThatCounts(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(h *fakeHeader)
		want   error
	}{
		{"disconnected", func(h *fakeHeader) { h.clients["peer"].State = wire.Disconnected }, ErrDisconnected},
		{"unregistered", func(h *fakeHeader) { delete(h.clients, "peer") }, ErrNotRegistered},
		{"trimmed", func(h *fakeHeader) {
			h.active, h.minimum = 5, 2
			h.clients["peer"].CommitPosition = wire.ObjectSetPosition{{Object: 4}, {Object: 3}}
		}, ErrTrimmed},
		{"trimmed, with nothing committed", func(h *fakeHeader) { h.active, h.minimum = 5, 2 }, ErrTrimmed},
	} {
		t.Run(c.name, func(t *testing.T) {
			tt := newTailTest(t, TailConfig{})
			tt.entries(0, 1)
			tt.want(1)
			tt.io.change(c.change)
			tt.tail.Wake()
			if _, _, err := tt.next(); !errors.Is(err, c.want) {
				t.Errorf("running tailer: %v, want %v", err, c.want)
			}
			if _, err := NewTailer(t.Context(), tt.j, TailConfig{ClientID: "peer"}); !errors.Is(err, c.want) {
				t.Errorf("new tailer: %v, want %v", err, c.want)
			}
		})
	}
}

// A peer that was flagged disconnected and lost objects must not take their
// absence for the end of a tag.
func TestTailerNoticesTrimmingWithoutANotification(t *testing.T) {
	tt := newTailTest(t, TailConfig{Recheck: time.Hour})
	tt.entries(0, 1)
	tt.want(1)
	tt.io.change(func(h *fakeHeader) {
		h.active, h.minimum = 2, 2
		h.clients["peer"].State = wire.Disconnected
		h.tags = append(h.tags, wire.Tag{TID: 1})
		clear(tt.io.objects)
	})
	tt.io.put(4, wire.Entry{Tag: 1, TID: 0}, false)
	// The tailer's header is made to know the new set, and not yet the flag.
	tt.tail.meta.ActiveSet = 2
	if tids, _, err := tt.next(); !errors.Is(err, ErrDisconnected) {
		t.Fatalf("%v, %v", tids, err)
	}
}

func TestTailerNamesTheCorruptPlace(t *testing.T) {
	tt := newTailTest(t, TailConfig{})
	tt.entries(0, 6)
	size := wire.Entry{Payload: []byte("payload")}.Size()
	tt.raw(0, func(b []byte) []byte {
		b[size+wire.EntryOverhead-4] ^= 1 // in the payload of entry 2
		return b
	})
	tids, _, err := tt.next()
	if fmt.Sprint(tids) != "[0 1]" {
		t.Errorf("before the damage: %v", tids)
	}
	for range 2 { // it stays
		var corrupt *CorruptError
		if !errors.As(err, &corrupt) || corrupt.Object != "journal_data.7.img.0" || corrupt.Offset != uint64(size) {
			t.Fatalf("%v", err)
		}
		if rados.Classify(err) != rados.Corrupt {
			t.Errorf("class %v", rados.Classify(err))
		}
		tids, _, err = tt.next()
		if len(tids) != 0 {
			t.Fatalf("%v behind the damage", tids)
		}
	}
}

func TestTailerWaitsForATornTail(t *testing.T) {
	tt := newTailTest(t, TailConfig{})
	tt.entries(0, 1)
	whole := wire.Marshal(wire.Entry{TID: 1, Payload: []byte("payload")})
	for n := range whole {
		tt.raw(1, func([]byte) []byte { return bytes.Clone(whole[:n]) })
		if n == 0 {
			tt.want(1)
		} else {
			tt.want(0)
		}
	}
	tt.raw(1, func([]byte) []byte { return whole })
	tt.want(1)
}

func TestTornTailOfAClosedObjectIsCorrupt(t *testing.T) {
	for _, c := range []struct {
		name  string
		close func(h *fakeHeader)
	}{
		{"newer set", func(h *fakeHeader) { h.active = 1 }},
		{"newer tag", func(h *fakeHeader) { h.tags = append(h.tags, wire.Tag{TID: 1}) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			tt := newTailTest(t, TailConfig{})
			tt.entries(0, 2)
			tt.raw(0, func(b []byte) []byte { return append(b, wire.Marshal(wire.Entry{TID: 2})[:20]...) })
			tt.want(2)
			tt.io.change(c.close)
			tt.tail.Wake()
			_, _, err := tt.next()
			var corrupt *CorruptError
			if !errors.As(err, &corrupt) || corrupt.Object != "journal_data.7.img.0" || corrupt.Offset != 40 {
				t.Fatal(err)
			}
		})
	}
}

func TestTailerRefusesAnEntryOutOfSequence(t *testing.T) {
	tt := newTailTest(t, TailConfig{})
	tt.entries(0, 2)
	tt.entries(4, 1)
	tids, _, err := tt.next()
	var seq *SequenceError
	if len(tids) != 2 || !errors.As(err, &seq) || seq.Due.Entry != 2 || seq.Found.Entry != 4 || seq.Offset != 40 {
		t.Fatalf("%v, %v", tids, err)
	}
	var corrupt *encoding.CorruptError
	if !errors.As(err, &corrupt) {
		t.Error("not classified as corrupt")
	}
}

func TestTailerGoesOnAfterAFailedRead(t *testing.T) {
	tt := newTailTest(t, TailConfig{})
	tt.entries(0, 5)
	failures := 3
	tt.io.fail = func(object string) error {
		if object == "journal_data.7.img.1" && failures > 0 {
			failures--
			return syscall.ETIMEDOUT
		}
		return nil
	}
	var all []wire.EntryTID
	for n := 0; len(all) < 5; n++ {
		tids, _, err := tt.next()
		if err != nil && (!errors.Is(err, syscall.ETIMEDOUT) || n > 5) {
			t.Fatal(err)
		}
		all = append(all, tids...)
	}
	if fmt.Sprint(all) != "[0 1 2 3 4]" {
		t.Fatal(all)
	}
}

func TestCancelledNextLosesNothing(t *testing.T) {
	tt := newTailTest(t, TailConfig{})
	tt.entries(0, 4)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b, err := tt.tail.Next(ctx, 1<<20)
	if err == nil && len(b.Entries) == 0 {
		t.Fatal("neither entries nor an error")
	}
	tids, _, err := tt.next()
	if n := len(b.Entries) + len(tids); err != nil || n != 4 {
		t.Fatalf("%d entries, %v", n, err)
	}
}

// What is written between the poll of the due place and the look at the header
// must not be lost when the header then shows that the tag, or the set, is over.
func TestTailerLooksAgainBeforeItMovesOn(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(h *fakeHeader)
	}{
		{"newer tag", func(h *fakeHeader) { h.tags = append(h.tags, wire.Tag{TID: 1}) }},
		{"newer set", func(h *fakeHeader) { h.active = 1 }},
		{"both", func(h *fakeHeader) { h.tags = append(h.tags, wire.Tag{TID: 1}); h.active = 1 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			tt := newTailTest(t, TailConfig{})
			tt.entries(0, 1)
			tt.want(1)
			done := false
			tt.io.fail = func(object string) error {
				if object == "journal.img" && !done {
					done = true
					tt.io.objects["journal_data.7.img.1"] = wire.Marshal(wire.Entry{TID: 1})
					c.change(tt.io.header)
				}
				return nil
			}
			tt.tail.Wake()
			if tids, b, err := tt.next(); fmt.Sprint(tids) != "[1]" || err != nil || !done {
				t.Fatalf("%v, %+v, %v", tids, b, err)
			}
		})
	}
}

func TestIdleTailerPollsTheDueObjectOnly(t *testing.T) {
	tt := newTailTest(t, TailConfig{Recheck: time.Minute})
	tt.entries(0, 3)
	tt.want(3)
	tt.want(0)
	clear(tt.io.reads)
	for range 10 {
		tt.want(0)
	}
	if got := fmt.Sprint(tt.io.reads); got != "map[journal_data.7.img.1:10]" {
		t.Fatalf("reads %v", got)
	}
}

func TestTailerRechecksTheHeader(t *testing.T) {
	tt := newTailTest(t, TailConfig{Recheck: time.Minute})
	tt.entries(0, 1)
	tt.want(1)
	// A new tag, without a notification.
	tt.io.change(func(h *fakeHeader) { h.tags = append(h.tags, wire.Tag{TID: 1}) })
	tt.want(0)
	tt.now = tt.now.Add(time.Minute)
	_, b, err := tt.next()
	if err != nil || b.Ended == nil || *b.Ended != (EndOfTag{Tag: 0, Entries: 1}) {
		t.Fatalf("%+v, %v", b, err)
	}
}

func TestBatchesAndBudget(t *testing.T) {
	tt := newTailTest(t, TailConfig{Budget: 1})
	tt.tail.minRead = 1
	const n = 40
	tt.entries(0, n)
	size := int64(wire.Entry{Payload: []byte("payload")}.Size())
	got := 0
	for {
		b, err := tt.tail.Next(t.Context(), size+1)
		if err != nil {
			t.Fatal(err)
		}
		if len(b.Entries) > 2 {
			t.Fatalf("%d entries, wanted 2 at most", len(b.Entries))
		}
		got += len(b.Entries)
		// Each of the two offsets has one entry queued and one on its way at most.
		if held := tt.tail.Held(); held > 2*2*size {
			t.Fatalf("holds %d bytes", held)
		}
		if b.CaughtUp {
			break
		}
	}
	if got != n {
		t.Fatalf("%d entries", got)
	}
}

func TestEntryLargerThanTheBudget(t *testing.T) {
	tt := newTailTest(t, TailConfig{Budget: 1})
	tt.tail.minRead = 16
	large := bytes.Repeat([]byte("x"), 4096-wire.EntryOverhead)
	tt.io.put(0, wire.Entry{TID: 0, Payload: large}, false)
	tt.entries(1, 1)
	tt.want(2)

	// One byte more cannot be an entry: objects are 4096 bytes.
	tt.raw(0, func(b []byte) []byte {
		return append(b, wire.Marshal(wire.Entry{TID: 2, Payload: append(large, 'x')})...)
	})
	_, _, err := tt.next()
	var corrupt *CorruptError
	if !errors.As(err, &corrupt) || corrupt.Offset != 4096 {
		t.Fatal(err)
	}
}

func TestWaitBacksOffAndWakes(t *testing.T) {
	tt := newTailTest(t, TailConfig{MinPoll: time.Millisecond, MaxPoll: 4 * time.Millisecond})
	for _, want := range []time.Duration{2, 4, 4} {
		if err := tt.tail.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if tt.tail.pace.wait() != want*time.Millisecond {
			t.Fatalf("next wait is %v, want %v ms", tt.tail.pace.wait(), int(want))
		}
	}
	tt.entries(0, 1)
	tt.want(1)
	if tt.tail.pace.wait() != time.Millisecond {
		t.Errorf("after an entry the next wait is %v", tt.tail.pace.wait())
	}
	tt.tail.pace.next = time.Hour
	if err := tt.j.Commit(t.Context(), "", nil); err != nil { // somebody changes the header
		t.Fatal(err)
	}
	if err := tt.tail.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	tt.j.notifies.Wait()
	select { // the notification may have come twice: to Wait and after
	case <-tt.tail.wake:
	default:
	}
	cancel()
	if err := tt.tail.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// TestASingleEntryCostsTwoReads lets entries come one by one, as under slow writes: each costs the read that finds it and one
// ahead at the offset that is due then. Several at once are read at all offsets together.
func TestASingleEntryCostsTwoReads(t *testing.T) {
	const width, entries = 4, 12
	tt := newWideTailTest(t, TailConfig{Recheck: time.Hour}, width)
	tt.want(0)
	count := func() (n int) {
		tt.io.mu.Lock()
		defer tt.io.mu.Unlock()
		for o := range wire.ObjectNumber(width) {
			n += tt.io.reads[wire.DataObject(7, testImage, o)]
		}
		return n
	}
	before := count()
	for tid := range wire.EntryTID(entries) {
		tt.io.put(wire.ObjectNumber(tid%width), wire.Entry{TID: tid, Payload: []byte("payload")}, false)
		tt.want(1)
	}
	if n := count() - before; n > 2*entries+4 { // one ahead may come after it was looked for
		t.Errorf("%d reads for %d entries that came one by one", n, entries)
	}
	for tid := wire.EntryTID(entries); tid < 3*entries; tid++ {
		tt.io.put(wire.ObjectNumber(tid%width), wire.Entry{TID: tid, Payload: []byte("payload")}, false)
	}
	before = count()
	tt.want(2 * entries)
	if n := count() - before; n > 2*width+1 {
		t.Errorf("%d reads for %d entries that came at once", n, 2*entries)
	}
}

// TestAtTail goes through what makes another look at once worth while.
func TestAtTail(t *testing.T) {
	tt := newTailTest(t, TailConfig{})
	if tt.tail.AtTail() {
		t.Error("nothing was read yet")
	}
	tt.entries(0, 3)
	tt.want(3)
	if !tt.tail.AtTail() {
		t.Error("all was handed out")
	}
	tt.tail.readers[0].more = true // as when a read of another offset brought several entries
	if tt.tail.AtTail() {
		t.Error("an offset may have more")
	}
	tt.tail.readers[0].more = false
	tt.tail.meta.ActiveSet++
	if tt.tail.AtTail() {
		t.Error("the primary writes to a later set")
	}
}

func TestWatchIsSetAgainWhenLost(t *testing.T) {
	tt := newTailTest(t, TailConfig{})
	tt.want(0)
	tt.io.loseWatches()
	tt.tail.pace.next = time.Hour
	deadline := time.Now().Add(10 * time.Second)
	for {
		tt.io.mu.Lock()
		n := len(tt.io.watchers)
		tt.io.mu.Unlock()
		if n == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("not watched again")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := tt.tail.Wait(t.Context()); err != nil || !tt.tail.dirty.Load() {
		t.Fatalf("a lost watch is not a change: %v", err)
	}
}

func TestEventErrorNamesTheEntry(t *testing.T) {
	tt := newTailTest(t, TailConfig{})
	_, err := tt.tail.Event(Entry{Position: wire.ObjectPosition{Object: 3}, Offset: 77, Payload: []byte{5, 1}})
	var corrupt *CorruptError
	if !errors.As(err, &corrupt) || corrupt.Object != "journal_data.7.img.3" || corrupt.Offset != 77 {
		t.Fatal(err)
	}
}
