package image

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/rbdwarden/rbdwarden/rados"
)

// world is an image as objects in memory, with the knowledge that an object map
// has of them.
type world struct {
	layout  Layout
	objects map[ObjectNumber]*fakeObject
}

func (w *world) apply(t *rapid.T, size uint64, ios []IO) {
	for _, p := range planBatch(w.layout, size, ios) {
		o := w.objects[p.object]
		if o == nil {
			o = new(fakeObject)
			w.objects[p.object] = o
		}
		switch p.action(o.exists, false, false) {
		case actionRemove:
			if !o.exists {
				t.Fatalf("object %d is removed but does not exist", p.object)
			}
			*o = fakeObject{}
		case actionWrite:
			ops := p.ops(w.layout, o.exists, true)
			if len(ops) == 0 {
				t.Fatalf("object %d: nothing to write", p.object)
			}
			for _, op := range ops {
				if err := o.apply(op); err != nil {
					t.Fatalf("object %d: %v", p.object, err)
				}
			}
		}
	}
}

func (w *world) read(size uint64) []byte {
	out := make([]byte, size)
	for _, e := range w.layout.Extents(0, size) {
		at := e.Offset
		for _, b := range e.Buffer {
			if o := w.objects[e.Object]; o != nil {
				copy(out[b.Offset:], o.read(at, b.Length))
			}
			at += b.Length
		}
	}
	return out
}

// applyPlainly is the oracle: one I/O after the other on flat bytes. For a discard
// it leaves out what is too small for the granularity.
func applyPlainly(l Layout, image []byte, ios []IO) {
	for _, whole := range ios {
		io, ok := whole.clip(uint64(len(image)))
		if !ok {
			continue
		}
		switch io.Kind {
		case Write:
			copy(image[io.Offset:], io.Data)
		case WriteSame:
			for i := range io.Length {
				image[io.Offset+i] = io.Data[i%uint64(len(io.Data))]
			}
		case Discard:
			if alreadyAligned(l, whole) {
				clear(image[io.Offset : io.Offset+io.Length])
				continue
			}
			for _, e := range l.Extents(io.Offset, io.Length) {
				if e, ok = alignDiscard(e, io.DiscardGranularity, l.ObjectSize()); !ok {
					continue
				}
				for _, s := range l.ImageSpans(e.Object, e.Offset, e.Length) {
					clear(image[s.Offset : s.Offset+s.Length])
				}
			}
		}
	}
}

func drawIO(t *rapid.T, size uint64) IO {
	io := IO{
		Kind:   rapid.SampledFrom([]Kind{Write, Write, Write, Discard, WriteSame}).Draw(t, "kind"),
		Offset: uint64(rapid.IntRange(0, int(size)+100).Draw(t, "offset")),
		Length: uint64(rapid.IntRange(0, 20000).Draw(t, "length")),
	}
	if rapid.IntRange(0, 3).Draw(t, "aligned") == 0 { // whole objects come up
		io.Offset &^= 4095
		io.Length = (io.Length + 4095) &^ 4095
	}
	switch io.Kind {
	case Write:
		io.Data = bytes.Repeat([]byte{byte(rapid.IntRange(1, 255).Draw(t, "fill"))}, int(io.Length))
		for i := range io.Data {
			io.Data[i] += byte(i * 7)
		}
	case WriteSame:
		io.Data = rapid.SliceOfN(rapid.Byte(), 1, 600).Draw(t, "pattern")
	case Discard:
		io.DiscardGranularity = rapid.SampledFrom([]uint64{0, 0, 512, 4096, 8192, 1 << 16}).Draw(t, "granularity")
	}
	return io
}

// Whatever the batches are, the objects hold what plain execution gives.
func TestPlanEqualsPlainExecution(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := world{layout: drawLayout(t), objects: make(map[ObjectNumber]*fakeObject)}
		size := uint64(rapid.IntRange(1, 100000).Draw(t, "size"))
		want := make([]byte, size)
		for range rapid.IntRange(1, 4).Draw(t, "batches") {
			var ios []IO
			for range rapid.IntRange(1, 12).Draw(t, "ios") {
				ios = append(ios, drawIO(t, size))
			}
			applyPlainly(w.layout, want, ios)
			w.apply(t, size, ios)
			if got := w.read(size); !bytes.Equal(got, want) {
				for i := range got {
					if got[i] != want[i] {
						t.Fatalf("byte %d is %d, want %d", i, got[i], want[i])
					}
				}
			}
		}
	})
}

