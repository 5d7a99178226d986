package journal

import (
	"bytes"
	"context"
	"slices"
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
	})
}

// tailReader is a client: it reads, marks safe, commits, and restarts.
type tailReader struct {
	t       *rapid.T
	j       *Journal
	cfg     TailConfig
	minRead int64
	width   uint8

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
	r.restarts++
	r.got = r.got[:r.committed] // the rest has to come again
	r.safeCount = r.committed
	r.start(ctx)
}
