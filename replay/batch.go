package replay

import (
	"github.com/rbdwarden/rbdwarden/ceph/journal"
)

// batch is the I/O that is being gathered for a Writes step: consecutive entries.
type batch struct {
	ios     []IO
	entries int
	bytes   int // payload
	upto    journal.ObjectPosition
	segment *segment
}

func (b *batch) empty() bool { return b.entries == 0 }

// consumeIO adds an entry to the batch, or gives the batch if it is full.
func (p *Planner) consumeIO(e Entry) bool {
	io, reason := ioOf(e.Event)
	if reason != "" {
		p.failAt(e, reason)
		return true
	}
	b := &p.batch
	if !b.empty() && (len(b.ios) >= p.cfg.StepIOs || b.bytes+e.Bytes > p.cfg.StepBytes) {
		p.flushBatch()
		return true
	}
	if b.empty() {
		b.segment = p.safe.open()
	}
	if io.Length > 0 {
		b.ios = append(b.ios, io)
	}
	b.entries++
	b.bytes += e.Bytes
	b.upto = e.Position
	p.safe.add(b.segment, e.Position)
	p.drop()
	return true
}

// flushBatch plans the Writes step of what was gathered, if anything was.
func (p *Planner) flushBatch() {
	b := p.batch
	if b.empty() {
		return
	}
	p.batch = batch{}
	p.ids++
	p.enqueue(&flight{
		step:    Writes{StepID: p.ids, IOs: b.ios, Upto: b.upto, Entries: b.entries, Bytes: b.bytes},
		segment: b.segment,
		bytes:   b.bytes,
		epoch:   p.epoch,
		extents: extentsOf(b.ios),
	})
}

// ioOf translates an event; reason says why it cannot be one.
func ioOf(ev journal.Event) (io IO, reason string) {
	switch v := ev.(type) {
	case journal.AioWrite:
		io = IO{Kind: Write, Offset: v.Offset, Length: v.Length, Data: v.Data}
		if uint64(len(v.Data)) != v.Length {
			return io, "write's data is not as long as it says"
		}
	case journal.AioDiscard:
		io = IO{Kind: Discard, Offset: v.Offset, Length: v.Length, Granularity: v.Granularity}
	case journal.AioWriteSame:
		io = IO{Kind: WriteSame, Offset: v.Offset, Length: v.Length, Data: v.Data}
		if n := uint64(len(v.Data)); v.Length > 0 && (n == 0 || v.Length%n != 0) {
			return io, "write-same's length is not a multiple of its data's"
		}
	}
	if io.Offset+io.Length < io.Offset {
		return io, "extent is beyond any image"
	}
	return io, ""
}

func invalidCompareAndWrite(v journal.AioCompareAndWrite) string {
	switch {
	case uint64(len(v.CompareData)) != v.Length || uint64(len(v.WriteData)) != v.Length:
		return "compare-and-write's data is not as long as it says"
	case v.Offset+v.Length < v.Offset:
		return "extent is beyond any image"
	}
	return ""
}