// A discard does here what it did on the primary, whether that journals it as it was
// asked for (before 16.2.11) or what the granularity has left of it, stripe unit by
// stripe unit.
func TestDiscardsOfOldAndNewPrimaries(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLayout(t)
		const size = 1 << 18
		asked := IO{
			Kind:               Discard,
			Offset:             uint64(rapid.IntRange(0, size/512-1).Draw(t, "offset")) * 512,
			DiscardGranularity: rapid.SampledFrom([]uint64{0, 4096, 1 << 16, 1 << 20}).Draw(t, "granularity"),
		}
		asked.Length = min(uint64(rapid.IntRange(1, 400).Draw(t, "length"))*512, size-asked.Offset)

		want := bytes.Repeat([]byte{1}, size)
		journalled := []IO{asked} // by a new primary
		var left []IO
		changed := false
		for _, e := range l.Extents(asked.Offset, asked.Length) {
			aligned, ok := alignDiscard(e, asked.DiscardGranularity, l.ObjectSize())
			changed = changed || !ok || aligned.Length != e.Length
			if !ok {
				continue
			}
			unit, _ := l.units()
			for _, span := range l.ImageSpans(aligned.Object, aligned.Offset, aligned.Length) {
				clear(want[span.Offset : span.Offset+span.Length])
				for span.Length > 0 {
					n := min(unit-span.Offset%unit, span.Length)
					left = append(left, IO{Kind: Discard, Offset: span.Offset, Length: n, DiscardGranularity: asked.DiscardGranularity})
					span.Offset, span.Length = span.Offset+n, span.Length-n
				}
			}
		}
		if len(left) == 0 {
			return // nobody journals it
		}
		if changed {
			journalled = left
		}
		for primary, ios := range map[string][]IO{"old": {asked}, "new": journalled} {
			w := world{layout: l, objects: make(map[ObjectNumber]*fakeObject)}
			w.apply(t, size, []IO{{Kind: Write, Length: size, Data: bytes.Repeat([]byte{1}, size)}})
			w.apply(t, size, ios)
			if !bytes.Equal(w.read(size), want) {
				t.Errorf("%s primary: %v as %v gives other bytes", primary, asked, ios)
			}
		}
	})
}

// describe prints what an object plan sends, for tables.
func describe(l Layout, p *objectPlan, mayExist bool) string {
	switch p.action(mayExist, false, false) {
	case actionNone:
		return "none"
	case actionRemove:
		return "remove"
	}
	var out string
	for _, op := range p.ops(l, mayExist, !mayExist) {
		for _, s := range op.Steps {
			switch s.Kind {
			case rados.WriteData:
				out += fmt.Sprintf("write %d+%d ", s.Offset, len(s.Data))
			case rados.WriteSame:
				out += fmt.Sprintf("same %d+%d %q ", s.Offset, s.Length, s.Data)
			case rados.WriteZero:
				out += fmt.Sprintf("zero %d+%d ", s.Offset, s.Length)
			case rados.WriteTruncate:
				out += fmt.Sprintf("truncate %d ", s.Offset)
			case rados.WriteAllocHint:
				out += fmt.Sprintf("hint %d ", s.Offset)
			default:
				out += fmt.Sprintf("step(%d) ", s.Kind)
			}
		}
		out += "| "
	}
	return out
}

