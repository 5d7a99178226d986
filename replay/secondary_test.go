package replay

import (
	"slices"
	"syscall"

	"pgregory.net/rapid"

	"github.com/rbdwarden/rbdwarden/ceph/journal"
)

// secondary performs a planner's steps on a disk, in any order and as slowly as the
// rules allow, and crashes.
type secondary struct {
	t *rapid.T
	disk
	entries   []Entry // of the journal
	committed journal.ObjectSetPosition
	copied    *syncPoint // what the disk was copied from; nil: it was empty
	covered   journal.Covered
	// done[i]: entry i has had its effect since the last crash, or its effect was not
	// wanted (a failed operation).
	done    []bool
	planner *Planner
	pushed  int
	running []*work
	asks    []NeedOutcome
}

// work is a step under way.
type work struct {
	step Step
	ios  []IO
	from int // index of the first entry in it
}

func newSecondary(t *rapid.T, entries []Entry) *secondary {
	return &secondary{t: t, disk: *newDisk(diskSize), entries: entries}
}

func (s *secondary) index(p journal.ObjectPosition) int {
	return slices.IndexFunc(s.entries, func(e Entry) bool { return e.Position == p })
}

// start begins a replay from the stored commit position.
func (s *secondary) start() {
	s.pushed = 0
	if p, ok := s.committed.Newest(); ok {
		s.pushed = s.index(p) + 1
	}
	s.done = make([]bool, len(s.entries))
	for i := range s.pushed {
		s.done[i] = true
	}
	if s.copied != nil {
		for i := range s.copied.at + 1 {
			s.done[i] = s.done[i] || !slices.Contains(s.copied.left, i)
		}
	}
	s.running, s.asks = nil, nil
	s.planner = New(Config{
		SplayWidth:  splay,
		Committed:   s.committed,
		Covered:     s.covered,
		StepBytes:   rapid.SampledFrom([]int{1, 40, 1000}).Draw(s.t, "step bytes"),
		StepIOs:     rapid.SampledFrom([]int{1, 3, 100}).Draw(s.t, "step ios"),
		HeldBytes:   rapid.SampledFrom([]int{1, 60, 10000}).Draw(s.t, "held bytes"),
		HeldEntries: rapid.SampledFrom([]int{1, 5, 1000}).Draw(s.t, "held entries"),
		InFlight:    rapid.IntRange(1, 3).Draw(s.t, "in flight"),
		Pending:     rapid.IntRange(1, 3).Draw(s.t, "pending"),
	})
}

// run replays to the end of the journal, or to a crash.
func (s *secondary) run(mayCrash bool) (crashed bool) {
	s.start()
	for {
		if mayCrash && rapid.IntRange(0, 39).Draw(s.t, "crash") == 0 {
			return true
		}
		if rapid.IntRange(0, 9).Draw(s.t, "commit") == 0 {
			s.committed = s.planner.Position()
		}
		if again := s.advance(); again || s.advance() { // Next may have made room to push
			continue
		}
		if err := s.planner.Err(); err != nil {
			s.t.Fatalf("planner: %v", err)
		}
		if s.pushed == len(s.entries) && s.planner.Idle() {
			return false
		}
		s.t.Fatalf("stuck at entry %d of %d: %+v", s.pushed, len(s.entries), s.planner.Waiting())
	}
}

// advance does one of the things that can be done; false if there is nothing.
func (s *secondary) advance() bool {
	actions := []func() bool{s.push, s.next, s.work, s.answer}
	n := rapid.IntRange(0, len(actions)-1).Draw(s.t, "action")
	for i := range actions {
		if actions[(n+i)%len(actions)]() {
			return true
		}
	}
	return false
}

func (s *secondary) push() bool {
	if s.pushed == len(s.entries) || s.planner.Full() {
		return false
	}
	if err := s.planner.Push(s.entries[s.pushed]); err != nil {
		s.t.Fatal(err)
	}
	s.pushed++
	return true
}

func (s *secondary) next() bool {
	step, ok := s.planner.Next()
	if !ok {
		return false
	}
	switch v := step.(type) {
	case NeedOutcome:
		s.asks = append(s.asks, v)
	case Writes:
		s.running = append(s.running, &work{step: v, ios: slices.Clone(v.IOs), from: s.index(v.Upto) - v.Entries + 1})
	default:
		s.running = append(s.running, &work{step: v})
	}
	return true
}

