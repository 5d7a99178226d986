package journal

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
)

// writer journals as librbd's recorder does: entries go round the splay objects of
// the active set; each object gets its appends in order, the objects among each
// other in any; a set is closed before the next is opened; a writer that dies loses
// what is not written.
type writer struct {
	io      *fakeIO
	width   uint8
	set     wire.ObjectSet
	tag     wire.TagTID
	any     bool // there is a tag
	next    wire.EntryTID
	pending [][]wire.Entry // by splay offset: not yet written
	written map[wire.EntryTID]bool
	pad     func() bool

	// complete is what a reader must get: of each tag that is over, what was
	// written without a hole. lost counts what was written behind holes.
	complete []wire.ObjectPosition
	lost     uint64
	objects  map[[2]uint64]wire.ObjectNumber
}

func newWriter(io *fakeIO, width uint8, pad func() bool) *writer {
	return &writer{io: io, width: width, pad: pad, pending: make([][]wire.Entry, width),
		written: map[wire.EntryTID]bool{}, objects: map[[2]uint64]wire.ObjectNumber{}}
}

func payload(tag wire.TagTID, tid wire.EntryTID) []byte {
	return bytes.Repeat([]byte{byte(tag), byte(tid)}, int(tid*7%40))
}

func (w *writer) append() {
	if !w.any {
		return
	}
	o := uint8(uint64(w.next) % uint64(w.width))
	w.pending[o] = append(w.pending[o], wire.Entry{Tag: w.tag, TID: w.next, Payload: payload(w.tag, w.next)})
	w.next++
}

func (w *writer) flush(o uint8) {
	if len(w.pending[o]) == 0 {
		return
	}
	e := w.pending[o][0]
	w.pending[o] = w.pending[o][1:]
	n := w.set.Object(w.width, o)
	w.io.put(n, e, w.pad())
	w.written[e.TID] = true
	w.objects[[2]uint64{uint64(e.Tag), uint64(e.TID)}] = n
}

func (w *writer) flushAll() {
	for o := range w.width {
		for len(w.pending[o]) > 0 {
			w.flush(o)
		}
	}
}

func (w *writer) advanceSet() {
	w.flushAll()
	w.set++
	w.io.change(func(h *fakeHeader) { h.active = w.set })
}

// endTag ends the tag; what is pending is lost.
func (w *writer) endTag() {
	w.pending = make([][]wire.Entry, w.width)
	n := wire.EntryTID(0)
	for w.written[n] {
		w.complete = append(w.complete, wire.ObjectPosition{
			Object: w.objects[[2]uint64{uint64(w.tag), uint64(n)}], Tag: w.tag, Entry: n})
		n++
	}
	w.lost += uint64(len(w.written)) - uint64(n)
	w.written, w.next = map[wire.EntryTID]bool{}, 0
}

func (w *writer) newTag() {
	w.endTag()
	w.io.change(func(h *fakeHeader) {
		w.tag = wire.TagTID(len(h.tags))
		h.tags = append(h.tags, wire.Tag{TID: w.tag})
	})
	w.any = true
}