func TestPlanOfOneObject(t *testing.T) {
	l := Layout{Order: 20} // 1 MiB
	const size = 1 << 20
	w := func(offset, length uint64) IO {
		return IO{Kind: Write, Offset: offset, Length: length, Data: make([]byte, length)}
	}
	d := func(offset, length, granularity uint64) IO {
		return IO{Kind: Discard, Offset: offset, Length: length, DiscardGranularity: granularity}
	}
	for _, c := range []struct {
		name          string
		ios           []IO
		exists, isNew string // what is sent if the object exists, and if not
	}{
		{"one write", []IO{w(4096, 4096)}, "write 4096+4096 | ", "hint 1048576 write 4096+4096 | "},
		{"adjacent writes join", []IO{w(0, 10), w(20, 10), w(10, 10)}, "write 0+30 | ", "hint 1048576 write 0+30 | "},
		{"later write wins", []IO{w(0, 100), w(50, 100)}, "write 0+150 | ", "hint 1048576 write 0+150 | "},
		{"large writes are not copied", []IO{w(0, 1<<17), w(1<<17, 4096)}, "write 0+131072 write 131072+4096 | ", "hint 1048576 write 0+131072 write 131072+4096 | "},
		{"part discarded", []IO{d(4096, 4096, 0)}, "zero 4096+4096 | ", "none"},
		{"tail discarded", []IO{d(4096, size-4096, 0)}, "truncate 4096 | ", "none"},
		{"object discarded", []IO{d(0, size, 0)}, "remove", "none"},
		{"discarded, then written", []IO{d(0, size, 0), w(0, 10)}, "truncate 0 write 0+10 | ", "hint 1048576 write 0+10 | "},
		{"written, then discarded", []IO{w(0, 10), d(0, size, 0)}, "remove", "none"},
		{"hole in a write", []IO{w(0, 30), d(10, 10, 0)}, "write 0+10 zero 10+10 write 20+10 | ", "hint 1048576 write 0+10 write 20+10 | "},
		{"hole after the object was discarded", []IO{d(0, size, 0), w(0, 30), d(10, 10, 0)}, "truncate 0 write 0+10 write 20+10 | ", "hint 1048576 write 0+10 write 20+10 | "},
		{"aligned by its primary already", []IO{d(4096, 4096, 65536)}, "zero 4096+4096 | ", "none"},
		{"shrunk to the granularity", []IO{d(60000, 80000, 65536)}, "zero 65536+65536 | ", "none"},
		{"granularity above the object, at the tail", []IO{d(5000, size-5000, 1<<30)}, "truncate 5000 | ", "none"},
		{"short pattern", []IO{{Kind: WriteSame, Offset: 1, Length: 5, Data: []byte("ab")}}, "write 1+5 | ", "hint 1048576 write 1+5 | "},
		{"long pattern, turned and with a rest", []IO{{Kind: WriteSame, Offset: 0, Length: 200001, Data: []byte("abc")}, w(0, 100000)},
			"write 0+100000 same 100000+99999 \"bca\" write 199999+2 | ", "hint 1048576 write 0+100000 same 100000+99999 \"bca\" write 199999+2 | "},
		{"beyond the end", []IO{w(size, 10)}, "", ""},
		{"nothing", []IO{w(5, 0)}, "", ""},
	} {
		plans := planBatch(l, size, c.ios)
		if len(plans) == 0 && c.exists == "" {
			continue
		}
		if c.exists == "none" && len(plans) == 0 {
			continue
		}
		if len(plans) != 1 {
			t.Errorf("%s: %d plans", c.name, len(plans))
			continue
		}
		got := [2]string{describe(l, plans[0], true), describe(l, plans[0], false)}
		if diff := cmp.Diff([2]string{c.exists, c.isNew}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// A plan of very many segments is cut into operations, and nothing is lost.
func TestPlanBoundsSteps(t *testing.T) {
	l := Layout{Order: 22}
	var ios []IO
	want := make([]byte, l.ObjectSize())
	for at := uint64(0); at < l.ObjectSize(); at += 1024 {
		ios = append(ios, IO{Kind: Write, Offset: at, Length: 512, Data: bytes.Repeat([]byte{byte(at/1024) | 1}, 512)})
		copy(want[at:], ios[len(ios)-1].Data)
	}
	plans := planBatch(l, l.ObjectSize(), ios)
	ops := plans[0].ops(l, true, true)
	if len(ops) != 5 { // 4096 writes and a hint
		t.Errorf("%d operations", len(ops))
	}
	var o fakeObject
	for _, op := range ops {
		if len(op.Steps) > maxSteps {
			t.Errorf("%d steps", len(op.Steps))
		}
		if err := o.apply(op); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(o.read(0, l.ObjectSize()), want) {
		t.Error("bytes differ")
	}
}

func TestIOCheck(t *testing.T) {
	for name, io := range map[string]IO{
		"overflow":         {Kind: Discard, Offset: ^uint64(0), Length: 2},
		"short data":       {Kind: Write, Length: 2, Data: []byte{1}},
		"no pattern":       {Kind: WriteSame, Length: 2},
		"short comparison": {Kind: CompareAndWrite, Length: 2, Data: []byte{1, 2}, Compare: []byte{1}},
		"no kind":          {Length: 2},
	} {
		if io.check() == "" {
			t.Errorf("%s: accepted", name)
		}
	}
	if reason := (IO{Kind: Write, Offset: 7, Length: 2, Data: []byte{1, 2}}).check(); reason != "" {
		t.Error(reason)
	}
}