// answer looks ahead in the journal, as the caller does.
func (s *secondary) answer() bool {
	if len(s.asks) == 0 {
		return false
	}
	ask := s.asks[0]
	s.asks = s.asks[1:]
	for _, e := range s.entries[s.index(ask.After)+1:] {
		if e.Position.Tag != ask.Tag {
			s.planner.NoOutcome(ask.Tag, ask.Op)
			return true
		}
		if f, ok := e.Event.(journal.OpFinish); ok && f.Op == ask.Op {
			s.planner.Outcome(ask.Tag, f.Op, f.Result)
			return true
		}
	}
	s.t.Fatalf("no outcome of operation %d in the journal", ask.Op)
	return false
}

// work does a part of a step: one I/O, or the end of the step.
func (s *secondary) work() bool {
	if len(s.running) == 0 {
		return false
	}
	i := rapid.IntRange(0, len(s.running)-1).Draw(s.t, "step")
	w := s.running[i]
	if len(w.ios) > 0 {
		s.oneIO(w)
		return true
	}
	switch v := w.step.(type) {
	case Writes:
		s.mark(w.from, s.index(v.Upto))
	case CompareAndWrite:
		s.compareAndWrite(v.Offset, v.Compare, v.Write)
		s.mark(s.index(v.Upto), s.index(v.Upto))
	case Operation:
		s.operate(v)
		s.mark(s.index(v.At), s.index(v.At))
	case Skipped:
		s.mark(s.index(v.At), s.index(v.At))
	case Handover:
		s.mark(s.index(v.At), s.index(v.At))
	case Checkpoint:
		s.committed = s.planner.Position()
	case TagChange:
	}
	s.running = slices.Delete(s.running, i, i+1)
	s.planner.Safe(w.step.ID())
	s.checkPosition()
	return true
}

// oneIO applies an I/O of a step that no earlier one in it overlaps, as the image
// layer may.
func (s *secondary) oneIO(w *work) {
	var free []int
	for i, io := range w.ios {
		blocked := slices.ContainsFunc(w.ios[:i], func(b IO) bool {
			return b.Offset < io.Offset+io.Length && io.Offset < b.Offset+b.Length
		})
		if !blocked {
			free = append(free, i)
		}
	}
	i := rapid.SampledFrom(free).Draw(s.t, "io")
	s.io(w.ios[i])
	w.ios = slices.Delete(w.ios, i, i+1)
	s.touch(w.from)
}

// operate applies an operation; errors that the step does not tolerate would stop
// the image for good.
func (s *secondary) operate(v Operation) {
	r := s.apply(v.Event)
	if _, ok := v.Event.(journal.SnapProtect); ok && r == syscall.EBUSY {
		r = 0 // the secondary's own answer to protecting again
	}
	if r != 0 && !slices.Contains(v.Tolerate, r) {
		s.t.Fatalf("%v: %v", v, r)
	}
}

// touch is called when entry i begins to have an effect: everything before the last
// flush before it must be durable.
func (s *secondary) touch(i int) {
	flushed := false
	for j := i - 1; j >= 0; j-- {
		if _, ok := s.entries[j].Event.(journal.AioFlush); ok {
			flushed = true
		} else if flushed && isIO(s.entries[j].Event) && !s.done[j] {
			s.t.Fatalf("entry %d is applied before entry %d, which a flush precedes", i, j)
		}
	}
}

func isIO(ev journal.Event) bool {
	switch ev.(type) {
	case journal.AioWrite, journal.AioDiscard, journal.AioWriteSame, journal.AioCompareAndWrite:
		return true
	}
	return false
}

func (s *secondary) mark(from, to int) {
	s.touch(from)
	for i := from; i <= to; i++ {
		s.done[i] = true
	}
}

// checkPosition: the position covers nothing that has not had its effect, and has
// the newest entry of each splay offset.
func (s *secondary) checkPosition() {
	position := s.planner.Position()
	newest, ok := position.Newest()
	if !ok {
		return
	}
	at := s.index(newest)
	want := map[uint8]journal.ObjectPosition{}
	for i := range at + 1 {
		e := s.entries[i]
		_, op := e.Event.(journal.Operation)
		if !s.done[i] && (op || isIO(e.Event)) {
			s.t.Fatalf("position %v passes entry %d (%v), which is not applied", newest, i, e.Event.Type())
		}
		want[e.Position.Object.SplayOffset(splay)] = e.Position
	}
	if len(want) != len(position) {
		s.t.Fatalf("position %v, want %v", position, want)
	}
	for _, p := range position {
		if want[p.Object.SplayOffset(splay)] != p {
			s.t.Fatalf("position %v, want %v", position, want)
		}
	}
}