// TestTailerReadsWhatWasWritten lets a writer and a reader run in random turns. The
// reader must get each tag's unbroken sequence, once and in order, across sets,
// tags, deaths of the writer, restarts of itself from its commit position, and
// trimming.
func TestTailerReadsWhatWasWritten(t *testing.T) {
	outer := t
	rapid.Check(t, func(t *rapid.T) {
		width := rapid.Uint8Range(1, 5).Draw(t, "width")
		minRead := rapid.Int64Range(1, 200).Draw(t, "minRead")
		budget := rapid.Int64Range(1, 4000).Draw(t, "budget")
		io, j := newFakeJournal(outer, width)
		defer j.Close()
		ctx := outer.Context()
		io.change(func(h *fakeHeader) {
			h.clients = map[string]*wire.Client{"peer": {ID: "peer"}}
			h.tags = nil
		})
		w := newWriter(io, width, func() bool { return rapid.IntRange(0, 3).Draw(t, "pad") == 0 })

		r := &tailReader{t: t, j: j, cfg: TailConfig{ClientID: "peer", Budget: budget}, minRead: minRead, width: width}
		if rapid.Bool().Draw(t, "shared") {
			r.credit = &fakeCredit{limit: rapid.Int64Range(0, 1000).Draw(t, "credit")}
			r.cfg.Credit, r.cfg.Hungry = r.credit, r.doneAll
		}
		r.start(ctx)
		defer func() { r.tail.Close() }()

		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				for range rapid.IntRange(1, 9).Draw(t, "n") {
					w.append()
				}
			},
			"flush":      func(t *rapid.T) { w.flush(uint8(rapid.IntRange(0, int(width)-1).Draw(t, "o"))) },
			"flushAll":   func(*rapid.T) { w.flushAll() },
			"advanceSet": func(*rapid.T) { w.advanceSet() },
			"newTag":     func(*rapid.T) { w.newTag() },
			"read": func(t *rapid.T) {
				if rapid.Bool().Draw(t, "notified") {
					r.tail.Wake()
				}
				r.read(ctx, rapid.Int64Range(1, 3000).Draw(t, "bytes"))
			},
			"safe":    func(t *rapid.T) { r.safe(rapid.Float64Range(0, 1).Draw(t, "share")) },
			"commit":  func(*rapid.T) { r.commit(ctx) },
			"restart": func(*rapid.T) { r.restart(ctx) },
			"trim": func(*rapid.T) {
				if _, err := j.Trim(ctx); err != nil {
					t.Fatal(err)
				}
			},
			"": func(t *rapid.T) {
				if held := r.tail.Held(); held < 0 {
					t.Fatalf("held %d bytes", held)
				}
				r.doneSome(rapid.Float64Range(0, 1).Draw(t, "done"))
				r.counted()
			},
		})

		// The writer dies and somebody else takes over: everything before counts.
		w.newTag()
		r.tail.Wake()
		for !r.read(ctx, 1<<20).CaughtUp {
		}
		if d := cmp.Diff(w.complete, r.got); d != "" {
			t.Fatalf("read (-written +read): %s", d)
		}
		if r.restarts == 0 && r.dropped > w.lost {
			t.Fatalf("dropped %d entries, %d were lost", r.dropped, w.lost)
		}
		if held := r.tail.Held(); held < 0 || held > int64(width)*max(budget, minRead*2+200) {
			t.Fatalf("holds %d bytes at the end", held)
		}
		if r.tail.Close(); r.credit != nil && r.credit.held() != 0 {
			t.Fatalf("%d bytes of credit are lost", r.credit.held())
		}
	})
}

// tailReader is a client: it reads, marks safe, commits, and restarts.
type tailReader struct {
	t       *rapid.T
	j       *Journal
	cfg     TailConfig
	minRead int64
	width   uint8

	credit *fakeCredit // nil: none
	keeps  []Entry     // not done

	tail      *Tailer
	positions *Positions
	got       []wire.ObjectPosition
	safeCount int // how many of got are safe
	committed int // how many of got are committed
	dropped   uint64
	restarts  int
}

func (r *tailReader) start(ctx context.Context) {
	tail, err := NewTailer(ctx, r.j, r.cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	tail.minRead = r.minRead
	r.tail = tail
	c, err := r.j.Client(ctx, "peer")
	if err != nil {
		r.t.Fatal(err)
	}
	r.positions = NewPositions(r.width, c.CommitPosition)
}

func (r *tailReader) read(ctx context.Context, maxBytes int64) Batch {
	b, err := r.tail.Next(ctx, maxBytes)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range b.Entries {
		if !bytes.Equal(e.Payload, payload(e.Position.Tag, e.Position.Entry)) {
			r.t.Fatalf("payload of %v", e.Position)
		}
		r.positions.Delivered(e.Position)
		r.got = append(r.got, e.Position)
		r.keeps = append(r.keeps, e)
	}
	r.dropped += b.Dropped.Count
	if end := b.Ended; end != nil {
		n := wire.EntryTID(0)
		for _, p := range r.got {
			if p.Tag == end.Tag {
				n++
			}
		}
		if n != end.Entries {
			r.t.Fatalf("tag %d ended after %d entries, %d came", end.Tag, end.Entries, n)
		}
	}
	return b
}

// doneAll is what a caller does that is told that the tailer waits.
func (r *tailReader) doneAll() { r.doneSome(1) }

func (r *tailReader) doneSome(share float64) {
	n := int(share * float64(len(r.keeps)))
	for _, e := range r.keeps[:n] {
		e.Done()
	}
	r.keeps = r.keeps[n:]
}

// counted checks that the memory of entries that are not done counts: all of each read that
// brought one of them.
func (r *tailReader) counted() {
	reads := map[*lease]int64{}
	for _, e := range r.keeps {
		if e.lease != nil {
			reads[e.lease] += int64(len(e.Payload))
		}
	}
	var all int64
	for l, bytes := range reads {
		if l.bytes < bytes {
			r.t.Fatalf("a read of %d bytes keeps entries of %d", l.bytes, bytes)
		}
		all += l.bytes
	}
	if len(reads) > 0 && r.credit.held() < all {
		r.t.Fatalf("%d bytes of credit are held, entries keep %d", r.credit.held(), all)
	}
}

// fakeCredit gives what fits. It lets nobody wait who holds something: that would be for
// ever, for nobody else uses it. Who holds nothing gets anything.
type fakeCredit struct {
	mu    sync.Mutex
	limit int64
	used  int64
}

func (c *fakeCredit) TryTake(bytes int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.used+bytes > c.limit {
		return false
	}
	c.used += bytes
	return true
}

func (c *fakeCredit) Take(_ context.Context, bytes int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.used > 0 && c.used+bytes > c.limit {
		return fmt.Errorf("waits for %d bytes and keeps %d", bytes, c.used)
	}
	c.used += bytes
	return nil
}

func (c *fakeCredit) Give(bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.used -= bytes; c.used < 0 {
		panic("more given back than taken")
	}
}

func (c *fakeCredit) held() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used
}

func (r *tailReader) safe(share float64) {
	n := r.safeCount + int(share*float64(len(r.got)-r.safeCount))
	if n == r.safeCount {
		return
	}
	last := r.got[n-1]
	if !r.positions.Safe(last.Tag, last.Entry) {
		r.t.Fatalf("%v moved nothing", last)
	}
	r.safeCount = n
	if want := expectPosition(r.got[:n], r.width); !slices.Equal(r.positions.Position(), want) {
		r.t.Fatalf("position %v, want %v", r.positions.Position(), want)
	}
}

// expectPosition says the rule plainly: the newest of each splay offset, newest first.
func expectPosition(safe []wire.ObjectPosition, width uint8) (want wire.ObjectSetPosition) {
	for _, p := range slices.Backward(safe) {
		if !slices.ContainsFunc(want, func(q wire.ObjectPosition) bool {
			return q.Object.SplayOffset(width) == p.Object.SplayOffset(width)
		}) {
			want = append(want, p)
		}
	}
	return want
}

func (r *tailReader) commit(ctx context.Context) {
	if err := r.j.Commit(ctx, "peer", r.positions.Position()); err != nil {
		r.t.Fatal(err)
	}
	r.committed = r.safeCount
}

func (r *tailReader) restart(ctx context.Context) {
	r.tail.Close()
	r.doneAll() // of a tailer that is closed: changes nothing
	if r.credit != nil && r.credit.held() != 0 {
		r.t.Fatalf("%d bytes of credit are lost", r.credit.held())
	}
	r.restarts++
	r.got = r.got[:r.committed] // the rest has to come again
	r.safeCount = r.committed
	r.start(ctx)
}
